"""The newest verdict of a check, which the pages of asset and check show, is about all sessions of the dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest  # the UI's own rule needs one

from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names, verdicts
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut

COUNTS = names.spike_counts_key(MICE)
FIRST, MIDDLE, LAST = SESSIONS
KEYS = [dg.AssetCheckKey(COUNTS, name) for name in verdicts.CHECKS]
NewHouse = Callable[..., House]


def newest(made: House, name: str) -> tuple[bool, str]:
    """Whether the verdict that the UI shows passed, and what it found; it must be one on all sessions."""
    key = dg.AssetCheckKey(COUNTS, name)
    record = made.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.evaluation is not None, record.status
    assert record.evaluation.partition is None
    shown = record.targets_latest_materialization(LoadingContextForTest(made.instance))
    assert asyncio.run(shown), f"the UI calls {name} not evaluated"
    return record.evaluation.passed, str(record.evaluation.metadata["found"].value)


def all_newest(made: House) -> set[tuple[bool, str]]:
    return {newest(made, name) for name in verdicts.CHECKS}


def forget_spikes(made: House, key: str) -> None:
    """Make the record of a session claim fewer spikes than were read."""
    record = documents.read_counts_record(made.store, MICE, made.settings, key)
    assert record is not None
    stats = record.stats.model_copy(update={"spikes_kept": record.stats.spikes_kept - 7})
    path = f"{documents.counts_folder(MICE, made.settings)}/{key}.json"
    write_record(made.store, path, record.model_copy(update={"stats": stats}))


@contextmanager
def queued(made: House, status: dg.DagsterRunStatus) -> Iterator[dg.DagsterRun]:
    """A run of all sessions that is planned, and ends in a status without having begun."""
    run = made.instance.create_run_for_job(made.job, asset_selection={COUNTS})
    yield run
    made.instance.run_storage.handle_run_event(run.run_id, _event(status))


def _event(status: dg.DagsterRunStatus) -> dg.DagsterEvent:
    kinds = {
        dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
        dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    }
    return dg.DagsterEvent(kinds[status].value, "job")


def test_a_session_that_failed_a_check_in_an_earlier_batch_is_still_named(listed_house: NewHouse) -> None:
    made, keys = listed_house(), SESSIONS
    assert made.batch(keys[:2]).success
    assert newest(made, "spikes_conserved") == (True, "2 of 3 known sessions pass; 1 not judged yet")
    forget_spikes(made, FIRST)
    assert not made.batch(keys[:2]).success
    assert made.batch(keys[1:]).success
    (passed, found) = newest(made, "spikes_conserved")
    assert not passed
    assert found.startswith(f"2 of 3 known sessions pass; not {FIRST} (")


def test_sessions_that_failed_before_they_were_judged_fail_no_check_and_are_counted(broken_house: NewHouse) -> None:
    assert all_newest(broken_house()) == {(True, "2 of 3 known sessions pass; 1 failed before they were judged")}


def test_after_a_run_of_one_session_the_verdict_is_still_about_all(built_house: NewHouse) -> None:
    made = built_house()
    assert made.batch([FIRST]).success
    assert all_newest(made) == {(True, "3 of 3 known sessions pass")}
    cut(made.archive / MICE.source.folder / FILES[1])
    made.discover()
    assert not made.batch([MIDDLE]).success
    assert all_newest(made) == {(True, "2 of 3 known sessions pass; 1 failed before they were judged")}


def test_a_session_that_passes_does_not_hide_one_that_failed_while_the_run_goes_on(built_house: NewHouse) -> None:
    made = built_house()
    forget_spikes(made, FIRST)
    assert not made.batch(SESSIONS).success
    said = made.checks(COUNTS, "spikes_conserved")
    for key in (MIDDLE, LAST):
        following = said[next(place for place, verdict in enumerate(said) if verdict.partition == key) - 1]
        assert following.partition is None
        assert not following.passed


def test_while_a_run_goes_on_the_verdict_on_all_counts_what_failed_and_passed_since_it_began(
    listed_house: NewHouse,
) -> None:
    made = listed_house()
    middle, last = (made.archive / MICE.source.folder / name for name in FILES[1:])
    content = last.read_bytes()
    cut(last)
    made.discover()
    assert not made.batch(SESSIONS).success
    forget_spikes(made, FIRST)
    last.write_bytes(content)
    cut(middle)
    made.discover()
    assert not made.batch(SESSIONS).success
    found = [str(said.metadata["found"].value) for said in reversed(made.checks(COUNTS, "spikes_conserved"))]
    of_the_run, *meanwhile = [text for text in found if f"known sessions pass; not {FIRST}" in text]
    assert of_the_run.startswith("1 of 3")
    assert of_the_run.endswith("; 1 failed before they were judged")
    assert meanwhile == [of_the_run]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE])
def test_a_run_that_ended_before_it_judged_anything_hides_the_verdict_only_until_pages_are_refreshed(
    built_house: NewHouse, status: dg.DagsterRunStatus
) -> None:
    made = built_house()
    newest_event = made.instance.event_log_storage.get_latest_asset_check_execution_by_key
    with queued(made, status) as run:
        assert {record.run_id for record in newest_event(KEYS).values()} == {run.run_id}, "checks are planned"
        assert verdicts.keep_newest(made.instance, made.store, made.settings, MICE) == [], "the run is yet to come"
    assert set(verdicts.keep_newest(made.instance, made.store, made.settings, MICE)) == set(verdicts.CHECKS)
    assert all_newest(made) == {(True, "3 of 3 known sessions pass")}
    assert verdicts.keep_newest(made.instance, made.store, made.settings, MICE) == [], "and once is enough"


def test_a_dataset_of_which_no_check_ran_gets_no_verdict(listed_house: NewHouse) -> None:
    made = listed_house()
    assert verdicts.keep_newest(made.instance, made.store, made.settings, MICE) == []
