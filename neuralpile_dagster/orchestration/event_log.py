"""Dagster's event log in SQLite, with connections that stay open: `dagster.yaml` names this class.

Dagster's own makes an engine for each of the ~50 connections that a session of a batch costs: SQLAlchemy compiles every
statement again, and whenever the last connection closes SQLite moves its write-ahead log into the database, syncs and
deletes it. It also waits for the disk at each of ~50 commits per session, which SQLite's manual holds unnecessary with
a write-ahead log: the log is whole after every crash, and only a machine that loses its power may forget the last
events, of work that the store has and the next run finds done. The connections alone took half the time of a batch of
small sessions (docs/performance.md). The files are the same: an instance may change between both classes at any time.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import StringSource
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from neuralpile_dagster.orchestration.private_dagster import ConfigurableClassData, UserConfigSchema
from neuralpile_dagster.orchestration.private_storage import (
    SQLITE_BUSY_TIMEOUT_SECONDS,
    SqliteEventLogStorage,
    create_engine,
)

MOST_OPEN = 8
"""Run logs kept open (least recently used ones are closed); a web server reads those of many runs."""


def _relax_disk_sync(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


class OpenSqliteEventLogStorage(SqliteEventLogStorage):
    """`SqliteEventLogStorage` that keeps recently used databases open.

    Parameters
    ----------
    base_dir : str
        Folder of the databases, one per run and ``index.db``.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: OrderedDict[str, Engine] = OrderedDict()
        self._tables: set[str] = set()
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """``home``: the instance's home, in which the databases lie where Dagster's own class has them."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> OpenSqliteEventLogStorage:
        """Make the storage of an instance; called by Dagster."""
        return cls(str(Path(config_value["home"]) / "history" / "runs"), inst_data)

    def has_table(self, table_name: str) -> bool:
        """Whether a table exists; a positive result is cached, where Dagster queries at every event."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:  # one thread at a time, as in Dagster's own
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _engine(self, shard: str) -> Engine:
        if shard not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._open.popitem(last=False)[1].dispose()
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                # threads take turns, so that any of them may use the connection that another one opened
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            event.listen(engine, "connect", _relax_disk_sync)
            self._open[shard] = engine
        self._open.move_to_end(shard)
        return self._open[shard]

    def _close_all(self) -> None:
        with self._db_lock:
            while self._open:
                self._open.popitem()[1].dispose()

    def wipe(self) -> None:
        """Delete all events."""
        self._tables.clear()
        self._close_all()  # otherwise later events would be written to deleted files
        super().wipe()

    def dispose(self) -> None:
        """Close all databases."""
        self._close_all()
        super().dispose()
