"""Progress of our assets in the run's log, and a Dagster logger that shows only that in the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from neuralpile_dagster.progress import LOG as WAITING
from neuralpile_dagster.progress import Progress

_MARK = "neuralpile_progress"
"""Attribute of log records, which Dagster passes on to its loggers (unlike the name of the logger).

True, or the text that the terminal shows instead of the message.
"""


def terminal_log(context: dg.AssetExecutionContext) -> logging.LoggerAdapter[dg.DagsterLogManager]:
    """Logger of the run whose lines the terminal shows as well."""
    return logging.LoggerAdapter(context.log, {_MARK: True})


def log_error(log: logging.LoggerAdapter[Any], message: str, brief: str, error: Exception | None = None) -> None:
    """Log an error, with the traceback of ``error`` if given; the terminal shows only ``brief``.

    The summary at the end of a command repeats the reasons of all failures, so they must not be there already.
    """
    log.logger.error(message, exc_info=error, extra={_MARK: brief})


def progress_of(context: dg.AssetExecutionContext) -> Progress:
    """`Progress` of an asset that logs to the run, for the UI and the terminal."""
    return terminal_log(context).info


class _Forward(logging.Handler):
    """Forward log records of another logger to the run's log."""

    def __init__(self, log: logging.LoggerAdapter[dg.DagsterLogManager]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage())


@contextmanager
def forward_wait_warnings(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Forward warnings about waiting for a server to the run's log, so that a long retry does not look like a hang."""
    handler = _Forward(terminal_log(context))
    WAITING.addHandler(handler)
    try:
        yield
    finally:
        WAITING.removeHandler(handler)


class _TerminalLines(logging.Filter):
    """Filter that keeps lines of `terminal_log` only; Dagster's own lines repeat them in terms of ops and outputs."""

    def filter(self, record: logging.LogRecord) -> bool:
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
    handler.addFilter(_TerminalLines())
    handler.setFormatter(_Message())
    logger.addHandler(handler)
    return logger
