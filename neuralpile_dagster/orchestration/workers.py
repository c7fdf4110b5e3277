"""Run launcher for Celery workers: Dagster's own, which here also detects workers that have stopped.

An instance launches runs on them with `WorkerRunLauncher` as its
``run_launcher`` (deploy/celery/dagster.yaml); `worker_app` is what workers run.
"""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from neuralpile_dagster.orchestration.private_dagster import CheckRunHealthResult, WorkerStatus

MISSES_UNTIL_FAILED = 3
"""Successive polls (``run_monitoring.poll_interval_seconds``) without a worker until a run is marked as failed."""
RESPONSE_TIMEOUT_S = 5.0
"""Timeout for workers to list their tasks; the responses are cached as long again, for all runs checked meanwhile."""

_PATIENCE = {"max_retries": 60, "interval_start": 0.5, "interval_step": 0.5, "interval_max": 5.0}

SETTINGS: dict[str, Any] = {
    # nothing but JSON is read from the broker: a pickle could run code
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    # a busy worker takes no run that another could do meanwhile
    "worker_prefetch_multiplier": 1,
    "task_acks_late": True,
    # a run that outlives its message is not begun again: Dagster ignores the second message, and a run
    # whose worker is gone is repeated by run_retries
    "task_reject_on_worker_lost": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "result_expires": 30 * 24 * 3600,
    # retry for some minutes while the broker restarts
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_publish_retry_policy": _PATIENCE,
    "broker_transport_options": {**_PATIENCE, "visibility_timeout": 24 * 3600},
    "result_backend_transport_options": {"retry_policy": {"timeout": 60.0}},
    # Dagster captures the output of runs; Celery would redirect it
    "worker_redirect_stdouts": False,
    "task_default_queue": "dagster",
    "task_default_priority": 5,
}


class WorkerRunLauncher(CeleryRunLauncher):
    """`dagster_celery.launcher.CeleryRunLauncher` with the settings above, which detects stopped workers.

    A killed process of a worker is noticed by Celery. When the whole worker or
    its machine stops, nothing reports it and a run would stay "started"
    forever. Here a started run that no worker lists at `MISSES_UNTIL_FAILED`
    successive polls is marked as failed (and then retried according to
    ``run_retries``). Losing the broker's memory does not fail a run that is
    still being executed.
    """

    def __init__(self, config_source: dict[str, Any] | None = None, **config: Any) -> None:
        super().__init__(config_source={**SETTINGS, **(config_source or {})}, **config)
        self._missed_at: dict[str, set[float]] = {}
        self._active: set[str] = set()
        self._polled_at = float("-inf")

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a worker is executing a started run; raises when the broker is unavailable."""
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:  # of `neuralpile build`, in a process of its own
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if run.tags[DAGSTER_CELERY_TASK_ID_TAG] in self._active_tasks():
            self._missed_at.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        health = super().check_run_worker_health(run)
        if health.status == WorkerStatus.FAILED:
            return health
        missed_at = self._missed_at.setdefault(run.run_id, set())
        missed_at.add(self._polled_at)
        if len(missed_at) < MISSES_UNTIL_FAILED:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missed_at[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, "No worker is running this run: its worker has stopped.")

    def _active_tasks(self) -> set[str]:
        """Ids of the tasks that workers list as active."""
        if time.monotonic() - self._polled_at > RESPONSE_TIMEOUT_S:
            answers = self.celery.control.inspect(timeout=RESPONSE_TIMEOUT_S).active() or {}
            self._active = {task["id"] for tasks in answers.values() for task in tasks}
            self._polled_at = time.monotonic()
        return self._active
