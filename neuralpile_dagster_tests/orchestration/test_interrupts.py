"""An interrupt stops a build whenever it comes, also where Dagster forgets it or Python only prints it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import capture_interrupts

from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.runs import watch_interrupts
from neuralpile_dagster.process import sending_interrupts_again
from neuralpile_dagster_tests.fixtures.house import House


def interrupt_between_steps() -> None:
    with capture_interrupts():  # what Dagster does around a run; at its end the interrupt is forgotten
        os.kill(os.getpid(), signal.SIGINT)


class Thing:
    """What a weak reference can be to."""


def interrupt_in_callback() -> None:
    """What is raised there, Python only prints; `del` goes on."""
    thing = Thing()
    watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    assert watched() is None


def test_an_interrupt_that_dagster_forgets_is_noticed_and_stays_so() -> None:
    with watch_interrupts() as stop_requested:
        assert not stop_requested()
        interrupt_between_steps()
        assert stop_requested()
        assert stop_requested()
    with watch_interrupts() as stop_requested:
        assert not stop_requested()


def test_other_signals_are_no_interrupt() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with watch_interrupts() as stop_requested:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop_requested()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_that_python_can_only_print_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook
    with sending_interrupts_again(), pytest.raises(KeyboardInterrupt):
        interrupt_in_callback()
        time.sleep(30)
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_what_a_library_logs_of_an_interrupt_is_not_shown_and_of_other_errors_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, of which a command has none
    with sending_interrupts_again():
        for error in (KeyboardInterrupt(), ValueError("of the pool")):
            try:
                raise error
            except BaseException:
                logging.getLogger("sqlalchemy.pool").exception("while closing")
    said = capfd.readouterr().err
    assert "ValueError: of the pool" in said
    assert "KeyboardInterrupt" not in said


def test_what_else_python_can_only_print_is_printed() -> None:
    thing, seen = Thing(), []
    watched = weakref.ref(thing, lambda _: {}["missing"])
    before, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        with sending_interrupts_again():
            del thing
    finally:
        sys.unraisablehook = before
    assert watched() is None
    assert [lost.exc_type for lost in seen] == [KeyError]


def test_a_run_is_interrupted_where_python_can_only_print_it(new_house: Callable[..., House]) -> None:
    house = new_house()
    went_on = []

    @dg.op(required_resource_keys={"instance"})
    def work() -> None:
        interrupt_in_callback()
        time.sleep(30)
        went_on.append(True)

    @dg.job(resource_defs={"instance": InstanceResource(house.settings).definition()})
    def run() -> None:
        work()

    result = run.execute_in_process(instance=house.instance, raise_on_error=False)
    assert not result.success
    assert went_on == []


def test_a_build_that_is_interrupted_while_a_run_ends_does_not_go_on(
    new_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = new_house()
    launcher = Launcher(house.settings, house.instance, house.job)
    assert launcher.run([names.OVERVIEW]) is None
    execute = type(launcher.job).execute_in_process

    def execute_and_interrupt(*arguments: Any, **options: Any) -> Any:
        result = execute(*arguments, **options)
        interrupt_between_steps()
        return result

    monkeypatch.setattr(type(launcher.job), "execute_in_process", execute_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        launcher.run([names.OVERVIEW])
