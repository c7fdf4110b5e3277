"""The event log in a real Postgres: the same as Dagster's own, over few connections, also after a restart."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.base import EventLogStorage

from neuralpile_dagster_tests.servers.cluster import missing_programs
from neuralpile_dagster_tests.servers.postgres import Postgres, postgres_server

EVENTS = 30


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if missing := missing_programs():
        pytest.skip(missing)
    with postgres_server() as server:
        yield server


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


def stored(log: EventLogStorage, first: int) -> list[str | None]:
    for number in range(first, first + EVENTS):
        log.store_event(event(number))
    found = log.fetch_materializations(dg.AssetKey("a"), limit=10_000, ascending=True).records
    return [record.partition_key for record in found]


def test_events_are_those_of_dagsters_own_log_over_one_connection_that_survives_a_restart(postgres: Postgres) -> None:
    from dagster_postgres.event_log import PostgresEventLogStorage

    from neuralpile_dagster.orchestration.event_log_postgres import OpenPostgresEventLogStorage

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
