"""What may go away by itself is tried again inside the batch; what will not is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster import progress
from neuralpile_dagster.archives.dandi.archive import DandiArchive
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.model import Archive
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.definitions import dataset_definitions
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.progress import progress_logger
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster_tests.fixtures.archives import BLOBS, QUICK
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut, failure_of, house
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import status

REQUESTS_PER_TRY = QUICK.attempts


@dataclass(frozen=True)
class ServedInstance(InstanceResource):
    """An instance whose archive is a DANDI server of this machine, which it is less patient with."""

    api_url: str

    def open_archive(self, source: Source, limits: RetryPolicy | None = None) -> Archive:
        """The server's dandisets."""
        return DandiArchive(self.api_url, None, DownloadCache(self.settings.home / "cache"), 1, QUICK)


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
    with house(tmp_path, "dandi") as opened:
        opened.definitions = dg.Definitions.merge(
            dg.Definitions(
                resources={"instance": ServedInstance(opened.settings, server.api_url).definition()},
                loggers={"progress": progress_logger},
                executor=dg.in_process_executor,
            ),
            dataset_definitions(MICE),
        )
        yield opened


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
    assert listing == [f"the API at {host}: HTTP status 503; trying again in 0 s"]
    assert reading == [f"{MICE.name} {keys[0]}: {FILES[0]}: HTTP status 503; trying again in 0 s"]
