"""The Dagster instance in ``NEURALPILE_HOME``, shared by the command line, the web server and the daemon.

Starting servers belongs in `serving`, launching runs in `launch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import dagster as dg
from filelock import Timeout

from neuralpile_dagster.files import explained, file_lock, locked, write_bytes
from neuralpile_dagster.orchestration.pools import limit_pools
from neuralpile_dagster.progress import silent
from neuralpile_dagster.settings import Settings


def prepare_home(settings: Settings) -> None:
    """Make the home folder with its ``dagster.yaml`` (kept when there is one) and point ``DAGSTER_HOME`` at it."""
    target = settings.home / "dagster.yaml"
    if not target.exists():
        write_bytes(target, resources.files(__package__).joinpath("dagster.yaml").read_bytes())
    os.environ["DAGSTER_HOME"] = str(settings.home)


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open the instance, for use in a ``with``.

    Processes that start together on a new home open it one after the other: the first one makes Dagster's databases.
    """
    prepare_home(settings)
    with explained(settings.home), locked(settings.home / ".opening.lock", silent, "the home is being opened"):
        instance = dg.DagsterInstance.from_config(str(settings.home))
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage  # made when first used
        limit_pools(instance)
    return instance


_ENDING = ".lock"


def _folder(home: Path) -> Path:
    return home / "runs"


@contextmanager
def hold_run_lock(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run."""
    path = _folder(home) / f"{run_id}{_ENDING}"
    aside = path.with_suffix(".new")  # so that under its final name it is always locked
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = file_lock(aside).acquire()
    with held:
        aside.replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def fail_abandoned(home: Path, instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process has exited as failed, free their pool slots, and return their ids."""
    failed = []
    for path in sorted(_folder(home).glob(f"*{_ENDING}")):
        try:
            held = file_lock(path).acquire(timeout=0)
        except Timeout:
            continue
        with held:
            run = instance.get_run_by_id(path.stem)
            if run is not None and not run.is_finished:
                instance.report_run_failed(
                    run, "The process of this run was killed. Completed work is kept; launch the run again to resume."
                )
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
                failed.append(run.run_id)
            path.unlink(missing_ok=True)
    return failed
