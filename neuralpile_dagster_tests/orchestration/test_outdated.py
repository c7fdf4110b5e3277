"""What the archive lists now is what must be published: counts of older files are neither passed off nor kept quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.due import dataset_due
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, copy_of, failure_of, trains_of
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

TRAINS, COUNTS = names.spike_trains_key(MICE), names.spike_counts_key(MICE)
HUB_DATASET = names.hub_dataset_key(MICE)


@pytest.fixture(scope="module")
def changed(built: House) -> House:
    """A published dataset of which the archive then lists another first file; tests that repair it take a copy."""
    write_units_nwb(built.archive / MICE.source.folder / FILES[0], trains_of(9))
    built.discover()
    return built


def newest(made: House, check: str, key: object = COUNTS) -> dict[str | None, bool]:
    """What a check said last, by partition."""
    said: dict[str | None, bool] = {}
    for evaluation in made.checks(key, check):  # type: ignore[arg-type]
        said.setdefault(evaluation.partition, evaluation.passed)
    return said


def published_size(made: House) -> int:
    """Bytes of the first session's file as the published table of sessions has them."""
    (table,) = (made.hub_folder("tiny-mice") / "sessions").iterdir()
    return int(pq.read_table(table).to_pylist()[0]["files"][0]["size"])


def test_a_changed_file_fails_the_check_of_the_source_when_checks_run_alone(changed: House) -> None:
    assert changed.run_checks(COUNTS).success
    said = newest(changed, "source_is_as_listed")
    assert {key: said[key] for key in SESSIONS} == {SESSIONS[0]: False, SESSIONS[1]: True, SESSIONS[2]: True}


def test_counts_of_an_older_file_are_not_published_with_the_new_files_digests(changed: House) -> None:
    before = published_size(changed)
    result = changed.publish()
    assert not result.success
    assert f"{SESSIONS[0]} (out of date" in failure_of(result)
    assert published_size(changed) == before


def test_the_published_dataset_is_no_longer_current(changed: House) -> None:
    assert changed.run_checks(HUB_DATASET).success
    assert newest(changed, "hub_dataset_is_current", HUB_DATASET)[None] is False
    assert newest(changed, "no_sessions_left_failed", HUB_DATASET)[None] is False


def test_counts_alone_read_the_changed_file_anew(changed: House, tmp_path: Path) -> None:
    with copy_of(changed, tmp_path / "copy") as made:
        assert made.run(COUNTS, partitions=SESSIONS).success
        assert newest(made, "source_is_as_listed")[SESSIONS[0]] is True
        assert dataset_due(made.store, MICE, made.settings, 1.0).sessions == {}
        assert made.run(HUB_DATASET, checks=False).success
        assert published_size(made) == (made.archive / MICE.source.folder / FILES[0]).stat().st_size


@pytest.fixture
def refused(built_house: Callable[..., House]) -> House:
    """A dataset whose middle session failed a blocking check."""
    made = built_house()
    record = documents.read_counts_record(made.store, MICE, made.settings, SESSIONS[1])
    assert record is not None
    stats = record.stats.model_copy(update={"spikes_kept": record.stats.spikes_kept - 7})
    folder = documents.counts_folder(MICE, made.settings)
    write_record(made.store, f"{folder}/{SESSIONS[1]}.json", record.model_copy(update={"stats": stats}))
    assert not made.batch(SESSIONS[1:2]).success
    return made


def test_spike_trains_alone_do_not_lift_what_a_check_of_the_counts_refused(refused: House) -> None:
    assert refused.run(TRAINS, partitions=[SESSIONS[1]]).success
    assert list(documents.read_failures(refused.store, MICE, refused.settings)) == [SESSIONS[1]]
    result = refused.publish()
    assert not result.success
    assert "spikes_conserved" in failure_of(result)
