"""What a batch tries again, with back-off and jitter: what may go away by itself, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from neuralpile_dagster.errors import TransientError

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
