"""What commands share: errors in words, and values that options have in common."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from neuralpile_dagster.errors import NeuralPileError

if TYPE_CHECKING:
    import logging

DEMO_HOME = "~/.neuralpile-demo"
LOCALHOST = "127.0.0.1"
PORT = click.IntRange(1, 65535)
INTERRUPTED = 130
"""Exit code of a command stopped by Ctrl-C, as in shells."""
_INTERRUPTS = frozenset({"KeyboardInterrupt", "DagsterExecutionInterruptedError"})
"""What is raised on SIGINT: by Python, and by Dagster in a run."""


def plain_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show our own errors, and what this machine lacks (memory, files), as one paragraph with exit code 1.

    Any other error is a defect and keeps its traceback.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with sending_interrupts_again():
                return command(*args, **kwargs)
        except NeuralPileError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            from neuralpile_dagster.files import resource_error

            lacking = resource_error(error)
            if lacking is None:
                raise
            raise click.ClickException(str(lacking)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. Completed work is kept; run the same command again to resume.", err=True)
            sys.exit(INTERRUPTED)

    return wrapped


@contextmanager
def sending_interrupts_again() -> Iterator[None]:
    """Send SIGINT again when Python could only print what it raised, and print no traceback of it.

    Where nothing can be raised (in a callback of a weak reference, of which
    every import makes some) Python prints "Exception ignored in", with a
    traceback, and goes on: a build that was interrupted there went on to its end.
    SQLAlchemy logs an interrupt of what it does with a connection, and raises it.
    """
    import logging

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


def not_nan(context: click.Context, parameter: click.Parameter, share: float | None) -> float | None:
    """Refuse NaN, which click takes to be in every range."""
    if share is not None and math.isnan(share):
        raise click.BadParameter("nan is not in the range 0<=x<=1.", context, parameter)
    return share
