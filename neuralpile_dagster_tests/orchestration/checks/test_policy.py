"""What a failed check means: severities, what blocks, and a row's own severities."""

from __future__ import annotations

import dagster as dg
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.checks.model import Layer, Verdict
from neuralpile_dagster.checks.registry import (
    ALL_CHECKS,
    CHECKS,
    checks_of,
    is_blocking,
    require_known_checks,
    severity_of,
)
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.orchestration import checks
from neuralpile_dagster_tests.fixtures.house import MICE, House, house

SEVERITIES = {
    "manifest": {
        "sessions_expected": ("warn", False),
        "subjects_published": ("warn", False),
        "no_session_vanished": ("warn", False),
    },
    "spike_counts": {
        "spikes_conserved": ("error", True),
        "rows_follow_the_contract": ("error", True),
        "segments_cover_the_session": ("error", True),
        "file_is_as_recorded": ("error", True),
        "counts_match_spike_trains": ("error", True),
        "source_is_as_listed": ("warn", False),
        "subject_and_species_agree": ("warn", False),
        "no_saturated_bins": ("warn", False),
        "few_silent_units": ("warn", False),
        "plausible_rates": ("warn", False),
        "no_duplicate_spikes": ("warn", False),
        "spikes_are_in_bins": ("warn", False),
        "plausible_clock": ("warn", False),
        "time_is_observed": ("warn", False),
    },
    "hub_dataset": {
        "no_sessions_left_failed": ("warn", False),
        "tokens_published": ("warn", False),
        "no_twin_sessions": ("warn", False),
        "sessions_resemble_each_other": ("warn", False),
        "card_counts_equal_footers": ("error", True),
        "hub_equals_record": ("error", True),
        "component_reads_back": ("error", False),
        "spike_times_give_the_counts": ("error", False),
        "hub_dataset_is_current": ("warn", False),
    },
    "pile": {
        "tokens_equal_components": ("error", True),
        "every_row_exactly_once": ("error", True),
        "train_and_test_disjoint": ("error", True),
        "split_sizes": ("error", True),
        "split_is_stable": ("error", True),
        "benchmarks_in_train": ("warn", False),
        "shuffled": ("warn", False),
        "card_counts_equal_pile": ("error", True),
        "pile_is_as_published": ("error", True),
        "pile_reads_back": ("error", False),
        "counts_as_published": ("warn", False),
    },
    "motifs": {
        "motif_frequencies_sum_to_patches": ("error", True),
        "motif_spikes_conserved": ("error", True),
        "silence_counted_again": ("error", True),
        "motif_table_in_order": ("error", True),
    },
    "motifs_hub_dataset": {
        "card_counts_equal_motifs": ("error", True),
        "motifs_are_as_published": ("error", True),
        "motifs_read_back": ("error", False),
    },
    "tokens_hub_dataset": {
        "lossless_share_as_stated": ("error", True),
        "tokens_decode_to_counts": ("error", True),
        "card_counts_equal_tokens": ("error", True),
        "tokens_are_as_published": ("error", True),
        "tokens_read_back": ("error", False),
    },
}
"""What operators rely on, written down a second time on purpose: (severity, blocking) of every check."""
OF_PILES = ("pile", "motifs", "motifs_hub_dataset", "tokens_hub_dataset")
MOTIFS = NEURAL_PILE.model_copy(update={"motif_shapes": ((1, 15),), "vocabulary_sizes": (40,)})
ROWS = {row.checks: row for row in pile_analyses_of(MOTIFS) if row.checks}


@pytest.mark.parametrize("layer", SEVERITIES)
def test_severities_and_what_blocks_are_those_that_operators_rely_on(layer: Layer) -> None:
    assert {check.name: (check.severity, check.blocking) for check in checks_of(layer)} == SEVERITIES[layer]


@pytest.mark.parametrize("layer", SEVERITIES)
def test_dagster_is_told_which_checks_block_and_why_each_is_made(layer: Layer) -> None:
    if layer in ROWS:
        specs = list(checks.checks_of_made(MOTIFS, [], ROWS[layer]).check_specs)
    else:
        specs = checks.specs(NEURAL_PILE if layer == "pile" else MICE, layer)
    assert {spec.name: spec.blocking for spec in specs} == {
        name: blocking for name, (_, blocking) in SEVERITIES[layer].items()
    }
    assert {spec.name: spec.description for spec in specs} == {check.name: check.why for check in checks_of(layer)}


def test_a_failed_check_has_the_severity_of_its_row() -> None:
    for layer, rows in SEVERITIES.items():
        said = checks.results(dict.fromkeys(rows, Verdict(False, 0, 1)), NEURAL_PILE if layer in OF_PILES else MICE)
        assert {result.check_name: result.severity.value.lower() for result in said} == {
            name: severity for name, (severity, _) in rows.items()
        }


def test_no_two_checks_have_one_name() -> None:
    assert len(ALL_CHECKS) == len(CHECKS) == sum(map(len, SEVERITIES.values()))


def test_only_errors_block() -> None:
    assert all(check.severity == "error" for check in ALL_CHECKS if check.blocking)


def test_every_check_says_why() -> None:
    assert all(check.why.endswith(".") for check in ALL_CHECKS)


@pytest.mark.parametrize("row", [*RODENT, *SAMPLE], ids=lambda row: row.name)
def test_the_rows_of_the_package_name_known_checks(row) -> None:  # noqa: ANN001
    require_known_checks(row)


def test_a_row_overrides_a_severity_and_with_it_what_blocks() -> None:
    row = MICE.model_copy(update={"severity": {"no_saturated_bins": "error", "spikes_conserved": "warn"}})
    assert severity_of("no_saturated_bins", row) == "error"
    assert severity_of("no_saturated_bins", MICE) == "warn"
    assert not is_blocking("spikes_conserved", row)
    assert is_blocking("spikes_conserved", MICE)
    (evaluation,) = checks.evaluations({"no_saturated_bins": Verdict(False, 0, 3, "look")}, row, "ses-1")
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert evaluation.partition == "ses-1"


def test_a_failed_check_says_expected_found_and_what_to_do_and_a_passed_one_no_advice() -> None:
    failed, passed = (
        checks.results({"no_saturated_bins": Verdict(good, 0, 3, "look at the units", {"lost": 45})}, MICE)[0]
        for good in (False, True)
    )
    assert {name: value.value for name, value in failed.metadata.items()} == {
        "expected": 0,
        "found": 3,
        "lost": 45,
        "what_to_do": "look at the units",
    }
    assert failed.description == "expected 0, found 3"
    assert "what_to_do" not in passed.metadata


def test_a_severity_for_a_check_that_does_not_exist_is_refused_with_the_row_and_the_closest_name() -> None:
    row = MICE.model_copy(update={"severity": {"no_saturated_bin": "error"}})
    with pytest.raises(CatalogError, match=r"row tiny-mice, field severity.*'no_saturated_bins'"):
        require_known_checks(row)


def test_a_check_of_the_pile_cannot_be_overridden_by_a_dataset() -> None:
    with pytest.raises(CatalogError, match="there is no check 'shuffled'"):
        require_known_checks(MICE.model_copy(update={"severity": {"shuffled": "warn"}}))


def test_definitions_do_not_load_with_a_severity_for_an_unknown_check(built: House) -> None:
    row = MICE.model_copy(update={"severity": {"tokens": "error"}})
    with house(built.settings.home, built.archive, [row]) as made, pytest.raises(CatalogError, match="check 'tokens'"):
        _ = made.job


def test_an_overridden_warning_turns_the_check_red_in_a_real_run(built: House) -> None:
    row = MICE.model_copy(update={"severity": {"sessions_expected": "error"}, "sessions_published": 9})
    with house(built.settings.home, built.archive, [row]) as made:
        made.discover(row)
        (said,) = made.checks(dg.AssetKey(["tiny_mice", "manifest"]), "sessions_expected")
    assert (said.passed, said.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert said.metadata["expected"].value == 9
    assert said.metadata["found"].value == 3
