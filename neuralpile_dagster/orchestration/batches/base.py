"""How a batch fails: one thing in the log, all at its end, with the first reasons in the message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from neuralpile_dagster.errors import NeuralPileError, TransientError
from neuralpile_dagster.orchestration.metadata.sessions import counted

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


ATTEMPTS = 4
"""Tries of what an archive, a store or a hub that was away had part in; the clients below retry single requests too."""


def patiently(make: Callable[[], None], what: str, log: logging.LoggerAdapter[Any]) -> None:
    """Call ``make`` until it raises no `TransientError`, `ATTEMPTS` times at most; each wait is a line of the log."""

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0
        log.warning(f"{what}: {error} Trying again in {seconds:.0f} s.")

    for attempt in Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=2, max=60),
        before_sleep=tell,
        reraise=True,
    ):
        with attempt:
            make()
