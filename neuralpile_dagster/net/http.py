"""HTTP requests as this project makes them: user agent, proxies, redirects, JSON documents.

Here belong single requests to archives. Retries belong to `retry`, bodies to `responses`, large files to `ranges`.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import certifi
import urllib3

from neuralpile_dagster.net.errors import refused, require_url
from neuralpile_dagster.net.responses import parse_json, read_body
from neuralpile_dagster.net.retry import (
    AttemptFailed,
    RetryPolicy,
    network_errors,
    retry_request,
    status_failed,
    worth_retrying,
)

USER_AGENT = f"neuralpile-dagster/{version('neuralpile-dagster')}"
MAX_REDIRECTS = 5


def open_pool(url: str, limits: RetryPolicy, connections: int) -> urllib3.PoolManager:
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
    proxy = proxy_for(url)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def proxy_for(url: str) -> str | None:
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
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
    for _ in range(MAX_REDIRECTS):
        require_url(what, url)
        response = pool.request("GET", url, headers=sent, preload_content=False, redirect=False)
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        url = _joined(url, location)
    raise AttemptFailed(f"more than {MAX_REDIRECTS} redirects")


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
    with closing_pool(open_pool(url, limits, connections=1)) as pool:

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


@contextmanager
def closing_pool(pool: urllib3.PoolManager) -> Iterator[urllib3.PoolManager]:
    """Close the pool's connections at the end."""
    try:
        yield pool
    finally:
        pool.clear()
