"""Translate errors of the Hub and its clients into this package's, without secrets.

Here belong classification and wording. Which requests are repeated belongs to `retry`.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx2
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from neuralpile_dagster.errors import ConfigurationError, HubConflict, HubError, HubUnavailable, NeuralPileError
from neuralpile_dagster.net.retry import worth_retrying

FAILURES = (NeuralPileError, httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError, ValueError, KeyError)
"""All that huggingface_hub, httpx2 and hf_xet raise when a call fails."""

_URL_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")
_STALE = (409, 412)


@dataclass(frozen=True)
class Secrets:
    """Texts that may appear in no message: the token, and the queries of URLs (some are signed)."""

    token: str | None = field(repr=False)

    def redact(self, text: str) -> str:
        """The text without them."""
        text = _URL_QUERY.sub(r"\1?...", text)
        return text.replace(self.token, "<HF_TOKEN>") if self.token else text

    def cause(self, error: BaseException) -> BaseException | None:
        """``error``, to be raised from, unless its chain tells a secret."""
        text = "".join(traceback.format_exception(error))
        return error if self.redact(text) == text else None


@dataclass(frozen=True)
class Problem:
    """A failure explained: what to raise, from what, and the headers of the hub's answer."""

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
    return Problem(HubUnavailable(what, found=found, remedy="try again; files already uploaded are skipped"), {}, cause)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__  # not __context__: what was handled before is another matter


def _of_status(error: HfHubHTTPError, repository: str, doing: str, secrets: Secrets) -> NeuralPileError:
    status = error.response.status_code
    what = f"{repository}: the Hub refused while {doing}"
    found = secrets.redact(f"status {status}, {error.server_message or str(error)}")[:1000]
    if worth_retrying(status):
        return HubUnavailable(what, found=found, remedy="try again later; files already uploaded are skipped")
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
