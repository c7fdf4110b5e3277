"""The newest verdict of a check, which the pages of asset and check show, is about all sessions of the dataset."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut

COUNTS = names.spike_counts_key(MICE)
FIRST, MIDDLE, LAST = SESSIONS


def newest(made: House, name: str) -> tuple[bool, str]:
    """Whether the last verdict on all sessions passed, and what it found."""
    said: dg.AssetCheckEvaluation = made.checks(COUNTS, name)[0]
    assert said.partition is None
    return said.passed, str(said.metadata["found"].value)


def forget_spikes(made: House, key: str) -> None:
    """Make the record of a session claim fewer spikes than were read."""
    record = documents.read_counts_record(made.store, MICE, made.settings, key)
    assert record is not None
    stats = record.stats.model_copy(update={"spikes_kept": record.stats.spikes_kept - 7})
    path = f"{documents.counts_folder(MICE, made.settings)}/{key}.json"
    write_record(made.store, path, record.model_copy(update={"stats": stats}))


def test_a_session_that_failed_a_check_in_an_earlier_batch_is_still_named(new_house: Callable[..., House]) -> None:
    made = new_house()
    keys = made.discover()
    assert made.batch(keys[:2]).success
    assert newest(made, "spikes_conserved") == (True, "2 of 3 known sessions pass; 1 not judged yet")
    forget_spikes(made, FIRST)
    assert not made.batch(keys[:2]).success
    assert made.batch(keys[1:]).success
    said = newest(made, "spikes_conserved")
    assert said == (False, f"2 of 3 known sessions pass; not {FIRST} (of an earlier batch)")


def test_sessions_of_the_batch_that_failed_before_they_were_judged_are_counted(new_house: Callable[..., House]) -> None:
    made = new_house()
    cut(made.archive / MICE.source.folder / FILES[1])
    assert not made.batch(made.discover()).success
    said = newest(made, "spikes_conserved")
    assert said == (True, "2 of 3 known sessions pass; 1 of this batch failed before they were judged")
