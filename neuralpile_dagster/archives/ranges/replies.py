"""What a server may answer to a request for a range of bytes, and the errors where it answers something else."""

from __future__ import annotations

import re

import urllib3

from neuralpile_dagster.errors import ArchiveError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def require_bytes(name: str, size: int, response: urllib3.BaseHTTPResponse, start: int, stop: int) -> None:
    """Raise `ArchiveError` unless the body is bytes ``start`` to ``stop``, as they are, of an object of ``size``."""
    status, headers = response.status, response.headers
    if status == 416:
        raise changed(name, size, f"no bytes from {start:,} on")
    whole = status == 200 and start == 0 and headers.get("Content-Length") == str(stop) == str(size)
    if status != 206 and not whole:
        raise _no_ranges(name, f"HTTP status {status} to a request for bytes {start}-{stop - 1}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise _no_ranges(name, f"Content-Encoding {headers['Content-Encoding']}")
    if not whole:
        _require_range(name, size, headers.get("Content-Range", ""), start, stop)


def _require_range(name: str, size: int, text: str, start: int, stop: int) -> None:
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is not None and found[3] != "*" and int(found[3]) != size:
        raise changed(name, size, f"{int(found[3]):,} bytes")
    if found is None or int(found[1]) != start or int(found[2]) != stop - 1:
        raise _no_ranges(name, f"Content-Range {text!r} to a request for bytes {start}-{stop - 1}")


def changed(name: str, size: int, found: str) -> ArchiveError:
    """The error for an object that is not the listed one, or not the one that the first answer was of."""
    return ArchiveError(
        f"{name} is not the file that was listed, or changed while it was read",
        found=found,
        expected=f"{size:,} bytes, the same from the first request to the last",
        remedy="materialize the dataset's manifest again, then this session",
    )


def _no_ranges(name: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"{name} cannot be read by byte ranges",
        found=found,
        expected="status 206 with exactly the bytes asked for",
        remedy="fetch the files by hand (`dandi download`) and set NEURALPILE_ARCHIVE to their folder",
    )
