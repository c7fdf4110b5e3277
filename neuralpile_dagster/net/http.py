"""HTTP requests as this project makes them: user agent, proxies, redirects, bounded JSON responses, shared connections.

Here belong single requests to archives, and how their responses are read: with a time and a size limit, and listings
page by page, with an end. Retries belong to `retry`, large files to `ranges`.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit
from weakref import WeakSet

import certifi
import urllib3

from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.net.retry import (
    AttemptFailed,
    RetryPolicy,
    network_errors,
    refused,
    require_url,
    retry_request,
    status_failed,
    worth_retrying,
)

USER_AGENT = f"neuralpile-dagster/{version('neuralpile-dagster')}"
_MAX_REDIRECTS = 5
MAX_BODY_BYTES = 64 * 1024**2
"""Longest response that is read, uncompressed; a page of 1,000 files with their metadata has about 5 MB."""
MAX_PAGES = 1000
"""Pages of one listing; archives give a thousand files a page."""
_READ_BYTES = 1 << 16

Page = TypeVar("Page")


def open_pool(url: str, limits: RetryPolicy, connections: int) -> urllib3.PoolManager:
    """Connections for ``url``'s host, by the environment's proxy if there is one; the end of its ``with`` closes them.

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
    proxy = _proxy_for(url)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def _proxy_for(url: str) -> str | None:
    """The environment's proxy for a URL."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if proxy and not urllib.request.proxy_bypass(parts.netloc) else None


def get(
    pool: urllib3.PoolManager, url: str, what: str, headers: dict[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    """GET ``what`` without reading the body, following redirects; `ArchiveError` for an invalid URL.

    urllib3 could follow them, but its errors would then show the whole URL, which may be a signed one.
    """
    sent = {**pool.headers, **(headers or {})}
    for _ in range(_MAX_REDIRECTS):
        require_url(what, url)
        response = pool.request("GET", url, headers=sent, preload_content=False, redirect=False)
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        url = _joined(url, location)
    raise AttemptFailed(f"more than {_MAX_REDIRECTS} redirects")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""  # which `require_url` refuses


def get_json(url: str, what: str, limits: RetryPolicy, query: dict[str, str] | None = None) -> Any:
    """GET a JSON document, with retries.

    Parameters
    ----------
    url : str
        Without query; its host appears in errors.
    what : str
        Name of the document, for messages: ``"figshare article 7739750"``.

    Raises
    ------
    ArchiveUnavailable
        The server could not be reached, was busy or sent broken responses, in all attempts.
    ArchiveError
        The server refuses (404 and other 4xx), or its response is too long or invalid.
    """
    require_url(what, url)
    target = f"{url}?{urlencode(query)}" if query else url
    with open_pool(url, limits, connections=1) as pool:

        def attempt() -> Any:
            with network_errors(what, url):
                response = get(pool, target, what)
                try:
                    body = read_body(what, response, limits)
                finally:
                    response.close()
            if worth_retrying(response.status):
                raise status_failed(response.status, response.headers)
            if response.status != 200:
                raise refused(what, url, response.status)
            return parse_json(what, body)

        return retry_request(attempt, what, url, limits)


def read_body(what: str, response: urllib3.BaseHTTPResponse, limits: RetryPolicy) -> bytes:
    """The whole body of a response, uncompressed.

    Raises `AttemptFailed` when it comes too slowly, `ArchiveError` when it is longer than `MAX_BODY_BYTES`.
    Errors of urllib3 pass through.
    """
    body, began = bytearray(), time.monotonic()
    # read1: what has arrived; read would wait for all that it was asked for, however slowly that comes
    while block := response.read1(_READ_BYTES, decode_content=True):
        body += block
        if len(body) > MAX_BODY_BYTES:
            raise ArchiveError(
                f"{what}: the response is too long",
                found=f"more than {MAX_BODY_BYTES:,} bytes",
                expected="a JSON document of a few megabytes",
                remedy="check the archive's URL in the settings; report it to the archive",
            )
        limits.require_pace(time.monotonic() - began, len(body))
    return bytes(body)


def parse_json(what: str, body: bytes) -> Any:
    """The document; `AttemptFailed` for invalid JSON (cut short), `ArchiveError` when it is nested too deeply."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise AttemptFailed(f"no complete JSON document ({len(body):,} bytes)") from error
    except RecursionError:
        raise ArchiveError(
            f"{what}: the response was not understood",
            found="JSON that is nested too deeply",
            expected="a document of the archive's API",
            remedy="check the archive's URL in the settings; report it to the archive",
        ) from None


def read_pages(first: Page, read: Callable[[Page], tuple[list[Any], Page | None]]) -> Iterator[Any]:
    """Yield the entries of all pages of a listing; raises `ValueError` for one that does not end.

    Parameters
    ----------
    first : Page
        Number or URL of the first page.
    read : callable
        Takes a page's number or URL, returns its entries (JSON) and the next page, None after the last.
    """
    page, seen = first, set[bytes]()
    for number in range(1, MAX_PAGES + 1):
        entries, following = read(page)
        yield from entries
        if following is None:
            return
        digests = {sha256(json.dumps(entry, sort_keys=True).encode()).digest() for entry in entries}
        if entries and digests <= seen:
            raise ValueError(f"page {number} repeats earlier ones: the listing does not end")
        page, seen = following, seen | digests
    raise ValueError(f"more than {MAX_PAGES:,} pages")


class Connections:
    """A shared connection pool limited to ``count`` concurrent requests; closed when its last user leaves.

    Parameters
    ----------
    count : int
    limits : RetryPolicy
    """

    def __init__(self, count: int, limits: RetryPolicy) -> None:
        self.count = count
        self.limits = limits
        self._slots = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._users: WeakSet[object] = WeakSet()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot. Its holder may wait for the server only: other requests wait for the slot."""
        with self._slots:
            yield

    def pool(self, url: str) -> urllib3.PoolManager:
        """Connections to ``url``'s host and others behind the same proxy; use them within a `slot`."""
        proxy = _proxy_for(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = open_pool(url, self.limits, self.count)
            return self._pools[proxy]

    def join(self, user: object) -> None:
        """Keep connections open until this user leaves."""
        with self._lock:
            self._users.add(user)

    def leave(self, user: object) -> None:
        """Close all connections when no user is left; leaving twice is harmless."""
        with self._lock:
            self._users.discard(user)
            pools = [] if self._users else list(self._pools.values())
            if pools:
                self._pools.clear()
        for pool in pools:
            pool.clear()
