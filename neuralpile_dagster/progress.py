"""Progress of long work: a callable that receives lines of text, and warnings while waiting for a server.

Where the lines are shown belongs in `cli` and `orchestration`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """The `Progress` of who does not want to hear of it."""


LOG = logging.getLogger(__name__)
TELL_FROM_S, TELL_EVERY_S = 1.0, 5.0
"""Minimum wait to log, and minimum interval between lines when several requests wait at once."""


class _Teller:
    """Rate limiter of warnings about retries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told_at = -TELL_EVERY_S

    def tell(self, what: str, trouble: str, seconds: float | None, waited_s: float = 0.0) -> None:
        now = time.monotonic()
        with self._lock:
            if (seconds or 0.0) + waited_s < TELL_FROM_S or now - self._told_at < TELL_EVERY_S:
                return
            self._told_at = now
        after = f" after {waited_s:.0f} s" if round(waited_s) else ""
        soon = "" if seconds is None else f" in {seconds:.0f} s"
        LOG.warning("%s: %s%s; trying again%s", what, trouble, after, soon)


_TELLER = _Teller()


def tell(what: str, trouble: str, seconds: float | None, waited_s: float = 0.0) -> None:
    """Warn that ``what`` failed with ``trouble`` after ``waited_s`` and is retried in ``seconds`` (None: soon)."""
    _TELLER.tell(what, trouble, seconds, waited_s)
