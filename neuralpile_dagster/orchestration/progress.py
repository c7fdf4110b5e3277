"""Progress of our assets in the run's log, and a Dagster logger that shows only that in the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.progress import LOG as WAITING
from neuralpile_dagster.progress import Progress

Context = dg.AssetExecutionContext | dg.OpExecutionContext
_MARK = "neuralpile_progress"
"""Attribute of log records, which Dagster passes on to its loggers (unlike the name of the logger).

True, or the text that the terminal shows instead of the message.
"""


def terminal_log(context: Context) -> logging.LoggerAdapter[dg.DagsterLogManager]:
    """Logger of the run whose lines the terminal shows as well."""
    return logging.LoggerAdapter(context.log, {_MARK: True})


def log_error(log: logging.LoggerAdapter[Any], message: str, brief: str, error: Exception | None = None) -> None:
    """Log an error, with the traceback of ``error`` if given; the terminal shows only ``brief``.

    The summary at the end of a command repeats the reasons of all failures, so they must not be there already.
    """
    log.logger.error(message, exc_info=error, extra={_MARK: brief})


def progress_of(context: Context) -> Progress:
    """`Progress` of an asset that logs to the run, for the UI and the terminal."""
    return terminal_log(context).info


class _Forward(logging.Handler):
    """Forward log records of another logger to the run's log."""

    def __init__(self, log: logging.LoggerAdapter[dg.DagsterLogManager], prefix: str) -> None:
        super().__init__()
        self._log = log
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, f"{self._prefix}{record.getMessage()}")


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Fail a step with the text of our own errors alone; any other error is a defect and keeps its traceback."""
    try:
        yield
    except NeuralPileError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


@contextmanager
def forward_wait_warnings(context: Context, label: str = "") -> Iterator[None]:
    """Forward warnings about waiting for a server to the run's log, so that a long retry does not look like a hang.

    ``label`` names the item that waits.
    """
    handler = _Forward(terminal_log(context), f"{label}: " if label else "")
    WAITING.addHandler(handler)
    try:
        yield
    finally:
        WAITING.removeHandler(handler)


def _is_for_terminal(record: logging.LogRecord) -> bool:
    """Whether a line is of `terminal_log`; Dagster's own lines repeat those in terms of ops and outputs."""
    return bool(getattr(record, _MARK, False))


class _Message(logging.Formatter):
    """Format the message without Dagster's run and step prefix."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        brief = getattr(record, _MARK, None)
        text = brief if isinstance(brief, str) else str(meta.get("orig_message") or record.getMessage())
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@dg.logger({}, description="Progress lines of neuralpile, for the command line.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Write to standard error, so that standard output stays for results."""
    logger = logging.Logger("neuralpile.progress", level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_for_terminal)
    handler.setFormatter(_Message())
    logger.addHandler(handler)
    return logger
