"""Transient errors are retried inside the batch, others are not; a batch whose server is away stops early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster import progress
from neuralpile_dagster.errors import ArchiveUnavailable, DamagedRecording
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.documents import STOPPED
from neuralpile_dagster.ledger.due import dataset_due
from neuralpile_dagster.ledger.status import dataset_status, session_states
from neuralpile_dagster.orchestration import launch, names
from neuralpile_dagster.orchestration.batches import base
from neuralpile_dagster.orchestration.batches.base import PartitionBatch
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster_tests.fixtures.archives import BLOBS, QUICK
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut, failure_of, house
from neuralpile_dagster_tests.fixtures.served import served
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import status

REQUESTS_PER_TRY = QUICK.attempts
ALWAYS = 10_000
MANY = [f"sub-A/sub-A_ses-{number}.nwb" for number in range(1, 6)]


@pytest.fixture
def server(new_archive: Callable[[], Path]) -> Iterator[DandiServer]:
    """The mice on a DANDI server; the middle one is truncated."""
    archive = new_archive()
    cut(archive / MICE.source.folder / FILES[1])
    with dandi_server() as served:
        for name in FILES:
            served.store.add_file(MICE.source.id, "draft", name, archive / MICE.source.folder / name)
        yield served


@pytest.fixture
def made(server: DandiServer, tmp_path: Path) -> Iterator[House]:
    with served(server, tmp_path) as opened:
        yield opened


@pytest.fixture
def away(
    new_archive: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[House, DandiServer, list[str]]]:
    """Five sessions are listed, then the server of their files fails."""
    monkeypatch.setattr(base, "ATTEMPTS", 1)
    file = new_archive() / MICE.source.folder / FILES[0]
    with dandi_server() as server:
        for name in MANY:
            server.store.add_file(MICE.source.id, "draft", name, file)
        with served(server, tmp_path) as opened:
            keys = opened.discover()
            server.faults.add(status(503, path=BLOBS, times=ALWAYS))
            yield opened, server, keys


def tries(made: House, result: dg.ExecuteInProcessResult) -> list[str]:
    """Lines of the run's log that announce another try."""
    entries = made.instance.all_logs(result.run_id)
    return [entry.user_message for entry in entries if "Trying again" in entry.user_message]


def test_an_archive_that_is_away_twice_costs_two_tries_of_its_session_and_a_damaged_file_none(
    made: House, server: DandiServer
) -> None:
    keys = made.discover()
    server.faults.add(status(503, path=BLOBS, times=2 * REQUESTS_PER_TRY))
    result = made.batch(keys)
    assert made.made(names.spike_counts_key(MICE)) == {SESSIONS[0], SESSIONS[2]}
    assert [line.split(":")[0] for line in tries(made, result)] == [f"{MICE.name} {SESSIONS[0]}"] * 2
    assert "503" in tries(made, result)[0]
    assert tries(made, result)[0].endswith("(attempt 2 of 4).")
    assert "1 of 3 sessions" in failure_of(result)
    failures = documents.read_failures(made.store, MICE, made.settings)
    assert {key: failure.error for key, failure in failures.items()} == {SESSIONS[1]: "DamagedRecording"}


def test_the_log_says_that_a_server_is_waited_for_in_listing_and_in_reading(
    made: House, server: DandiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "WARN_FROM_S", 0.0)
    monkeypatch.setattr(progress, "WARN_EVERY_S", 0.0)
    server.faults.add(status(503, path="/assets/", times=1))
    keys = made.discover()
    server.faults.add(status(503, path=BLOBS, times=1))
    result = made.batch(keys[:1])
    listing, reading = (
        [entry.user_message for entry in made.instance.all_logs(run_id) if "trying again in" in entry.user_message]
        for run_id in (made.instance.get_run_records()[-1].dagster_run.run_id, result.run_id)
    )
    host = server.api_url.removesuffix("/api")
    assert listing == [f"the API at {host}: HTTP status 503; trying again in 0 s (attempt 2 of 3)"]
    assert reading == [f"{MICE.name} {keys[0]}: {FILES[0]}: HTTP status 503; trying again in 0 s (attempt 2 of 3)"]


def test_after_three_transient_errors_in_a_row_a_batch_stops_and_the_same_batch_makes_all_when_the_server_is_back(
    away: tuple[House, DandiServer, list[str]],
) -> None:
    made, server, keys = away
    message = failure_of(made.batch(keys))
    assert "3 of 5 sessions of tiny-mice failed. 2 are left to do: the batch stopped, because 3 in a row" in message
    assert len(server.http.requests("GET", "/blobs/")) == 3 * REQUESTS_PER_TRY
    failures = documents.read_failures(made.store, MICE, made.settings)
    assert {key: failure.stopped_batch for key, failure in failures.items()} == dict(
        zip(keys[:3], (False, False, True), strict=True)
    )

    # the status says why sessions are left to do, and automation waits with them
    standing = dataset_status(made.store, MICE, made.settings)
    assert (standing.done, list(standing.failed), standing.to_do) == (0, keys[:3], 2)
    assert standing.stopped == STOPPED
    states = session_states(made.store, MICE, made.settings, documents.read_manifest(made.store, MICE))
    assert [states[key] for key in keys[3:]] == [f"to do: {STOPPED}"] * 2
    assert dataset_due(made.store, MICE, made.settings, 0.0).sessions == {}
    assert dataset_due(made.store, MICE, made.settings, 0.0).publish is None

    server.faults.clear()
    assert made.batch(keys).success
    standing = dataset_status(made.store, MICE, made.settings)
    assert (standing.done, standing.to_do, standing.stopped) == (5, 0, "")


def test_a_build_does_not_start_the_next_batch_of_a_server_that_is_away(
    away: tuple[House, DandiServer, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, server, keys = away
    monkeypatch.setattr(launch, "batch_size", lambda dataset: 4)
    launcher = Launcher(made.settings, made.instance, made.job)
    launcher.dataset(MICE, None, None, 0.0)
    assert len(server.http.requests("GET", "/blobs/")) == 3 * REQUESTS_PER_TRY
    assert list(launcher.outcome.sessions) == [f"{MICE.name} {key}" for key in keys[:3]]
    (reason,) = launcher.outcome.failed.values()
    assert reason.startswith("not published: 2 sessions left to do; the last batch stopped")


class Scripted(PartitionBatch):
    """Partitions that raise what they are named after."""

    thing = "session"
    whole = "a script"
    script: str = ""

    def keys(self) -> list[str]:
        """One per letter of the script."""
        return [f"{number}{letter}" for number, letter in enumerate(self.script)]

    def make(self, key: str) -> None:
        """Raise the error of a letter: t transient, p permanent; anything else is made."""
        if key.endswith("t"):
            raise ArchiveUnavailable(key)
        if key.endswith("p"):
            raise DamagedRecording(key)


@pytest.mark.parametrize(
    ("script", "failed", "stopped"),
    [("ttt.", 3, True), ("t.tt.", 3, False), ("ttptt.", 5, False), ("ptttt", 4, True), ("ppp.", 3, False)],
)
def test_only_transient_errors_in_a_row_stop_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, failed: int, stopped: bool
) -> None:
    monkeypatch.setattr(base, "ATTEMPTS", 1)
    with house(tmp_path, "sample") as made:
        batch = Scripted(dg.build_asset_context(), InstanceResource(made.settings))
        batch.script = script
        with pytest.raises(dg.Failure):
            batch.run()
    assert (len(batch.failed), batch.stopped) == (failed, stopped)
