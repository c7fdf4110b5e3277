"""A Dagster logger for terminals: only what our assets say, one short line each."""

from __future__ import annotations

import logging
import sys
from typing import Any

import dagster as dg


class _OurLines(logging.Filter):
    """Drop Dagster's own events and debug lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        return record.levelno >= logging.INFO and meta.get("dagster_event") is None


class _Message(logging.Formatter):
    """The message without Dagster's run and step prefix."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        text = str(meta.get("orig_message") or record.getMessage())
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@dg.logger({}, description="Our own progress lines, for the command line.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Write to standard error, so that standard output stays for results."""
    logger = logging.Logger("neuralpile.progress", level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_OurLines())
    handler.setFormatter(_Message())
    logger.addHandler(handler)
    return logger
