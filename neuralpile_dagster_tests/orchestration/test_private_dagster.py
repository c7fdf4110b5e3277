"""What we take from Dagster's private modules has the form that we rely on, and is taken in one place."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

import neuralpile_dagster
from neuralpile_dagster.orchestration import private_dagster as private
from neuralpile_dagster.orchestration import private_storage as storage

WRITTEN_FOR = "1.13"
"""The minor version of Dagster whose private modules were read; pyproject.toml bounds it."""
PACKAGE = Path(neuralpile_dagster.__file__).parent


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def private_imports(path: Path) -> Iterator[str]:
    """Modules of Dagster and its libraries that a file imports although their names begin with an underscore."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first.startswith("dagster") and any(part.startswith("_") for part in rest):
                yield name


def test_two_modules_alone_import_private_modules_of_dagster() -> None:
    importers = {path for path in PACKAGE.rglob("*.py") if list(private_imports(path))}
    assert importers == {Path(private.__file__), Path(storage.__file__)}


@pytest.mark.parametrize("module", [private, storage])
def test_all_that_they_import_is_listed_here(module: ModuleType) -> None:
    imported = {name.rsplit(".", 1)[1] for name in private_imports(Path(str(module.__file__)))}
    assert imported == set(module.__all__)
    assert [name for name in module.__all__ if name not in Path(__file__).read_text()] == []


def test_this_is_the_version_of_dagster_that_it_was_written_for() -> None:
    assert dg.__version__.rpartition(".")[0] == WRITTEN_FOR, (
        "read what private_dagster imports in the new version, then change WRITTEN_FOR and the bound in pyproject.toml"
    )


def test_the_event_log_in_sqlite_has_what_ours_replaces(tmp_path: Path) -> None:
    cls = storage.SqliteEventLogStorage
    assert parameters(cls.__init__)[:3] == ["self", "base_dir", "inst_data"]
    assert parameters(cls.from_config_value) == ["inst_data", "config_value"]
    assert parameters(cls._connect) == ["self", "shard"]
    assert parameters(cls.has_table) == ["self", "table_name"]
    assert parameters(cls._has_asset_key_col_on_connection) == ["self", "conn", "column_name"]
    for store_verdict in (cls._update_asset_check_evaluation, cls._store_runless_asset_check_evaluation):
        assert parameters(store_verdict) == ["self", "event", "event_id"]
    assert parameters(cls.conn_string_for_shard) == ["self", "shard_name"]
    assert parameters(cls._initdb)[:2] == ["self", "engine"]
    assert {"wipe", "dispose", "config_type", "get_pool_limits", "set_concurrency_slots"} <= set(dir(cls))
    log = cls(str(tmp_path))
    try:
        assert isinstance(log._initialized_dbs, set)
        assert hasattr(log._db_lock, "__enter__")
        assert log.supports_global_concurrency_limits in (True, False)
        assert log.conn_string_for_shard("index").endswith(f"{tmp_path}/index.db")
    finally:
        log.dispose()


def test_engines_are_made_as_sqlalchemy_makes_them() -> None:
    engine = storage.create_engine("sqlite://", poolclass=QueuePool, connect_args={"timeout": 1})
    assert isinstance(engine, Engine)
    engine.dispose()
    assert storage.SQLITE_BUSY_TIMEOUT_SECONDS > 0


def test_a_storage_names_its_configuration_in_a_class_of_its_own() -> None:
    data = private.ConfigurableClassData("module", "Class", "{}")
    assert (data.module_name, data.class_name) == ("module", "Class")
    assert private.UserConfigSchema is not None


def test_a_launcher_says_how_a_worker_is() -> None:
    health = private.CheckRunHealthResult(private.WorkerStatus.FAILED, "gone")
    assert (health.status, health.msg) == (private.WorkerStatus.FAILED, "gone")
    assert private.CheckRunHealthResult(private.WorkerStatus.RUNNING).msg is None


def test_a_check_evaluation_names_its_materialization() -> None:
    target = private.AssetCheckEvaluationTargetMaterializationData(run_id="a", storage_id=1, timestamp=2.0)
    assert (target.run_id, target.storage_id, target.timestamp) == ("a", 1, 2.0)
    assert "target_materialization_data" in parameters(dg.AssetCheckEvaluation.__new__)


@pytest.mark.parametrize("name", ["SUCCEEDED", "FAILED"])
def test_a_check_that_was_judged_is_completed_and_a_planned_one_is_not(name: str) -> None:
    completed = private.COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    assert private.AssetCheckExecutionRecordStatus[name] in completed
    assert private.AssetCheckExecutionRecordStatus.PLANNED not in completed


def test_the_history_of_a_check_can_be_asked_for_one_session() -> None:
    assert private.PartitionKeyFilter(key="ses-1").key == "ses-1"
    assert "partition_filter" in parameters(storage.SqliteEventLogStorage.get_asset_check_execution_history)


def test_local_logs_of_runs_start_their_helpers_when_a_capture_begins(tmp_path: Path) -> None:
    assert parameters(storage.LocalComputeLogManager)[:1] == ["base_dir"]
    with storage.LocalComputeLogManager(str(tmp_path)).capture_logs(["run", "compute_logs", "step"]) as captured:
        assert isinstance(captured, storage.CapturedLogContext)
    assert (tmp_path / "run" / "compute_logs" / "step.complete").exists()
