"""Dagster's event log in SQLite, kept open while a run writes many events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage


@contextmanager
def kept_open(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Hold the run's log and the index open; nothing is done for instances that keep events elsewhere.

    Dagster opens and closes a connection several times per event, and when the last connection closes SQLite moves
    its write-ahead log into the database, syncs and deletes it. With one more connection, which reads once and then
    idles, that happens at the end: half the time of a batch of small sessions (docs/performance.md).
    """
    storage = instance.event_log_storage
    with ExitStack() as stack:
        if isinstance(storage, SqliteEventLogStorage):
            for shard in (run_id, INDEX_SHARD_NAME):
                path = Path(storage.path_for_shard(shard)).absolute()
                held = stack.enter_context(closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)))
                held.execute("select count(*) from sqlite_master").fetchone()  # only now is the file open
        yield
