"""Errors of servers: unavailable, refused, invalid URL or certificate.

Here belongs their wording. No error shows more of a URL than its host, because signed URLs hold secrets; which errors
are retried belongs to `retry`.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TypeVar
from urllib.parse import urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, NeuralPileError
from neuralpile_dagster.files import too_many_files

System = TypeVar("System", bound=OSError)


def host(url: str) -> str:
    """Scheme and host of a URL: all of it that may be shown (signed URLs hold secrets)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an invalid URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def unavailable(what: str, url: str, reason: str, attempts: int) -> ArchiveUnavailable:
    """The error for a server that failed all attempts."""
    return ArchiveUnavailable(
        f"{what} could not be read from {host(url)}",
        found=f"{reason}, after {attempts} attempts",
        expected="a response",
        remedy=remedy_for(reason, "try again later; check this machine's network if it lasts"),
    )


NOT_RESOLVED = "the host's name could not be resolved"


def named(error: Exception, usual: str) -> str:
    """A network error in words: ``usual``, except where those would not help."""
    return NOT_RESOLVED if inner_error(error, socket.gaierror) is not None else usual


def remedy_for(reason: str, usual: str) -> str:
    """Advice after a server failed all attempts for this reason (`retry.summary`)."""
    if NOT_RESOLVED in reason:
        return "check this machine's internet connection and, where it needs one, the proxy (HTTPS_PROXY)"
    return usual


def require_url(what: str, url: str) -> None:
    """Raise `ArchiveError`, without showing it, when nothing can be read from a URL."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise _no_url(what) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise _no_url(what)


def permanent(what: str, url: str, error: Exception) -> NeuralPileError | None:
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


def _no_url(what: str) -> ArchiveError:
    return ArchiveError(
        f"{what} cannot be read: invalid URL",
        expected="http(s)://host/...",
        remedy="check the archive's URL in the settings; materialize the dataset's manifest again",
    )


def inner_error(error: object, kind: type[System], depth: int = 8) -> System | None:
    """The innermost error of the operating system of this kind, inside those of urllib3, requests and httpx."""
    if not isinstance(error, BaseException) or depth == 0:
        return None
    inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
    found = (inner_error(each, kind, depth - 1) for each in inner)
    return next((each for each in found if each is not None), error if isinstance(error, kind) else None)


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
