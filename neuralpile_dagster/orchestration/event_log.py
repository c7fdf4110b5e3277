"""Dagster's event log in SQLite, with connections that stay open: `dagster.yaml` names this class.

Dagster's own makes an engine for each of the ~50 connections that a session of a batch costs: SQLAlchemy compiles every
statement again, and whenever the last connection closes SQLite moves its write-ahead log into the database, syncs and
deletes it. It also waits for the disk at each of ~50 commits per session, which SQLite's manual holds unnecessary with
a write-ahead log: the log is whole after every crash, and only a machine that loses its power may forget the last
events, of work that the store has and the next run finds done. The connections alone took half the time of a batch of
small sessions (docs/performance.md). New databases get Dagster's tables without Alembic, which reads all its revisions
for each. The files are the same: an instance may change between both classes at any time.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dagster import EventLogEntry, StringSource
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import QueuePool, StaticPool

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


@dataclass(frozen=True)
class _Schema:
    """The statements that make a database, and the Alembic revision that it is stamped with."""

    statements: tuple[str, ...]
    revision: str


def _is_empty(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is None


def _read_schema(engine: Engine) -> _Schema:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC"
        )
        statements = tuple(row[0] for row in rows)
        return _Schema(statements, connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


def _has_revision(engine: Engine, revision: str) -> bool:
    with engine.connect() as connection:
        if not connection.dialect.has_table(connection, "alembic_version"):
            return False
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == [revision]


def _create_tables(engine: Engine, schema: _Schema) -> bool:
    """Create the tables of a new database; False where that failed, for Dagster to try again.

    In one transaction, because a web server may open the same new database.
    """
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    assert connection is not None
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            for statement in schema.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO alembic_version VALUES (?)", (schema.revision,))
        connection.commit()
    except sqlite3.OperationalError:  # locked
        connection.rollback()
        return False
    finally:
        pooled.close()
    return _has_revision(engine, schema.revision)


class OpenSqliteEventLogStorage(SqliteEventLogStorage):
    """`SqliteEventLogStorage` that keeps recently used databases open.

    Parameters
    ----------
    base_dir : str
        Folder of the databases, one per run and ``index.db``.
    """

    _schema: ClassVar[_Schema | None] = None  # Dagster's, whatever the home

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: OrderedDict[str, Engine] = OrderedDict()
        self._tables: set[str] = set()
        self._columns: set[str] = set()
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

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        """Whether the table of assets has a column; cached, where Dagster reads the table's form at every event."""
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._columns.add(column_name)
        return column_name in self._columns

    def _update_asset_check_evaluation(self, event: EventLogEntry, event_id: int | None) -> None:
        """Insert a check's verdict on a partition, where Dagster first looks for a planned one to replace.

        Our checks are planned without partitions; there is one to replace where a session is judged twice in a run.
        """
        assert event.dagster_event is not None
        if event.dagster_event.asset_check_evaluation_data.partition is not None:
            with suppress(IntegrityError):
                self._store_runless_asset_check_evaluation(event, event_id)
                return
        super()._update_asset_check_evaluation(event, event_id)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:  # one thread at a time, as in Dagster's own
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        """Create the tables of a new database as Alembic made them in the first new one of this process.

        For each, Alembic would read all its revision files twice, and once more where they exist already.
        """
        new = _is_empty(engine)
        if new and self._schema is None:
            template = create_engine("sqlite://", poolclass=StaticPool)
            super()._initdb(template)
            type(self)._schema = _read_schema(template)
            template.dispose()
        if self._schema is None or not (
            _create_tables(engine, self._schema) if new else _has_revision(engine, self._schema.revision)
        ):
            super()._initdb(engine, for_index_shard)

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
