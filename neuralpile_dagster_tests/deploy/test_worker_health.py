"""What Dagster is told about runs on workers. (test_workers kills real ones.)"""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from celery import Celery
from dagster._core.launcher import WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from neuralpile_dagster.orchestration import workers
from neuralpile_dagster.orchestration.workers import MISSES_UNTIL_FAILED, WorkerRunLauncher

RUN = dg.DagsterRun(job_name="job", tags={DAGSTER_CELERY_TASK_ID_TAG: "task"})


class Workers:
    """Stands for the workers: says what they are working on, and how often they were asked."""

    def __init__(self) -> None:
        self.active: dict[str, list[dict[str, Any]]] | None = {"one@host": [{"id": "task"}], "two@host": []}
        self.asked = 0

    def __call__(self, **_: Any) -> Any:
        self.asked += 1
        answer = self.active
        return type("Answers", (), {"active": lambda self: answer})()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(workers, "RESPONSE_TIMEOUT_S", 0.0)  # every look asks anew
    return Workers()


@pytest.fixture
def launcher(asked: Workers, monkeypatch: pytest.MonkeyPatch) -> WorkerRunLauncher:
    made = WorkerRunLauncher(default_queue="dagster", broker="memory://", backend="cache+memory://")
    monkeypatch.setattr(made.celery.control, "inspect", asked)
    made.celery.backend.delete(made.celery.backend.get_key_for_task("task"))  # memory is one for all tests
    return made


def state(celery: Celery, value: Any, word: str) -> None:
    celery.backend.store_result("task", value, word)


def test_a_run_that_a_worker_works_on_is_running_whatever_the_broker_remembers(launcher: WorkerRunLauncher):
    for _ in range(2 * MISSES_UNTIL_FAILED):
        assert launcher.check_run_worker_health(RUN).status == WorkerStatus.RUNNING


def test_a_run_that_no_worker_was_given_is_left_alone(launcher: WorkerRunLauncher, asked: Workers):
    asked.active = {}
    for _ in range(2 * MISSES_UNTIL_FAILED):
        assert launcher.check_run_worker_health(dg.DagsterRun(job_name="job")).status == WorkerStatus.RUNNING


@pytest.mark.parametrize("word", ["STARTED", "SUCCESS", "PENDING"])
@pytest.mark.parametrize("answer", [{"two@host": []}, {}, None], ids=["idle workers", "no worker", "no answer"])
def test_a_run_that_no_worker_works_on_has_failed_at_the_third_look(
    launcher: WorkerRunLauncher, asked: Workers, word: str, answer: dict[str, list[dict[str, Any]]] | None
):
    state(launcher.celery, None, word)
    asked.active = answer
    found = [launcher.check_run_worker_health(RUN) for _ in range(MISSES_UNTIL_FAILED)]
    assert [each.status for each in found] == [WorkerStatus.RUNNING] * (MISSES_UNTIL_FAILED - 1) + [WorkerStatus.FAILED]
    assert "its worker has stopped" in str(found[-1].msg)


def test_a_worker_that_answers_again_starts_the_count_anew(launcher: WorkerRunLauncher, asked: Workers):
    for _ in range(3):
        answer, asked.active = asked.active, {}
        for _ in range(MISSES_UNTIL_FAILED - 1):
            assert launcher.check_run_worker_health(RUN).status == WorkerStatus.RUNNING
        asked.active = answer
        assert launcher.check_run_worker_health(RUN).status == WorkerStatus.RUNNING


def test_one_answer_counts_once_however_often_it_is_looked_at(
    launcher: WorkerRunLauncher, asked: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workers, "RESPONSE_TIMEOUT_S", 3600.0)
    asked.active = {}
    for _ in range(2 * MISSES_UNTIL_FAILED):
        assert launcher.check_run_worker_health(RUN).status == WorkerStatus.RUNNING
    assert asked.asked == 1


def test_a_killed_child_that_its_worker_reports_has_failed_at_once(launcher: WorkerRunLauncher, asked: Workers):
    asked.active = {"one@host": []}
    state(launcher.celery, RuntimeError("Worker exited prematurely: signal 9 (SIGKILL)"), "FAILURE")
    assert launcher.check_run_worker_health(RUN).status == WorkerStatus.FAILED


def test_nothing_but_json_passes_through_the_broker():
    assert workers.SETTINGS["accept_content"] == ["json"]
    assert {workers.SETTINGS["task_serializer"], workers.SETTINGS["result_serializer"]} == {"json"}
