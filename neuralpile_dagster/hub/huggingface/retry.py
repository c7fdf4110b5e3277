"""An HTTP client for huggingface_hub that waits and tries again, installed through the library's own factory.

huggingface_hub has one client per process and no time-outs. `install` gives it a
client whose transport, for the hubs that were installed,

* repeats calls that may be repeated (see `_REPEATABLE`), never a commit;
* reads the small JSON replies itself, so that a reply cut short is repeated too;
* honours Retry-After and the Hub's rate-limit headers, else waits longer each time, with jitter;
* raises `HubGaveUp` at the end, which the library's own retries leave alone.

Every other host (the Hub's storage) only gets time-outs where the caller set none: those of the hub installed last.
hf_xet has a client of its own, configured by environment variables, which are set here unless the user did.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx2
import urllib3
from huggingface_hub import get_session, set_client_factory
from huggingface_hub.utils import parse_ratelimit_headers
from urllib3.exceptions import InvalidHeader

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.net.http import worth_retrying

_REPEATABLE = re.compile(
    r"^/api/(repos/create|validate-yaml|complete_multipart)$"
    r"|^/api/datasets/[^/]+/[^/]+/(preupload|paths-info|tag)/"
    r"|\.git/info/lfs/objects/(batch|verify)$"
)
"""POST calls that change nothing when made twice. Not ``/commit/`` and not ``/discussions``."""
_SMALL_REPLY_BYTES = 1 << 26


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for one hub.

    Attributes
    ----------
    attempts : int
        How often one call is made, at most.
    first_wait_s, longest_wait_s : float
        Wait before the second attempt; doubles, up to the longest; half of it is random.
    longest_asked_wait_s : float
        A hub that asks for a longer wait than this is given up at once. The
        Hub's rate limits count in windows of 300 s.
    connect_timeout_s, answer_timeout_s : float
        For connecting, and for every silence while sending or receiving.
        The Hub itself gives up on a commit after 60 s.
    slowest_bytes_per_s : float
        A Xet upload that takes longer than at this speed is given up.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_asked_wait_s: float = 600.0
    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 90.0
    slowest_bytes_per_s: float = 50_000.0

    def longest_upload_s(self, size: int) -> float:
        """Most seconds that ``size`` bytes may take through a client that has no time-outs of its own."""
        return self.attempts * self.answer_timeout_s + size / self.slowest_bytes_per_s

    def wait_s(self, attempt: int, headers: Mapping[str, str] | None = None) -> float:
        """Seconds to wait after ``attempt`` (0 for the first) failed with a reply of these headers."""
        own = min(self.longest_wait_s, self.first_wait_s * 2**attempt) * random.uniform(0.5, 1.0)
        return max(own, asked_wait_s(headers or {}) or 0.0)

    def timeouts(self) -> dict[str, float]:
        """As httpx names them."""
        answer = self.answer_timeout_s
        return {"connect": self.connect_timeout_s, "read": answer, "write": answer, "pool": answer}


class HubGaveUp(HubUnavailable, httpx2.TransportError):
    """A call to the hub failed as often as it may.

    Also a `httpx2.TransportError`, so that code that expects network trouble takes it for what it is.
    """


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait (Retry-After, or an exhausted rate limit), or None."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    if "retry-after" in lower:
        with suppress(InvalidHeader):  # neither seconds nor a date
            return urllib3.Retry().parse_retry_after(lower["retry-after"])
    limit = parse_ratelimit_headers(lower)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


class _Hubs:
    """The policies of this process, by origin; ``install`` adds to them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.policies: dict[str, RetryPolicy] = {}
        self.latest = RetryPolicy()
        self.installed = False


_hubs = _Hubs()


def install(endpoint: str, policy: RetryPolicy) -> None:
    """Let this process' huggingface_hub treat ``endpoint`` by ``policy``; again for the same endpoint replaces it.

    The client is installed once per process; it keeps the event hooks of the one before.
    """
    with _hubs.lock:
        _hubs.policies[_origin(httpx2.URL(endpoint))] = _hubs.latest = policy
        if not _hubs.installed:
            hooks = get_session().event_hooks
            set_client_factory(lambda: _client(hooks))
            _configure_xet(policy)
            _hubs.installed = True


def _client(hooks: Mapping[str, list]) -> httpx2.Client:
    mounts: dict[str, httpx2.BaseTransport | None] = {}
    for scheme, proxy in urllib.request.getproxies().items():
        if scheme in ("http", "https", "all"):
            mounts[f"{scheme}://"] = RetryingTransport(httpx2.HTTPTransport(proxy=proxy))
    direct = RetryingTransport(httpx2.HTTPTransport())
    for host in filter(None, urllib.request.getproxies().get("no", "").replace(" ", "").split(",")):
        mounts["all://" if host == "*" else f"all://*{host.lstrip('*')}"] = direct
    return httpx2.Client(transport=direct, mounts=mounts, event_hooks=dict(hooks), follow_redirects=True, timeout=None)


def _configure_xet(policy: RetryPolicy) -> None:
    for name, value in {
        "RETRY_MAX_ATTEMPTS": str(policy.attempts),
        "RETRY_BASE_DELAY": f"{policy.first_wait_s * 1000:.0f}ms",
        "RETRY_MAX_DURATION": f"{policy.longest_wait_s * 1000:.0f}ms",
        "CONNECT_TIMEOUT": f"{policy.connect_timeout_s * 1000:.0f}ms",
        "READ_TIMEOUT": f"{policy.answer_timeout_s * 1000:.0f}ms",
    }.items():
        os.environ.setdefault(f"HF_XET_CLIENT_{name}", value)


class RetryingTransport(httpx2.BaseTransport):
    """Adds time-outs to every request, and attempts to the repeatable requests of installed hubs."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send; raises `HubGaveUp`, or what the transport below raises for requests that are made once."""
        policy = _hubs.policies.get(_origin(request.url))
        wanted = request.extensions.get("timeout", {})
        filled = {
            name: value if wanted.get(name) is None else wanted[name]
            for name, value in (policy or _hubs.latest).timeouts().items()
        }
        request.extensions["timeout"] = filled
        if policy is None or not _repeatable(request):
            return self._transport.handle_request(request)
        return self._insist(request, policy)

    def _insist(self, request: httpx2.Request, policy: RetryPolicy) -> httpx2.Response:
        for attempt in range(policy.attempts):
            headers: Mapping[str, str] = {}
            try:
                response = self._transport.handle_request(request)
                trouble = _trouble(request, response)
                if not trouble:
                    return response
                headers = response.headers
                response.close()
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                trouble = f"{type(error).__name__}: {error}"
            wait = policy.wait_s(attempt, headers)
            if attempt + 1 == policy.attempts or wait > policy.longest_asked_wait_s:
                raise _gave_up(request, attempt + 1, trouble, wait if headers else None)
            time.sleep(wait)
        raise AssertionError("RetryPolicy.attempts is at least 1")


def _repeatable(request: httpx2.Request) -> bool:
    if request.method not in ("GET", "HEAD", "PUT", "DELETE") and not _REPEATABLE.search(request.url.path):
        return False
    try:
        return request.content is not None
    except httpx2.RequestNotRead:  # a stream, which cannot be sent twice
        return False


def _trouble(request: httpx2.Request, response: httpx2.Response) -> str:
    """Why a reply is to be asked for again; empty when it is good. Reads small JSON replies."""
    if worth_retrying(response.status_code):
        return f"status {response.status_code}"
    is_api = request.url.path.startswith("/api/") or ".git/info/lfs/" in request.url.path
    is_json = response.headers.get("content-type", "").split(";")[0].strip().endswith("json")
    small = int(response.headers.get("content-length", 0)) <= _SMALL_REPLY_BYTES
    if request.method != "HEAD" and is_api and is_json and small:
        content = response.read()
        if response.is_success:
            try:
                json.loads(content)
            except ValueError:
                return f"a reply that is not whole, {len(content):,} bytes"
    return ""


def _gave_up(request: httpx2.Request, attempts: int, trouble: str, asked: float | None) -> HubGaveUp:
    where = request.url.copy_with(query=None)
    return HubGaveUp(
        f"{request.method} {where} failed {attempts} times",
        found=trouble,
        remedy="try again later; what was sent is not sent again"
        + (f" (the hub asks to wait {asked:,.0f} s)" if asked is not None and asked > 60 else ""),
    )


def _origin(url: httpx2.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"
