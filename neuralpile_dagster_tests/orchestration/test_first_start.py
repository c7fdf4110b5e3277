"""Processes that open a new home together: each finds a whole instance."""

from __future__ import annotations

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.orchestration.resources import open_instance
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import quick_folder

PROCESSES = 6


def settings_of(home: Path) -> Settings:
    return Settings(home=home, store=str(home / "store"), archive="sample")


def start(home: Path, barrier: Barrier, outcomes: Queue[str]) -> None:
    """What a build does first."""
    barrier.wait(60)
    try:
        with open_instance(settings_of(home)) as instance:
            outcomes.put(f"{instance.get_runs_count()} runs")
    except Exception as error:
        outcomes.put(f"{type(error).__name__}: {error}")
        raise


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_builds_that_start_together_on_a_new_home_all_open_it() -> None:
    forked = multiprocessing.get_context("fork")  # processes that import Dagster themselves hardly start together
    with quick_folder() as folder:
        barrier, outcomes = forked.Barrier(PROCESSES), forked.Queue()
        processes = [forked.Process(target=start, args=(folder, barrier, outcomes)) for _ in range(PROCESSES)]
        for process in processes:
            process.start()
        found = [outcomes.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
    assert found == ["0 runs"] * PROCESSES


def test_a_home_that_cannot_be_made_is_named() -> None:
    with pytest.raises(
        StoreError,
        match=r"/proc/home.* cannot be written; found: .*; what to do: choose a writable folder: with NEURALPILE_HOME",
    ):
        open_instance(settings_of(Path("/proc/home")))


def test_an_opened_home_has_all_databases_before_they_are_used() -> None:
    with quick_folder() as folder:
        with open_instance(settings_of(folder)):
            made = {path.name for path in folder.rglob("*.db")}
        assert made >= {"runs.db", "schedules.db", "index.db"}


def test_a_home_that_cannot_be_locked_is_named() -> None:
    with quick_folder() as folder:
        (folder / ".opening.lock").mkdir()
        with pytest.raises(StoreError, match=r"cannot be written; found: .*opening\.lock"):
            open_instance(settings_of(folder))
