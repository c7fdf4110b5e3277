"""Run configuration as the launchpad takes it: bounds, choices, and publishing with sessions missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInvalidConfigError

from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_MANIFEST, SESSIONS, House, failure_of
from neuralpile_dagster_tests.fixtures.kept import kept

MANIFEST, SESSIONS_OP, PUBLISH = "neural_pile__manifest", "tiny_mice__sessions", "tiny_mice__hub_dataset"
KEYS = {
    MANIFEST: PILE_MANIFEST,
    SESSIONS_OP: names.spike_counts_key(MICE),
    PUBLISH: names.hub_dataset_key(MICE),
}


def message_of(built: House, op: str, **config: Any) -> str:
    """What Dagster says to this configuration."""
    try:
        partitions = SESSIONS[:1] if op == SESSIONS_OP else ()
        return failure_of(built.run(KEYS[op], partitions=partitions, ops={op: {"config": config}}))
    except DagsterInvalidConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("op", "field", "value"),
    [
        (MANIFEST, "test_size", 0.0),
        (MANIFEST, "test_size", 1.0),
        (MANIFEST, "test_size", "much"),
        (MANIFEST, "seed", -1),
        (MANIFEST, "split_by", "days"),
        (MANIFEST, "merge_from", "disk"),
        (MANIFEST, "flavour", "sweet"),
        (SESSIONS_OP, "access", "smoke"),
        (PUBLISH, "min_session_share", 2.0),
        (PUBLISH, "min_session_share", -0.1),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_field(
    built: House, op: str, field: str, value: object
) -> None:
    message = message_of(built, op, **{field: value})
    assert field in message
    assert any(word in message for word in ("less", "greater", "enum", "Invalid scalar", "unexpected")), message


def test_components_that_are_no_datasets_are_refused_with_the_names_there_are(built: House) -> None:
    message = message_of(built, MANIFEST, components=["tiny-mise"])
    assert "there is no dataset 'tiny-mise'" in message
    assert "tiny-mice" in message


def test_a_repository_that_is_not_there_cannot_be_merged_and_is_named(built: House) -> None:
    message = message_of(built, MANIFEST, extra_repositories=["someone/mice"])
    assert "someone/mice cannot be merged" in message


def test_every_field_of_the_launchpad_has_a_description(built: House) -> None:
    for op in KEYS:
        fields = built.job.get_node_named(op).definition.config_schema.config_type.fields  # type: ignore[attr-defined]
        assert fields
        assert all(field.description for field in fields.values()), op


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, dg.ExecuteInProcessResult]]:
    """The mice published with two of three sessions, the middle one being damaged."""
    with kept("broken", tmp_path_factory.mktemp("partial") / "copy") as made:
        yield made, made.publish(min_session_share=0.6)


Partial = tuple[House, dg.ExecuteInProcessResult]


def test_a_lower_share_publishes_without_the_failed_session(partial: Partial) -> None:
    made, result = partial
    assert result.success
    published = documents.require_published(made.store, MICE, made.settings)
    assert [session.key for session in published.sessions] == [SESSIONS[0], SESSIONS[2]]


def test_the_card_names_the_missing_session_and_why(partial: Partial) -> None:
    card = (partial[0].hub_folder("tiny-mice") / "README.md").read_text().replace("\\", "")  # escapes of Markdown
    assert SESSIONS[1] in card
    assert "cannot be opened as HDF5" in card


def test_the_check_of_missing_sessions_warns_and_names_it(partial: Partial) -> None:
    (said,) = partial[0].checks(names.hub_dataset_key(MICE), "no_sessions_left_failed")
    assert (said.passed, said.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert SESSIONS[1] in str(said.metadata["found"].value)


def test_the_checks_of_what_was_published_pass_with_sessions_missing(partial: Partial) -> None:
    for name in ("card_counts_equal_footers", "hub_equals_record", "hub_dataset_is_current"):
        assert [said.passed for said in partial[0].checks(names.hub_dataset_key(MICE), name)] == [True], name


def test_a_share_that_is_not_met_refuses_with_both_numbers(partial: Partial) -> None:
    message = failure_of(partial[0].publish(min_session_share=0.7))
    assert "2 of 3 sessions done" in message
    assert "at least 3 (min_session_share 0.7)" in message
