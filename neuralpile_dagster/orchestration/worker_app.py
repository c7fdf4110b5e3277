"""Celery app of the workers: ``celery -A neuralpile_dagster.orchestration.worker_app worker -Q dagster -c 1``.

Broker and result backend are set by ``DAGSTER_CELERY_BROKER_URL`` and
``DAGSTER_CELERY_BACKEND_URL``, for workers as for the instance.
"""

from __future__ import annotations

import os

from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from neuralpile_dagster.orchestration.workers import SETTINGS

app = make_app(
    {
        "broker": os.environ["DAGSTER_CELERY_BROKER_URL"],
        "backend": os.environ["DAGSTER_CELERY_BACKEND_URL"],
        "config_source": SETTINGS,
    }
)
create_execute_job_task(app)
create_resume_job_task(app)
