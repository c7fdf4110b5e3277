"""Errors of servers: unavailable, refused, invalid URL or certificate.

Here belongs their wording. No error shows more of a URL than its host, because signed URLs hold secrets; which errors
are retried belongs to `retry`.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from urllib3.exceptions import LocationParseError, LocationValueError
from urllib3.util import parse_url

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable


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
        remedy="try again later; check this machine's network if it lasts",
    )


def require_url(what: str, url: str) -> None:
    """Raise `ArchiveError`, without showing it, when nothing can be read from a URL."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise _no_url(what) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise _no_url(what)


def permanent(what: str, url: str, error: Exception) -> ArchiveError | None:
    """The `ArchiveError` for a permanent error; None for a transient one."""
    if isinstance(error, LocationValueError):
        return _no_url(what)
    certificate = _certificate_error(error)
    if certificate is None:
        return None
    return ArchiveError(
        f"{what} cannot be read from {host(url)}: its certificate is not accepted",
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


def _certificate_error(error: object, depth: int = 8) -> ssl.SSLCertVerificationError | None:
    """The failed verification inside the errors of urllib3 and requests that wrap it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error
    if not isinstance(error, BaseException) or depth == 0:
        return None
    inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
    found = (_certificate_error(each, depth - 1) for each in inner)
    return next((each for each in found if each is not None), None)


class NotFound(ArchiveError):
    """Missing on the server (HTTP status 404)."""


def refused(what: str, url: str, status: int, key: str | None = None) -> ArchiveError:
    """The error for a permanent refusal; ``key`` names the variable that holds the archive's API key, if it has one."""
    reasons = {401: "not authorized", 403: "access refused", 404: "not found", 410: "gone"}
    closed = f"set {key} if the source is not public" if key else "look at the archive's web page: is it still public?"
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
        remedy=default.get(status, "look at the archive's web page; the request is not accepted"),
    )
