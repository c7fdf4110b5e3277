"""The event log in SQLite stays open between events; its files are those of Dagster's own class."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from neuralpile_dagster.orchestration import event_log
from neuralpile_dagster.orchestration.event_log import OpenSqliteEventLogStorage
from neuralpile_dagster.orchestration.resources import open_instance
from neuralpile_dagster.settings import Settings

THING = dg.AssetKey("thing")


@dg.asset(key=THING)
def thing(context: dg.AssetExecutionContext) -> None:
    context.log.info("something")


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was opened once; nobody changes it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with open_instance(Settings(home, str(home / "store"))):
            return home


@pytest.fixture
def instance(new_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    shutil.copytree(new_home, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(Settings(tmp_path, str(tmp_path / "store"))) as opened:
        yield opened


def open_logs(home: Path) -> set[str]:
    """Write-ahead logs: SQLite deletes one when the last connection to its database closes."""
    return {path.name.removesuffix(".db-wal") for path in (home / "history" / "runs").glob("*.db-wal")}


def run(instance: dg.DagsterInstance) -> str:
    return dg.materialize([thing], instance=instance).run_id


def write(instance: dg.DagsterInstance) -> str:
    """Write the first event of a run."""
    run_id = dg.DagsterRun("a job").run_id
    instance.report_engine_event("something", job_name="a job", run_id=run_id)
    return run_id


def test_a_home_has_the_log_that_stays_open(instance: dg.DagsterInstance, tmp_path: Path):
    assert isinstance(instance.event_log_storage, OpenSqliteEventLogStorage)
    run_id = write(instance)
    assert open_logs(tmp_path) == {run_id, "index"}


def test_a_commit_does_not_wait_for_the_disk(instance: dg.DagsterInstance):
    with instance.event_log_storage.index_connection() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 1], "NORMAL is safe with a write-ahead log only"


def test_only_the_logs_used_last_stay_open(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_log, "MOST_OPEN", 3)
    runs = [*(write(instance) for _ in range(4)), run(instance)]
    assert len(open_logs(tmp_path)) == 3
    assert open_logs(tmp_path) >= {runs[-1], "index"}
    assert all(instance.all_logs(run_id) for run_id in runs)


def test_all_logs_are_closed_with_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(Settings(tmp_path, str(tmp_path / "store"))) as opened:
        write(opened)
    assert open_logs(tmp_path) == set()


def test_dagsters_own_class_reads_what_ours_wrote_and_ours_what_it_wrote(instance: dg.DagsterInstance, tmp_path: Path):
    first = run(instance)
    own = SqliteEventLogStorage(str(tmp_path / "history" / "runs"))
    own.register_instance(instance)
    ours = instance.event_log_storage
    assert own.get_logs_for_run(first) == ours.get_logs_for_run(first)
    for entry in ours.get_logs_for_run(first):
        own.store_event(entry._replace(run_id="another"))
    assert len(ours.get_logs_for_run("another")) == len(ours.get_logs_for_run(first))


@dg.asset
def judged(context: dg.AssetExecutionContext) -> None:
    for partition, passed in ((None, True), ("first", True), ("second", False), ("first", False)):
        context.log_event(dg.AssetCheckEvaluation(context.asset_key, "right", passed, {}, partition=partition))  # type: ignore[arg-type]


def test_verdicts_are_stored_as_dagsters_own_class_stores_them_also_where_a_session_is_judged_twice(
    instance: dg.DagsterInstance, tmp_path: Path
):
    run_id = dg.materialize([judged], instance=instance).run_id
    own = SqliteEventLogStorage(str(tmp_path / "own"))
    own.register_instance(instance)
    for entry in instance.event_log_storage.get_logs_for_run(run_id):
        own.store_event(entry)
    ours = verdicts(tmp_path / "history" / "runs")
    assert [(row["partition"], row["execution_status"]) for row in ours] == [
        (None, "SUCCEEDED"),
        ("first", "FAILED"),
        ("second", "FAILED"),
    ]
    assert ours == verdicts(tmp_path / "own")


def verdicts(folder: Path) -> list[dict[str, object]]:
    """The rows of verdicts on checks, without when each was written."""
    with closing(sqlite3.connect(folder / "index.db")) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM asset_check_executions ORDER BY id").fetchall()
    return [{name: row[name] for name in row.keys() if name != "create_timestamp"} for row in rows]  # noqa: SIM118


def test_events_written_after_a_wipe_are_kept(instance: dg.DagsterInstance, tmp_path: Path):
    before = write(instance)
    instance.event_log_storage.wipe()
    after = write(instance)
    assert instance.event_log_storage.get_logs_for_run(before) == []
    assert (tmp_path / "history" / "runs" / f"{after}.db").exists()
    assert instance.event_log_storage.get_logs_for_run(after)


def test_every_runs_database_is_as_dagsters_own_class_makes_it(instance: dg.DagsterInstance, tmp_path: Path):
    runs = [write(instance) for _ in range(2)]
    own = SqliteEventLogStorage(str(tmp_path / "own"))
    with own.run_connection("another"):
        pass
    first, second = (made_of(tmp_path / "history" / "runs" / f"{run_id}.db") for run_id in runs)
    assert first == second == made_of(tmp_path / "own" / "another.db")


def made_of(database: Path) -> list[object]:
    """Tables and indexes, Alembic's revision, and the way of committing of a database."""
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        revision = connection.execute("SELECT * FROM alembic_version").fetchall()
        return [tables, revision, connection.execute("PRAGMA journal_mode").fetchall()]


def test_a_database_whose_making_was_interrupted_is_completed(instance: dg.DagsterInstance, tmp_path: Path):
    whole = tmp_path / "history" / "runs" / f"{write(instance)}.db"
    half = whole.with_name("half.db")
    with closing(sqlite3.connect(whole)) as source, closing(sqlite3.connect(half)) as target:
        source.backup(target)
        target.execute("DROP TABLE alembic_version")
    assert instance.event_log_storage.get_logs_for_run("half") == []
    assert made_of(half) == made_of(whole)
