"""Runs whose process was killed, or lost its machine's power.

Dagster believes such a run to go on for ever: it stays "started", counts
against the runs that may go on at once and keeps its places in the pools, so
that a few of them stop all others. Every run here holds a lock of the operating
system, which is released when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from neuralpile_dagster.files import explained

_ENDING = ".lock"


def _folder(home: Path) -> Path:
    return home / "runs"


@contextmanager
def going_on(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run."""
    path = _folder(home) / f"{run_id}{_ENDING}"
    aside = path.with_suffix(".new")  # under its final name it is locked from the first moment
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = aside.open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        aside.replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def fail_abandoned(home: Path, instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs that nobody works on any more as failed, free their places in the pools, and give their ids."""
    failed = []
    for path in sorted(_folder(home).glob(f"*{_ENDING}")):
        try:
            lock = path.open("r+")
        except FileNotFoundError:
            continue  # it ended just now
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            run = instance.get_run_by_id(path.stem)
            if run is not None and not run.is_finished:
                instance.report_run_failed(
                    run, "The process of this run was killed. What it had finished is kept: run the same again."
                )
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
                failed.append(run.run_id)
            path.unlink(missing_ok=True)
    return failed
