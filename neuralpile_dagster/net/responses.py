"""Read API responses with a time and size limit and parse them as JSON; read listings page by page, with an end.

Here belong bodies of documents. Large files belong to `ranges`, retries to `retry`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, TypeVar

import urllib3

from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy

MAX_BODY_BYTES = 64 * 1024**2
"""Longest response that is read, uncompressed; a page of 1,000 files with their metadata has about 5 MB."""
MAX_PAGES = 1000
"""Pages of one listing; archives give a thousand files a page."""
_READ_BYTES = 1 << 16

Page = TypeVar("Page")


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
