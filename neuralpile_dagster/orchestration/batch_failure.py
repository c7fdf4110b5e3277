"""How a batch fails: one thing in the log, all at its end, with the first reasons in the message."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.orchestration.metadata import counted

REASONS_SHOWN = 3
"""Things whose reasons are in the message of a batch that failed; the run's log has all."""


def told(error: Exception, what: str, log: logging.LoggerAdapter[Any]) -> str:
    """Say in the log why one thing of a batch failed, with the trace where it is not one of our errors; the reason."""
    log.error(f"{what} failed: {error}", exc_info=None if isinstance(error, NeuralPileError) else error)
    return str(error) or type(error).__name__


def batch_failure(what: str, failed: Mapping[str, str], wanted: int) -> dg.Failure:
    """The failure of a batch of ``wanted`` things, which ``what`` names; ``failed`` are the reasons by partition."""
    reasons = [f"{key}: {reason}" for key, reason in failed.items()]
    more = len(reasons) - REASONS_SHOWN
    return dg.Failure(
        f"{len(reasons)} of {wanted} {what} failed"
        + ("; the others are done. " if len(reasons) < wanted else ". ")
        + " | ".join(reasons[:REASONS_SHOWN])
        + (f" | and {more} more, in the run's log" if more > 0 else ""),
        metadata={"failed_partitions": dg.MetadataValue.md(counted(failed))},
        allow_retries=False,
    )
