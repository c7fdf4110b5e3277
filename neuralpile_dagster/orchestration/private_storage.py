"""All that we import from Dagster's private storage modules, which import SQLAlchemy; else see `private_dagster`."""

from __future__ import annotations

from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS

__all__ = [
    "SQLITE_BUSY_TIMEOUT_SECONDS",
    "CapturedLogContext",
    "LocalComputeLogManager",
    "SqliteEventLogStorage",
    "create_engine",
]
