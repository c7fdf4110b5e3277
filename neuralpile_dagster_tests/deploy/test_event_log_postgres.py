"""The event log in a real Postgres: the same as Dagster's own, over few connections, also after a restart."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster_postgres.event_log import PostgresEventLogStorage

from neuralpile_dagster.orchestration.event_log_postgres import OpenPostgresEventLogStorage
from neuralpile_dagster_tests.deploy.cluster import free_port, missing_programs

EVENTS = 30


class Postgres:
    """A database server of this test's own, in a folder."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("pg_ctl") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))
        self.programs, self.data = Path(found).resolve().parent, folder / "data"
        self.options = f"-p {free_port()} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.url = f"postgresql+psycopg2://tester@127.0.0.1:{self.options.split()[1]}/postgres"
        self._run("initdb", "--pgdata", self.data, "--username", "tester", "--auth", "trust", "--encoding", "UTF8")

    def _run(self, program: str, *arguments: str | Path) -> None:
        # Postgres refuses to run as root
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if not os.geteuid() else []
        subprocess.run([*user, self.programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-o", self.options, "-l", self.data / "log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self.data)

    def sessions(self) -> int:
        """How often somebody connected to the database so far; this question is one more."""
        with psycopg2.connect(self.url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select pg_stat_force_next_flush(), sessions from pg_stat_database where datname = 'postgres'"
            )
            row = cursor.fetchone()
        assert row is not None
        return int(row[1])


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if missing := missing_programs():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory() as name:  # not below pytest's own, which only this user may enter
        folder = Path(name)
        if not os.geteuid():
            shutil.chown(folder, "postgres")
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def event(number: int) -> EventLogEntry:
    made = dg.AssetMaterialization("a", partition=str(number))
    data = StepMaterializationData(made)
    happened = DagsterEvent(DagsterEventType.ASSET_MATERIALIZATION.value, "job", event_specific_data=data)
    return EventLogEntry(
        error_info=None,
        level=20,
        user_message="",
        run_id="run",
        timestamp=float(number),
        job_name="job",
        dagster_event=happened,
    )


def stored(log: PostgresEventLogStorage, first: int) -> list[str | None]:
    for number in range(first, first + EVENTS):
        log.store_event(event(number))
    found = log.fetch_materializations(dg.AssetKey("a"), limit=10_000, ascending=True).records
    return [record.partition_key for record in found]


def test_events_are_those_of_dagsters_own_log_over_one_connection_that_survives_a_restart(postgres: Postgres) -> None:
    own = PostgresEventLogStorage(postgres.url)
    expected = stored(own, 0)
    log = OpenPostgresEventLogStorage.from_config_value(None, {"postgres_url": postgres.url})
    before = postgres.sessions()
    assert stored(log, EVENTS) == [*expected, *map(str, range(EVENTS, 2 * EVENTS))]
    assert postgres.sessions() - before <= 3, "one for all events, and this test's own questions"
    postgres.stop()
    postgres.start()
    assert len(stored(log, 2 * EVENTS)) == 3 * EVENTS
    log.dispose()
    own.dispose()
