"""How long we wait for a server, and when we try again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError

from neuralpile_dagster.net.errors import permanent, unavailable
from neuralpile_dagster.progress import tell

Result = TypeVar("Result")


def worth_retrying(status: int) -> bool:
    """Whether an HTTP status says "not now" (408, 429, all 5xx, Cloudflare's 520 among them) rather than "no"."""
    return status in (408, 429) or status >= 500


@dataclass(frozen=True)
class NetworkLimits:
    """How patient we are with a server.

    Attributes
    ----------
    connect_timeout_s, read_timeout_s : float
        Longest wait for a connection, and for the next bytes on one.
    slowest_bytes_per_s : float
        A transfer that stays below this for longer than ``read_timeout_s`` counts as broken.
    retries : int
        How often one request is tried again. A transfer that advances starts counting anew.
    backoff_s, backoff_max_s : float
        The first retry comes at once, later ones after ``backoff_s`` x 2, x 4, ... plus a
        random part of at most ``backoff_s``; never later than ``backoff_max_s``.
    retry_after_max_s : int
        A server's Retry-After is honoured up to this.
    """

    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    slowest_bytes_per_s: float = 10_000.0
    retries: int = 7
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    retry_after_max_s: float = 300.0

    @property
    def timeout(self) -> urllib3.Timeout:
        """The same for urllib3."""
        return urllib3.Timeout(connect=self.connect_timeout_s, read=self.read_timeout_s)

    def require_pace(self, seconds: float, n_bytes: int) -> None:
        """Raise `Interrupted` when a body of which ``n_bytes`` came in ``seconds`` is too slow."""
        if seconds > self.read_timeout_s + n_bytes / self.slowest_bytes_per_s:
            raise Interrupted(f"slower than {self.slowest_bytes_per_s:,.0f} bytes/s")


class Interrupted(Exception):
    """One attempt failed in a way that another may not; ``response`` may say how long to wait."""

    def __init__(self, trouble: str, response: urllib3.BaseHTTPResponse | None = None) -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.response = response


@contextmanager
def interruptions(what: str, url: str) -> Iterator[None]:
    """Turn what sockets, urllib3 and requests raise into `Interrupted`; keep local disk work outside.

    What no other attempt can change (a certificate, a URL that is none) becomes an `ArchiveError` at once.
    """
    try:
        yield
    except (HTTPError, OSError) as error:
        final = permanent(what, url, error)
        if final is not None:
            raise final from None  # the error's own text may hold a signed URL
        raise Interrupted(brief(error)) from error


def brief(error: Exception) -> str:
    """An error of the network in a few words."""
    text = str(error).partition(": ")[2] or str(error)
    return f"{type(error).__name__}: {text}"


class Pause:
    """Until when a server asked to be left alone; shared by all who ask it for the same thing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def extend(self, seconds: float) -> None:
        """Ask nothing for at least ``seconds`` from now."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._until - time.monotonic())


class Attempts:
    """Counts the failures of one request for ``what`` and waits before it is tried again."""

    def __init__(
        self,
        what: str,
        limits: NetworkLimits,
        sleep: Callable[[float], object] = time.sleep,
        pause: Pause | None = None,
    ) -> None:
        self._what = what
        self._sleep = sleep
        self._pause = pause or Pause()
        self._longest = limits.retry_after_max_s
        self._began = time.monotonic()
        self._retry = urllib3.Retry(
            total=limits.retries,
            backoff_factor=limits.backoff_s,
            backoff_max=limits.backoff_max_s,
            backoff_jitter=limits.backoff_s,
            allowed_methods=None,
        )

    def begin(self) -> None:
        """An attempt begins now; without this, with the end of the last wait."""
        self._began = time.monotonic()

    def wait(self, again: Interrupted) -> bool:
        """Wait as long as the server or the back-off says; False (at once) when no attempt is left."""
        try:
            self._retry = self._retry.increment("GET", "", response=again.response, error=again)
        except MaxRetryError:
            return False
        delay = None
        if again.response is not None:
            with suppress(InvalidHeader):  # a Retry-After that is neither seconds nor a date
                delay = self._retry.get_retry_after(again.response)
        seconds = min(delay, self._longest) if delay else self._retry.get_backoff_time()
        if delay:
            self._pause.extend(seconds)
        tell(self._what, again.trouble, seconds, time.monotonic() - self._began)
        self._sleep(seconds)
        self.begin()
        return True


def persevere(attempt: Callable[[], Result], what: str, url: str, limits: NetworkLimits) -> Result:
    """Call ``attempt`` until it is not `Interrupted`; raises `ArchiveUnavailable` when no attempt is left."""
    attempts = Attempts(what, limits)
    while True:
        try:
            return attempt()
        except Interrupted as again:
            if not attempts.wait(again):
                raise unavailable(what, url, again.trouble, limits.retries + 1) from again
