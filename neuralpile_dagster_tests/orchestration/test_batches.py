"""Batches of sessions: a broken one costs only itself, what is done is not done again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from neuralpile_dagster.checks.registry import CHECKS
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.status import dataset_status
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.session import build
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut, failure_of
from neuralpile_dagster_tests.fixtures.kept import PastRun, kept, last_run

TRAINS, COUNTS = names.spike_trains_key(MICE), names.spike_counts_key(MICE)
FIRST, MIDDLE, LAST = SESSIONS
Broken = tuple[House, PastRun]
NewHouse = Callable[..., House]
PER_SESSION = [name for name, check in CHECKS.items() if check.layer == "spike_counts"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Three sessions of which the middle one is truncated, after one run of all three; tests only look."""
    with kept("broken", tmp_path_factory.mktemp("broken") / "copy") as made:
        yield made, last_run(made)


def test_two_of_three_sessions_are_green_and_one_red_after_one_batch(broken: Broken) -> None:
    made, result = broken
    assert not result.success
    assert made.made(TRAINS) == made.made(COUNTS) == {FIRST, LAST}


def test_the_batch_names_the_session_that_failed_and_why(broken: Broken) -> None:
    message = failure_of(broken[1])
    assert "1 of 3 sessions of tiny-mice failed; the others are done" in message
    assert f"{MIDDLE}: {FILES[1]} cannot be opened as HDF5" in message
    assert "truncated" in message
    assert FIRST not in message


def test_a_failed_session_leaves_a_record_with_its_reason_and_no_other_file(broken: Broken) -> None:
    made, result = broken
    failures = documents.read_failures(made.store, MICE, made.settings)
    assert list(failures) == [MIDDLE]
    assert failures[MIDDLE].error == "DamagedRecording"
    assert failures[MIDDLE].run_id == result.run_id
    assert not failures[MIDDLE].transient
    assert [key for key in made.store.keys(MICE.key) if MIDDLE in key] == [f"{MICE.key}/failures/{MIDDLE}.json"]


def test_the_status_counts_done_and_failed_sessions(broken: Broken) -> None:
    status = dataset_status(broken[0].store, MICE, broken[0].settings)
    assert (status.known, status.done, list(status.failed), status.to_do) == (3, 2, [MIDDLE], 0)


def test_every_check_is_recorded_for_every_finished_session_alone(broken: Broken) -> None:
    for name in PER_SESSION:
        said = {e.partition: e.passed for e in broken[0].checks(COUNTS, name)}
        assert said == {FIRST: True, LAST: True, None: True}, name


def test_a_dataset_with_a_failed_session_is_not_published_and_says_which(broken: Broken) -> None:
    result = broken[0].publish()
    assert not result.success
    assert "2 of 3 sessions done" in failure_of(result)
    assert MIDDLE in failure_of(result)
    assert not broken[0].hub_folder("tiny-mice").exists()


def test_a_second_batch_of_the_repaired_session_alone_completes_the_dataset(
    broken_house: NewHouse, mice_files: dict[str, bytes]
) -> None:
    made = broken_house()
    broken_file = made.archive / MICE.source.folder / FILES[1]
    broken_file.write_bytes(mice_files[broken_file.relative_to(made.archive).as_posix()])
    assert made.discover() == list(SESSIONS)
    assert made.batch([MIDDLE]).success
    assert made.made(COUNTS) == set(SESSIONS)
    assert documents.read_failures(made.store, MICE, made.settings) == {}
    assert made.run(names.hub_dataset_key(MICE), checks=False).success


def test_a_batch_of_finished_sessions_writes_nothing(built_house: NewHouse) -> None:
    made = built_house()
    before = contents(made.store.root)
    result = made.batch(SESSIONS)
    assert result.success
    assert contents(made.store.root) == before
    reused = [event.materialization.metadata["reused"].value for event in materializations(result)]
    assert reused == [True] * 6


def test_a_session_whose_file_changed_is_made_anew_and_its_neighbours_are_not(built_house: NewHouse) -> None:
    made = built_house()
    before = contents(made.store.root)
    first, second, _ = (made.archive / MICE.source.folder / name for name in FILES)
    second.write_bytes(first.read_bytes())
    made.discover()
    assert made.batch(SESSIONS).success
    changed = {path.split("/")[-1] for path, state in contents(made.store.root).items() if before.get(path) != state}
    assert changed == {f"{MIDDLE}{end}" for end in (".parquet", ".json", ".units.parquet")} | {"manifest.json"}


def test_counts_are_made_of_what_was_read_and_spike_times_are_free_while_rows_are_written(
    listed_house: NewHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_times, write_rows = [], build.write_session_rows

    def store(*arguments: Any, **more: Any) -> Any:
        spike_times.append(weakref.ref(arguments[3].data.spike_times))
        return store_recording(*arguments, **more)

    def write(*arguments: Any, **more: Any) -> Any:
        assert spike_times[-1]() is None
        return write_rows(*arguments, **more)

    made, store_recording = listed_house(), build.store_recording
    monkeypatch.setattr(build, "store_recording", store)
    monkeypatch.setattr(build, "write_session_rows", write)
    monkeypatch.delattr(build, "load_recording")
    assert made.batch(SESSIONS[:2]).success
    assert len(spike_times) == 2


def test_spike_trains_alone_can_be_made_and_counts_later(listed_house: NewHouse) -> None:
    made, keys = listed_house(), [FIRST]
    assert made.run(TRAINS, partitions=keys).success
    assert made.made(COUNTS) == set()
    assert made.run(COUNTS, partitions=keys).success
    assert made.made(COUNTS) == set(keys)


def test_counts_alone_of_sessions_that_were_never_read_make_their_spike_trains_too(listed_house: NewHouse) -> None:
    made = listed_house()
    assert made.run(COUNTS, partitions=[FIRST]).success
    assert made.made(TRAINS) == made.made(COUNTS) == {FIRST}


def test_the_checks_alone_judge_every_finished_session_again(broken_house: NewHouse) -> None:
    made = broken_house()
    stored = made.store.root / "tiny_mice" / "spike_counts" / f"{LAST}.parquet"
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    before = len(made.checks(COUNTS, "file_is_as_recorded"))
    result = made.run_checks(COUNTS)
    said = made.checks(COUNTS, "file_is_as_recorded")
    new = {e.partition: e.passed for e in said[: len(said) - before]}
    assert new == {FIRST: True, LAST: False, None: False}
    together = said[0]
    assert f"1 of 3 known sessions pass; not {LAST} (changed:" in str(together.metadata["found"].value)
    assert f"{LAST} fails the check" in failure_of(result)


def test_the_newest_verdict_of_a_check_is_about_all_sessions_of_the_dataset(built: House) -> None:
    newest = built.checks(COUNTS, "spikes_conserved")[0]
    assert newest.partition is None
    assert newest.metadata["found"].value == "3 of 3 known sessions pass"


def test_the_ui_finds_the_check_of_each_partition_and_calls_nothing_unsynced(built: House) -> None:
    log = built.instance.event_log_storage
    states = log.get_asset_check_partition_info([dg.AssetCheckKey(COUNTS, "plausible_rates")])
    assert {state.partition_key: state.is_current for state in states if state.partition_key} == dict.fromkeys(
        SESSIONS, True
    )
    graph, loading = built.job.asset_layer.asset_graph, LoadingContextForTest(built.instance)
    stale = CachingStaleStatusResolver(built.instance, graph, loading_context=loading)
    for key in (TRAINS, COUNTS):
        assert [stale.get_status(key, partition) for partition in SESSIONS] == [StaleStatus.FRESH] * 3, (
            stale.get_stale_causes(key, FIRST)
        )


def test_a_batch_in_which_every_session_fails_does_not_say_that_others_are_done(new_house: NewHouse) -> None:
    made = new_house()
    for name in FILES:
        cut(made.archive / MICE.source.folder / name)
    message = failure_of(made.batch(made.discover()))
    assert "3 of 3 sessions of tiny-mice failed" in message
    assert "others" not in message


def test_a_session_that_fails_a_blocking_check_is_red_and_not_published(built_house: NewHouse) -> None:
    made = built_house()
    record = documents.read_counts_record(made.store, MICE, made.settings, MIDDLE)
    assert record is not None
    forgetful = record.stats.model_copy(update={"spikes_kept": record.stats.spikes_kept - 7})
    path = f"{documents.counts_folder(MICE, made.settings)}/{MIDDLE}.json"
    write_record(made.store, path, record.model_copy(update={"stats": forgetful}))
    result = made.batch(SESSIONS)
    assert f"{MIDDLE} fails the check spikes_conserved" in failure_of(result)
    said = made.checks(COUNTS, "spikes_conserved")[:4]
    assert {e.partition: e.passed for e in said} == {FIRST: True, MIDDLE: False, LAST: True, None: False}
    assert "2 of 3 sessions done" in failure_of(made.publish())


def test_a_stored_file_that_changed_is_made_anew_when_its_session_is_materialized_again(built_house: NewHouse) -> None:
    made = built_house()
    stored = made.store.root / documents.counts_folder(MICE, made.settings) / f"{MIDDLE}.parquet"
    right = stored.read_bytes()
    stored.write_bytes(right[:500] + bytes([right[500] ^ 0xFF]) + right[501:])
    assert made.batch([MIDDLE]).success
    assert stored.read_bytes() == right


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written, and what it holds."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def materializations(result: dg.ExecuteInProcessResult) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.is_step_materialization]
