"""What a server's refusals are called. No error shows more of a URL than its host: signed URLs hold secrets."""

from __future__ import annotations

from urllib.parse import urlsplit

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable


def host(url: str) -> str:
    """Scheme and host of a URL: all of it that may be shown (signed URLs hold secrets)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def unavailable(what: str, url: str, trouble: str, attempts: int) -> ArchiveUnavailable:
    """The error for a server that did not do it after all attempts."""
    return ArchiveUnavailable(
        f"{what} could not be read from {host(url)}",
        found=f"{trouble}, after {attempts} attempts",
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
