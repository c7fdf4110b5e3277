"""Progress of our assets, and a Dagster logger for terminals that shows it and nothing of Dagster's own."""

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
"""Attribute of log records; Dagster hands such on to its loggers, unlike where a record was made."""


def our_log(context: dg.AssetExecutionContext) -> logging.LoggerAdapter[dg.DagsterLogManager]:
    """The run's log, for what the terminal shows as well."""
    return logging.LoggerAdapter(context.log, {_MARK: True})


def progress_of(context: dg.AssetExecutionContext) -> Progress:
    """What assets say on their way: a line of the run's log, in the UI and in the terminal."""
    return our_log(context).info


class _Forward(logging.Handler):
    """Repeats a library's log lines in the run's log."""

    def __init__(self, log: logging.LoggerAdapter[dg.DagsterLogManager]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage())


@contextmanager
def waits_told(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Say in the run's log, too, that a server of an archive or the store is waited for; see `waiting`."""
    handler = _Forward(our_log(context))
    WAITING.addHandler(handler)
    try:
        yield
    finally:
        WAITING.removeHandler(handler)


class _OurLines(logging.Filter):
    """Keep what was said through `our_log`; Dagster's own lines repeat it in words about ops and outputs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, _MARK, False)


class _Message(logging.Formatter):
    """The message without Dagster's run and step prefix."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        text = str(meta.get("orig_message") or record.getMessage())
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@dg.logger({}, description="Progress lines of neuralpile, for the command line.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Write to standard error, so that standard output stays for results."""
    logger = logging.Logger("neuralpile.progress", level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_OurLines())
    handler.setFormatter(_Message())
    logger.addHandler(handler)
    return logger
