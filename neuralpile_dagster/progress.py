"""How long work says where it is: a function that is called with one line of text now and then."""

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
"""Shorter waits are not worth a line; of several requests that wait at once, one line in so many seconds."""


class _Teller:
    """Says it as often as a person can read."""

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
    """Say that ``what`` is tried again in ``seconds`` (None: soon), after ``waited_s`` that ended in ``trouble``."""
    _TELLER.tell(what, trouble, seconds, waited_s)
