"""How this project talks HTTP: who it says it is, how long it waits, when it tries again.

Shared by the DANDI client's session, figshare and all reading of file contents.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import certifi
import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable

USER_AGENT = f"neuralpile-dagster/{version('neuralpile-dagster')}"
MAX_REDIRECTS = 5
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

    def seconds_for(self, n_bytes: int) -> float:
        """Longest time that a body of ``n_bytes`` may take."""
        return self.read_timeout_s + n_bytes / self.slowest_bytes_per_s


class Interrupted(Exception):
    """One attempt failed in a way that another may not; ``response`` may say how long to wait."""

    def __init__(self, trouble: str, response: urllib3.BaseHTTPResponse | None = None) -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.response = response


@contextmanager
def interruptions() -> Iterator[None]:
    """Turn what sockets, urllib3 and requests raise into `Interrupted`; keep local disk work outside."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise Interrupted(brief(error)) from error


def brief(error: Exception) -> str:
    """An error of the network in a few words."""
    text = str(error).partition(": ")[2] or str(error)
    return f"{type(error).__name__}: {text}"


class Attempts:
    """Counts the failures of one request and waits before it is tried again."""

    def __init__(self, limits: NetworkLimits, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._longest = limits.retry_after_max_s
        self._retry = urllib3.Retry(
            total=limits.retries,
            backoff_factor=limits.backoff_s,
            backoff_max=limits.backoff_max_s,
            backoff_jitter=limits.backoff_s,
            allowed_methods=None,
        )

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
        self._sleep(min(delay, self._longest) if delay else self._retry.get_backoff_time())
        return True


def persevere(attempt: Callable[[], Result], what: str, url: str, limits: NetworkLimits) -> Result:
    """Call ``attempt`` until it is not `Interrupted`; raises `ArchiveUnavailable` when no attempt is left."""
    attempts = Attempts(limits)
    while True:
        try:
            return attempt()
        except Interrupted as again:
            if not attempts.wait(again):
                raise unavailable(what, url, again.trouble, limits) from again


def open_pool(url: str, limits: NetworkLimits, connections: int) -> urllib3.PoolManager:
    """Connections for ``url``'s host, through the environment's proxy where there is one; the caller clears it.

    Nothing is retried here: a body that breaks off must be retried too.
    """
    options: dict[str, Any] = {
        "num_pools": 8,
        "maxsize": connections,
        "timeout": limits.timeout,
        "retries": False,
        "headers": {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        "ca_certs": os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
    }
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def get(pool: urllib3.PoolManager, url: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    """GET without reading the body, following redirects.

    urllib3 could follow them, but its errors would then show the whole URL, which may be a signed one.
    """
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
    for _ in range(MAX_REDIRECTS):
        response = pool.request("GET", url, headers=sent, preload_content=False, redirect=False)
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        url = urljoin(url, location)
    raise Interrupted(f"more than {MAX_REDIRECTS} redirects")


def get_json(url: str, what: str, limits: NetworkLimits, query: dict[str, str] | None = None) -> Any:
    """GET a JSON document, again where that may help.

    Parameters
    ----------
    url : str
        Without query; its host appears in errors.
    what : str
        What is asked for, for messages: ``"figshare article 7739750"``.

    Raises
    ------
    ArchiveUnavailable
        The server could not be reached, was busy or sent broken answers, to the last attempt.
    ArchiveError
        The server says no (404 and other 4xx).
    """
    target = f"{url}?{urlencode(query)}" if query else url
    with closing_pool(open_pool(url, limits, connections=1)) as pool:

        def attempt() -> Any:
            with interruptions():
                response = get(pool, target)
                body = response.data
            if worth_retrying(response.status):
                raise Interrupted(f"HTTP status {response.status}", response)
            if response.status != 200:
                raise refused(what, url, response.status)
            try:
                return json.loads(body)
            except ValueError as error:
                raise Interrupted(f"no complete JSON document ({len(body)} bytes)") from error

        return persevere(attempt, what, url, limits)


@contextmanager
def closing_pool(pool: urllib3.PoolManager) -> Iterator[urllib3.PoolManager]:
    """Close the pool's connections at the end."""
    try:
        yield pool
    finally:
        pool.clear()


def host(url: str) -> str:
    """Scheme and host of a URL: all of it that may be shown (signed URLs hold secrets)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def unavailable(what: str, url: str, trouble: str, limits: NetworkLimits) -> ArchiveUnavailable:
    """The error for a server that did not do it after all attempts."""
    return ArchiveUnavailable(
        f"{what} could not be read from {host(url)}",
        found=f"{trouble}, after {limits.retries + 1} attempts",
        expected="an answer",
        remedy="try again later; check this machine's network if it lasts",
    )


class NotFound(ArchiveError):
    """The server does not have it (HTTP status 404)."""


def refused(what: str, url: str, status: int) -> ArchiveError:
    """The error for a final no."""
    reasons = {401: "not authorized", 403: "access refused", 404: "not found", 410: "gone"}
    default = {
        401: "set the archive's API key if the source is not public (DANDI_API_KEY)",
        403: "set the archive's API key if the source is not public (DANDI_API_KEY)",
        404: "check the id and version in the catalog; materialize the dataset's manifest again",
        410: "materialize the dataset's manifest again",
    }
    kind = NotFound if status == 404 else ArchiveError
    return kind(
        f"{what} cannot be read from {host(url)}",
        found=f"HTTP status {status} ({reasons.get(status, 'refused')})",
        expected="status 200",
        remedy=default.get(status, "look at the archive's web page; the request is not accepted"),
    )
