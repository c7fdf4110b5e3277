"""The HTTP client of huggingface_hub with timeouts and retries, and its errors as this package's, without secrets.

huggingface_hub has one client per process and no timeouts. `install` gives it, through the library's own factory, a
client whose transport, for the hubs that were installed,

* retries calls that may be repeated (see `_REPEATABLE`), never a commit;
* reads small JSON responses itself, so that one cut short is retried too;
* honors Retry-After and the Hub's rate-limit headers within the policy's bound, else backs off with jitter;
* raises `HubGaveUp` at the end, which the library's own retries leave alone.

Requests to every other host (the Hub's storage) are sent once, with timeouts where the caller set none (those of the
hub installed last) and the same bound on Retry-After, which the library's own retries would heed without bound.
hf_xet has a client of its own, configured by environment variables, which are set here unless the user did.

What a call failed with, `explain` turns into an error of this package. Calls themselves belong in `hub`, `read`,
`upload` and `publishing`.
"""

from __future__ import annotations

import json
import os
import re
import threading
import traceback
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
from huggingface_hub import get_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import parse_ratelimit_headers

from neuralpile_dagster.errors import ConfigurationError, HubConflict, HubError, HubUnavailable, NeuralPileError
from neuralpile_dagster.net.retry import (
    AttemptFailed,
    RetryPolicy,
    named,
    remedy_for,
    retry_after,
    retry_call,
    without_queries,
    worth_retrying,
)

HUB_POLICY = RetryPolicy(
    attempts=6,
    backoff_s=1.0,
    backoff_max_s=30.0,
    retry_after_max_s=600.0,  # the Hub's rate limits count in windows of 300 s
    read_timeout_s=90.0,  # the Hub itself gives up on a commit after 60 s
    slowest_bytes_per_s=50_000.0,
)
FAILURES = (NeuralPileError, httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError, ValueError, KeyError)
"""All that huggingface_hub, httpx2 and hf_xet raise when a call fails."""

_STALE = (409, 412)
_REPEATABLE = re.compile(
    r"^/api/(repos/create|validate-yaml|complete_multipart)$"
    r"|^/api/datasets/[^/]+/[^/]+/(preupload|paths-info|tag)/"
    r"|\.git/info/lfs/objects/(batch|verify)$"
)
"""POST calls that change nothing when made twice. Not ``/commit/`` and not ``/discussions``."""
_BEST_EFFORT = "/api/agent-harnesses"
"""The library asks for it once a day, waits 3 s and does without (huggingface_hub/utils/_detect_agent.py); repeated, it
kept each command half a minute from saying that a hub is away.
"""
_SMALL_JSON_BYTES = 1 << 26
_REMEDY = "try again later; check this machine's network if it lasts; publishing again skips files already uploaded"


class HubGaveUp(HubUnavailable, httpx2.TransportError):
    """A call to the hub failed as often as it may.

    Also a `httpx2.TransportError`, so that code that expects network errors handles it as one.
    """


@dataclass(frozen=True)
class Secrets:
    """Texts that may appear in no message: the token, and the queries of URLs (some are signed)."""

    token: str | None = field(repr=False)

    def redact(self, text: str) -> str:
        """The text without them."""
        text = without_queries(text)
        return text.replace(self.token, "<HF_TOKEN>") if self.token else text

    def cause(self, error: BaseException) -> BaseException | None:
        """``error``, to be raised from, unless its chain tells a secret."""
        text = "".join(traceback.format_exception(error))
        return error if self.redact(text) == text else None


@dataclass(frozen=True)
class Problem:
    """A failure explained: what to raise, from what, and the headers of the hub's response."""

    error: NeuralPileError
    headers: Mapping[str, str]
    cause: BaseException | None = None

    @property
    def transient(self) -> bool:
        """Whether planning anew may succeed."""
        return isinstance(self.error, HubUnavailable | HubConflict)


def explain(error: BaseException, repository: str, doing: str, secrets: Secrets) -> Problem:
    """Say what an exception of a call to the Hub means for ``repository``.

    ``doing`` completes "failed while ...". Network errors, responses cut short
    and busy statuses become `HubUnavailable`, a moved head `HubConflict`,
    refusals and everything of this machine `HubError`.
    """
    chain = list(_chain(error))
    cause = secrets.cause(error)
    for link in chain:
        if isinstance(link, HfHubHTTPError):
            return Problem(_of_status(link, repository, doing, secrets), link.response.headers, cause)
        if isinstance(link, NeuralPileError):
            return Problem(link, {})  # explained already, and without secrets
    found = secrets.redact("; ".join(f"{type(link).__name__}: {link}".strip() for link in chain))[:1000]
    what = f"publishing or reading {repository} failed while {doing}"
    if any(isinstance(link, OSError) and link.filename is not None for link in chain):
        return Problem(HubError(what, found=found, remedy="make the file readable and try again"), {}, cause)
    if any(isinstance(link, HFValidationError) for link in chain):
        return Problem(ConfigurationError(what, found=found, expected="a valid repository name"), {}, cause)
    if any(isinstance(link, ValueError) and not isinstance(link, json.JSONDecodeError) for link in chain):
        return Problem(HubError(what, found=found, remedy="correct what is named, or report it"), {}, cause)
    return Problem(HubUnavailable(what, found=found, remedy=_REMEDY), {}, cause)


@contextmanager
def explained(repository: str, doing: str, secrets: Secrets) -> Iterator[None]:
    """Raise what `explain` makes of an exception of calls to the Hub."""
    try:
        yield
        return
    except FAILURES as error:
        problem = explain(error, repository, doing, secrets)
    raise problem.error from problem.cause


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__  # not __context__: what was handled before is another matter


def _of_status(error: HfHubHTTPError, repository: str, doing: str, secrets: Secrets) -> NeuralPileError:
    status = error.response.status_code
    what = f"{repository}: the Hub refused while {doing}"
    found = secrets.redact(f"status {status}, {error.server_message or str(error)}")[:1000]
    if worth_retrying(status):
        return HubUnavailable(what, found=found, remedy=_REMEDY)
    if status in _STALE:
        remedy = "publish again when nobody else publishes to the same repository"
        return HubConflict(f"{repository} changed while it was published", found=found, remedy=remedy)
    remedy = {
        401: "set HF_TOKEN to a token that may write to this repository (and check NEURALPILE_NAMESPACE)",
        403: "set HF_TOKEN to a token that may write to this repository (and check NEURALPILE_NAMESPACE)",
        402: "the Hub requires a paid plan for this; reduce the size or make the repository public",
        404: "check NEURALPILE_NAMESPACE and the name, and that HF_TOKEN may see the repository",
    }.get(status, "correct what the Hub names")
    return HubError(what, found=found, remedy=remedy)


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait (Retry-After, or an exhausted rate limit), or None."""
    asked = retry_after(headers)
    if asked is not None:
        return asked
    limit = parse_ratelimit_headers({name.lower(): value for name, value in headers.items()})
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


class _Hubs:
    """The policies of this process, by origin; ``install`` adds to them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.policies: dict[str, RetryPolicy] = {}
        self.latest = HUB_POLICY
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
            mounts[f"{scheme}://"] = _RetryingTransport(httpx2.HTTPTransport(proxy=proxy))
    direct = _RetryingTransport(httpx2.HTTPTransport())
    for host in filter(None, urllib.request.getproxies().get("no", "").replace(" ", "").split(",")):
        mounts["all://" if host == "*" else f"all://*{host.lstrip('*')}"] = direct
    return httpx2.Client(transport=direct, mounts=mounts, event_hooks=dict(hooks), follow_redirects=True, timeout=None)


def _configure_xet(policy: RetryPolicy) -> None:
    for name, value in {
        "RETRY_MAX_ATTEMPTS": str(policy.attempts),
        "RETRY_BASE_DELAY": f"{policy.backoff_s * 1000:.0f}ms",
        "RETRY_MAX_DURATION": f"{policy.backoff_max_s * 1000:.0f}ms",
        "CONNECT_TIMEOUT": f"{policy.connect_timeout_s * 1000:.0f}ms",
        "READ_TIMEOUT": f"{policy.read_timeout_s * 1000:.0f}ms",
    }.items():
        os.environ.setdefault(f"HF_XET_CLIENT_{name}", value)


class _RetryingTransport(httpx2.BaseTransport):
    """Add timeouts to every request, and retries to the repeatable requests of installed hubs."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send; raises `HubGaveUp`, or what the transport below raises for requests that are sent once."""
        policy = _hubs.policies.get(_origin(request.url))
        timeouts = request.extensions.get("timeout", {})
        for name, seconds in _timeouts(policy or _hubs.latest).items():
            if timeouts.get(name) is None:
                timeouts = {**timeouts, name: seconds}
        request.extensions["timeout"] = timeouts
        if policy is None or not _repeatable(request):
            return self._send(request, policy or _hubs.latest)
        what = f"{request.method} {request.url.copy_with(query=None)}"
        try:
            return retry_call(lambda: self._attempt(request, policy), what, policy)
        except AttemptFailed as failure:
            reason = failure.reason
        raise HubGaveUp(f"{what} failed {policy.attempts} times", found=reason, remedy=remedy_for(reason, _REMEDY))

    def _send(self, request: httpx2.Request, policy: RetryPolicy) -> httpx2.Response:
        """Send once; a response that asks for a longer wait than the policy's is final: others would heed it."""
        response = self._transport.handle_request(request)
        asked = asked_wait_s(response.headers) if worth_retrying(response.status_code) else None
        if asked is None or asked <= policy.retry_after_max_s:
            return response
        response.close()
        raise HubGaveUp(
            f"{request.method} {request.url.copy_with(query=None)} was refused",
            found=f"status {response.status_code}; the server asks to wait {asked:,.0f} s",
            expected=f"at most {policy.retry_after_max_s:,.0f} s",
            remedy=_REMEDY,
        )

    def _attempt(self, request: httpx2.Request, policy: RetryPolicy) -> httpx2.Response:
        try:
            response = self._send(request, policy)
            reason = _reason(request, response)
        except HubGaveUp:
            raise
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise AttemptFailed(named(error, f"{type(error).__name__}: {error}")) from error
        if reason:
            response.close()
            raise AttemptFailed(reason, asked_wait_s(response.headers))
        return response


def _timeouts(policy: RetryPolicy) -> dict[str, float]:
    silence = policy.read_timeout_s
    return {"connect": policy.connect_timeout_s, "read": silence, "write": silence, "pool": silence}


def _repeatable(request: httpx2.Request) -> bool:
    if request.url.path == _BEST_EFFORT:
        return False
    if request.method not in ("GET", "HEAD", "PUT", "DELETE") and not _REPEATABLE.search(request.url.path):
        return False
    try:
        return request.content is not None
    except httpx2.RequestNotRead:  # a stream, which cannot be sent twice
        return False


def _reason(request: httpx2.Request, response: httpx2.Response) -> str:
    """Why a response must be retried; empty when it is valid. Reads small JSON responses."""
    if worth_retrying(response.status_code):
        return f"status {response.status_code}"
    is_api = request.url.path.startswith("/api/") or ".git/info/lfs/" in request.url.path
    is_json = response.headers.get("content-type", "").split(";")[0].strip().endswith("json")
    small = int(response.headers.get("content-length", 0)) <= _SMALL_JSON_BYTES
    if request.method != "HEAD" and is_api and is_json and small:
        content = response.read()
        if response.is_success:
            try:
                json.loads(content)
            except ValueError:
                return f"a truncated JSON response, {len(content):,} bytes"
    return ""


def _origin(url: httpx2.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"
