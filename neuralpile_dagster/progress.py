"""Progress of long work: a function that is called with one line of text now and then; warnings about long waits.

Here belong only lines of text for people. What work reports, and where the lines go, is decided by its callers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """A `Progress` that discards every message."""


LOG = logging.getLogger(__name__)
WARN_FROM_S, WARN_EVERY_S = 1.0, 5.0
"""Shorter waits are not worth a line; of several requests that wait at once, one line in so many seconds."""


class _Warner:
    """Warns as often as a person can read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warned_at = -WARN_EVERY_S

    def warn(self, what: str, reason: str, seconds: float | None, waited_s: float, following: str) -> None:
        now = time.monotonic()
        with self._lock:
            if (seconds or 0.0) + waited_s < WARN_FROM_S or now - self._warned_at < WARN_EVERY_S:
                return
            self._warned_at = now
        after = f" after {waited_s:.0f} s" if round(waited_s) else ""
        soon = "" if seconds is None else f" in {seconds:.0f} s"
        attempt = f" ({following})" if following else ""
        LOG.warning("%s: %s%s; trying again%s%s", what, reason, after, soon, attempt)


_WARNER = _Warner()


def warn_of_retry(what: str, reason: str, seconds: float | None, waited_s: float = 0.0, following: str = "") -> None:
    """Warn while waiting for a server, so that a long retry does not look like a hang.

    ``what`` is requested again in ``seconds`` (None: soon), after an attempt of ``waited_s`` that failed;
    ``following`` is the next attempt in words: "attempt 2 of 8".
    """
    _WARNER.warn(what, reason, seconds, waited_s, following)
