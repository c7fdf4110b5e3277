"""What our own processes (commands, runs, Dagster's that load the code location) change about Python.

The garbage collector searches less often: nearly all that it searches are imported modules, which stay. And no
interrupt (Ctrl-C, a run that is terminated) is lost; who stops at one, and what is kept then, is said where the work is
done. A program that imports this package keeps its own rules.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

YOUNG_OBJECTS = 20_000
"""Objects made before the collector searches them (Python: 700); importing numba alone makes ten times as many."""
_INTERRUPTS = frozenset({"KeyboardInterrupt", "DagsterExecutionInterruptedError"})
"""What is raised on SIGINT: by Python, and by Dagster in a run."""


def relax_collector() -> None:
    """Let the collector search less often, and nothing at exit, where it takes a fourth of a small command's CPU time.

    What is in a cycle at exit is not finalized, as Python never promises; the system takes its memory back.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


@contextmanager
def sending_interrupts_again() -> Iterator[None]:
    """Send SIGINT again when Python could only print what it raised, and print no traceback of it.

    Where nothing can be raised (in a callback of a weak reference, of which
    every import makes some) Python prints "Exception ignored in", with a
    traceback, and goes on: a build that was interrupted there went on to its end.
    SQLAlchemy logs an interrupt of what it does with a connection, and raises it.
    Nothing is changed in threads other than the main one, which get no signals.
    """
    import logging

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    print_only = sys.unraisablehook
    again: list[threading.Timer] = []

    def is_no_interrupt(record: logging.LogRecord) -> bool:
        return not (record.exc_info and record.exc_info[0] and record.exc_info[0].__name__ in _INTERRUPTS)

    def send_again(lost: Any) -> None:
        if lost.exc_type.__name__ not in _INTERRUPTS:
            print_only(lost)
            return
        again.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)))  # the callback has returned then
        again[-1].start()

    sys.unraisablehook = send_again
    assert logging.lastResort is not None
    logging.lastResort.addFilter(is_no_interrupt)
    try:
        yield
    finally:
        logging.lastResort.removeFilter(is_no_interrupt)
        sys.unraisablehook = print_only
        for timer in again:
            timer.cancel()
