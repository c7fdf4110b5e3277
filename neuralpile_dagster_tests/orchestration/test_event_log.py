"""The event log in SQLite is kept open during a batch, and only then."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.orchestration.event_log import kept_open
from neuralpile_dagster.orchestration.instance import open_instance
from neuralpile_dagster.settings import Settings


@dg.op
def idle(context: dg.OpExecutionContext) -> None:
    with kept_open(context.instance, context.run.run_id):
        context.log.info("something")
        logs = logs_in(Path(context.instance.root_directory))
    context.add_output_metadata({"logs": sorted(logs)})


@dg.job
def idling() -> None:
    idle()


def logs_in(home: Path) -> set[str]:
    """Write-ahead logs: SQLite deletes one when the last connection to its database closes."""
    return {path.name for path in home.rglob("*.db-wal") if path.parent.name == "runs"}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(Settings(tmp_path, str(tmp_path / "store"))) as opened:
        yield opened


def test_the_logs_of_the_run_and_the_index_stay_open_until_the_end(instance: dg.DagsterInstance, tmp_path: Path):
    result = idling.execute_in_process(instance=instance)
    (output,) = (event.step_output_data for event in result.all_events if event.is_successful_output)
    assert output.metadata["logs"].value == [f"{result.run_id}.db-wal", "index.db-wal"]
    assert logs_in(tmp_path) == set()


def test_nothing_happens_to_an_instance_that_keeps_events_elsewhere():
    with dg.DagsterInstance.ephemeral() as elsewhere, kept_open(elsewhere, "no such run"):
        pass
