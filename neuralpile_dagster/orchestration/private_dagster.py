"""All that we import from Dagster's private modules but its storage: what a new minor version of it may break.

A test (`test_private_dagster`) names the version this was written for and holds the form of each thing that we rely on.
Nothing else belongs here; what `dagster` itself exports is imported from there, and what of its storage needs
SQLAlchemy is in `private_storage`: a seventh of the time in which the code location loads.
"""

from __future__ import annotations

from dagster._config.config_schema import UserConfigSchema
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._serdes import ConfigurableClassData

__all__ = [
    "COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "PartitionKeyFilter",
    "UserConfigSchema",
    "WorkerStatus",
]
