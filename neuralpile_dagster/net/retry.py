"""Retry requests: which errors are transient, how often and after which waits to repeat, and the error that ends it.

Here belong the one `RetryPolicy`, the classification of HTTP statuses and network errors, `retry_call`, and the wording
of errors, for all servers: archives, the store on S3, the Hugging Face Hub. No error shows more of a URL than its host,
because signed URLs hold secrets. What a single request looks like belongs to its client.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError
from urllib3.util import parse_url

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, NeuralPileError
from neuralpile_dagster.files import too_many_files
from neuralpile_dagster.progress import warn_of_retry

Result = TypeVar("Result")
System = TypeVar("System", bound=OSError)
_NOT_RESOLVED = "the host's name could not be resolved"
_URL_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")


def worth_retrying(status: int) -> bool:
    """Whether an HTTP status is transient: 408, 429 and all 5xx (Cloudflare's 520 among them)."""
    return status in (408, 429) or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds (or until a date) that a response asks to wait; None without a valid Retry-After."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    with suppress(InvalidHeader):
        return float(urllib3.Retry().parse_retry_after(text))
    return None


def status_failed(status: int, headers: Mapping[str, str]) -> AttemptFailed:
    """The failure of an attempt that a response with a transient status ended."""
    return AttemptFailed(f"HTTP status {status}", retry_after(headers))


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts, attempts and waits of requests to one server.

    Attributes
    ----------
    attempts : int
        Attempts of one request, at least 1. A transfer that advances starts counting anew.
    backoff_s, backoff_max_s : float
        Waits between attempts: ``backoff_s`` x 1, x 2, x 4, ... plus a random part of at most ``backoff_s``; never
        longer than ``backoff_max_s``.
    retry_after_max_s : float
        A server's Retry-After is honored up to this.
    connect_timeout_s, read_timeout_s : float
        Longest wait for a connection, and for the next bytes on one.
    slowest_bytes_per_s : float
        A transfer that stays below this for longer than ``read_timeout_s`` counts as broken.
    """

    attempts: int = 8
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    retry_after_max_s: float = 300.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    slowest_bytes_per_s: float = 10_000.0

    @property
    def timeout(self) -> urllib3.Timeout:
        """The timeouts as urllib3 takes them."""
        return urllib3.Timeout(connect=self.connect_timeout_s, read=self.read_timeout_s)

    def require_pace(self, seconds: float, n_bytes: int) -> None:
        """Raise `AttemptFailed` when a body of which ``n_bytes`` came in ``seconds`` is too slow."""
        if seconds > self.read_timeout_s + n_bytes / self.slowest_bytes_per_s:
            raise AttemptFailed(f"slower than {self.slowest_bytes_per_s:,.0f} bytes/s")

    def wait_s(self, state: RetryCallState) -> float:
        """Seconds to wait after a failed attempt: the back-off, or a longer Retry-After within its bound."""
        backoff = wait_exponential_jitter(multiplier=self.backoff_s, max=self.backoff_max_s, jitter=self.backoff_s)
        return max(backoff(state), min(_failure(state).retry_after_s, self.retry_after_max_s))


class AttemptFailed(Exception):
    """One attempt failed with a transient error.

    Parameters
    ----------
    reason : str
        For people.
    retry_after_s : float, optional
        How long the server asks to wait.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s or 0.0


def _failure(state: RetryCallState) -> AttemptFailed:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, AttemptFailed)  # nothing else is retried
    return error


def retry_call(
    attempt: Callable[[], Result],
    what: str,
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Any] = time.sleep,
    stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str, str, float, float, str], None] = warn_of_retry,
) -> Result:
    """Call ``attempt`` until it succeeds; warn while waiting.

    Parameters
    ----------
    attempt : callable
        Raises `AttemptFailed` for transient errors.
    what : str
        Name of what is requested, for warnings.
    policy : RetryPolicy
    sleep : callable
        Waits some seconds.
    stop : callable
        Whether to give up now.
    warn : callable
        Called before each wait with ``what``, the reason, the seconds to wait, those that the attempt took, and which
        attempt comes next.

    Raises
    ------
    AttemptFailed
        Of the last attempt. Any other error of an attempt is raised at once.
    """
    began = time.monotonic()

    def begin(_state: RetryCallState) -> None:
        nonlocal began
        began = time.monotonic()

    def before_sleep(state: RetryCallState) -> None:
        failure, seconds = _failure(state), state.upcoming_sleep
        following = f"attempt {state.attempt_number + 1} of {policy.attempts}"
        warn(what, failure.reason, seconds, time.monotonic() - began, following)

    retrying = Retrying(
        retry=retry_if_exception_type(AttemptFailed),
        stop=lambda state: stop() or stop_after_attempt(policy.attempts)(state),
        wait=policy.wait_s,
        before=begin,
        before_sleep=before_sleep,
        sleep=sleep,
        reraise=True,
    )
    return retrying(attempt)


def retry_request(attempt: Callable[[], Result], what: str, url: str, policy: RetryPolicy) -> Result:
    """`retry_call` for an archive: raises `ArchiveUnavailable` after the last attempt."""
    try:
        return retry_call(attempt, what, policy)
    except AttemptFailed as failure:
        raise unavailable(what, url, failure.reason, policy.attempts) from failure


@contextmanager
def network_errors(what: str, url: str) -> Iterator[None]:
    """Turn errors of sockets, urllib3 and requests into `AttemptFailed`; keep local disk work outside.

    Errors that no other attempt can change (an invalid certificate or URL) become an `ArchiveError` at once.
    """
    try:
        yield
    except (HTTPError, OSError) as error:
        final = _permanent(what, url, error)
        if final is not None:
            raise final from None  # the error's own text may hold a signed URL
        raise AttemptFailed(summary(error)) from error


def summary(error: Exception) -> str:
    """A network error in a few words."""
    text = str(error).partition(": ")[2] or str(error)
    return named(error, f"{type(error).__name__}: {text}")


def named(error: Exception, usual: str) -> str:
    """A network error in words: ``usual``, except where those would not help."""
    return _NOT_RESOLVED if inner_error(error, socket.gaierror) is not None else usual


def _permanent(what: str, url: str, error: Exception) -> NeuralPileError | None:
    """Our error for a permanent one (an `ArchiveError`, or that of too many open files); None for a transient one."""
    if isinstance(error, ValueError):  # urllib3's LocationValueError, requests' InvalidURL
        return _no_url(what)
    system = inner_error(error, OSError)
    if system is not None and system.errno in (errno.EMFILE, errno.ENFILE):
        return too_many_files(system)
    certificate = inner_error(error, ssl.SSLCertVerificationError)
    if certificate is None:
        return None
    return ArchiveError(
        f"{what} cannot be read from {host(url)}: its certificate is not trusted",
        found=certificate.verify_message,
        expected="a certificate that this machine trusts",
        remedy="set REQUESTS_CA_BUNDLE to your network's certificates if it has its own; check this machine's clock",
    )


def inner_error(error: object, kind: type[System], depth: int = 8) -> System | None:
    """The innermost error of the operating system of this kind, inside those of urllib3, requests and httpx."""
    if not isinstance(error, BaseException) or depth == 0:
        return None
    inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
    found = (inner_error(each, kind, depth - 1) for each in inner)
    return next((each for each in found if each is not None), error if isinstance(error, kind) else None)


def require_url(what: str, url: str) -> None:
    """Raise `ArchiveError`, without showing it, when nothing can be read from a URL."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise _no_url(what) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise _no_url(what)


def _no_url(what: str) -> ArchiveError:
    return ArchiveError(
        f"{what} cannot be read: invalid URL",
        expected="http(s)://host/...",
        remedy="check the archive's URL in the settings; materialize the dataset's manifest again",
    )


def host(url: str) -> str:
    """Scheme and host of a URL: all of it that may be shown (signed URLs hold secrets)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an invalid URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def without_queries(text: str) -> str:
    """The text with its URLs cut where their queries begin, which may be signatures."""
    return _URL_QUERY.sub(r"\1?...", text)


def unavailable(what: str, url: str, reason: str, attempts: int) -> ArchiveUnavailable:
    """The error for a server that failed all attempts."""
    return ArchiveUnavailable(
        f"{what} could not be read from {host(url)}",
        found=f"{reason}, after {attempts} attempts",
        expected="a response",
        remedy=remedy_for(reason, "try again later; check this machine's network if it lasts"),
    )


def remedy_for(reason: str, usual: str) -> str:
    """Advice after a server failed all attempts for this reason (of `summary`)."""
    if _NOT_RESOLVED in reason:
        return "check this machine's internet connection and, where it needs one, the proxy (HTTPS_PROXY)"
    return usual


class NotFound(ArchiveError):
    """Missing on the server (HTTP status 404)."""


def refused(what: str, url: str, status: int, key: str | None = None) -> ArchiveError:
    """The error for a permanent refusal; ``key`` names the variable that holds the archive's API key, if it has one."""
    reasons = {401: "not authorized", 403: "access refused", 404: "not found", 410: "gone"}
    closed = (
        f"set {key} if the source is not public" if key else "check on the archive's web page that it is still public"
    )
    default = {
        401: closed,
        403: closed,
        404: "check the id and version in the catalog; materialize the dataset's manifest again",
        410: "materialize the dataset's manifest again",
    }
    kind = NotFound if status == 404 else ArchiveError
    return kind(
        f"{what} cannot be read from {host(url)}",
        found=f"HTTP status {status} ({reasons.get(status, 'refused')})",
        expected="status 200",
        remedy=default.get(status, "check the archive's web page; the server refuses this request"),
    )
