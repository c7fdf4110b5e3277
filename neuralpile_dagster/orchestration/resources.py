"""The Dagster instance in ``NEURALPILE_HOME``, its settings as Dagster's resource, and a lock for each of its runs.

The command line, the web server and the daemon share the instance. The resource takes no run configuration: settings
come from the environment of the process alone, so no run can be launched with others than its neighbors'. Secrets
(HF_TOKEN, DANDI_API_KEY, AWS keys) are read by the clients when they need them. Starting servers belongs in `serving`,
launching runs in `launch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from filelock import Timeout

from neuralpile_dagster.archives import open_archive
from neuralpile_dagster.files import explained, file_lock, locked, write_bytes
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.orchestration.describe import LARGE_LIMIT, LARGE_POOL
from neuralpile_dagster.process import sending_interrupts_again
from neuralpile_dagster.progress import silent
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.hub import Hub
    from neuralpile_dagster.net.retry import RetryPolicy

_LOCKS = "runs"
"""Folder in the home with a file for each run, locked as long as its process exists."""


@dataclass(frozen=True)
class InstanceResource:
    """What assets, checks and sensors are given as ``instance``."""

    settings: Settings

    def open_store(self) -> Store:
        """The store of intermediate results."""
        return open_store(self.settings.store)

    def open_archive(self, source: Source, limits: RetryPolicy | None = None) -> Archive:
        """The archive that serves a source."""
        return open_archive(self.settings, source, limits)

    def open_hub(self) -> Hub:
        """The hub to publish to."""
        return open_hub(self.settings)

    def definition(self) -> dg.ResourceDefinition:
        """The resource as `dagster.Definitions` take it."""

        def serve(context: dg.InitResourceContext) -> Iterator[InstanceResource]:
            """Serve a run, which is known to go on as long as its process does, and stops when it is interrupted."""
            with _run_in_progress(self.settings.home, context.run.run_id) if context.run else nullcontext():
                yield self

        return dg.ResourceDefinition(
            serve,
            config_schema={},  # nothing; without a schema Dagster takes anything
            description="Settings, store, archives and hub of this instance, from its environment.",
        )


Instance = dg.ResourceParam[InstanceResource]
"""The annotation of the parameter ``instance``."""


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


def limit_pools(instance: dg.DagsterInstance) -> None:
    """Set the limits of pools that differ from the instance's default, unless a person has set them.

    Only on one machine, whose memory it is about: an instance of several keeps its events elsewhere than in SQLite,
    and its launcher knows the memory of the workers' machines.
    """
    from neuralpile_dagster.orchestration.private_storage import SqliteEventLogStorage

    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage) and storage.supports_global_concurrency_limits:
        chosen = {limit.name for limit in storage.get_pool_limits() if not limit.from_default}
        if LARGE_POOL not in chosen:
            storage.set_concurrency_slots(LARGE_POOL, LARGE_LIMIT)


def fail_abandoned(home: Path, instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process has exited as failed, free their pool slots, and return their ids."""
    failed = []
    for path in sorted((home / _LOCKS).glob("*.lock")):
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


@contextmanager
def _run_in_progress(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run, and heed its interrupts."""
    path = home / _LOCKS / f"{run_id}.lock"
    aside = path.with_suffix(".new")  # so that under its final name it is always locked
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = file_lock(aside).acquire()
    with held, sending_interrupts_again():
        aside.replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
