"""Read one remote object by byte ranges, from many threads, checking that every response is the range requested.

Here belong ranges, the pin to one version of the object, and renewed URLs. What the bytes mean belongs to the readers;
position and seeking to `range_file`. Where a server does not serve ranges, bytes come from a copy of the whole object.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.net.http import Connections, get
from neuralpile_dagster.net.retry import (
    AttemptFailed,
    network_errors,
    refused,
    require_url,
    retry_call,
    status_failed,
    unavailable,
    worth_retrying,
)
from neuralpile_dagster.progress import LOG

# statuses when a signed URL has expired or a public one is no longer public (S3: 400 and 403)
_URL_REFUSED = (400, 401, 403, 404, 410)
_MAX_NEW_URLS = 2
_MAX_IGNORED = 3  # a proxy may send a page of its own once; the third response that is not the range is the last
_MAX_CHANGES = 2  # the second time that an object is not the pinned one is the last
_MIN_PIECE, _MAX_PIECE = 1 << 20, 1 << 23
_READ_BYTES = 1 << 18
_ADVANCE = 1 << 16  # a transfer that advanced this far gets all its attempts again


def piece_bytes(n_bytes: int, connections: int) -> int:
    """Into how large pieces to cut ``n_bytes`` that ``connections`` fetch together.

    Three each evens out their speeds; below 1 MiB a request takes longer to answer than to transfer.
    """
    share = -(-n_bytes // (3 * connections))
    return min(max(share, _MIN_PIECE), _MAX_PIECE)


class NoRanges(ArchiveError):
    """The server does not serve byte ranges of an object."""


class _UrlRefused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Changed(Exception):
    """The response is of another object."""


class RemoteObject:
    """An object of known size, pinned to the ETag of its first response.

    Parameters
    ----------
    name, size : str, int
        Path of the file (for messages) and its bytes, as listed.
    url : str or None
        Where it is; None to call ``resolve`` first.
    resolve : callable
        Returns a fresh URL (a signed one may expire). May raise `ArchiveError`.
    connections : Connections
        Shared with the archive's other files; used from now on until `close`.
    key : str or None
        Name of the variable with the archive's API key, for messages.

    Attributes
    ----------
    cost : ReadCost
        Bytes, requests and retries so far; ``seconds`` is left to the callers, who wait.
    """

    def __init__(
        self,
        name: str,
        size: int,
        url: str | None,
        resolve: Callable[[], str],
        connections: Connections,
        key: str | None = None,
    ) -> None:
        self.name = name
        self.size = size
        self.cost = ReadCost()
        self._resolve = resolve
        self._key = key
        self._connections = connections
        self._limits = connections.limits
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._stopping = threading.Event()
        self._waiting = False
        self._next_request = 0.0  # when the server, which has asked to wait, wants it at the earliest
        self._url = url
        self._pin: str | None = None
        self._make_copy: Callable[[], Path] | None = None
        self._copy: Path | None = None
        self._copying = threading.Lock()
        connections.join(self)

    @property
    def etag(self) -> str | None:
        """The ETag of the first response, as sent; None before it, and where the server sends none."""
        return self._pin

    def fall_back_to(self, make_copy: Callable[[], Path]) -> None:
        """Read from a verified copy of the whole object when the server serves no ranges of it.

        Not with a policy of one attempt, whose first response is final.
        """
        if self._limits.attempts > 1:
            self._make_copy = make_copy

    @property
    def is_copied(self) -> bool:
        """Whether bytes come from a verified copy of the whole object."""
        return self._copy is not None

    def stop(self) -> None:
        """Let every running `read_into` fail soon: no more waiting, no more retries."""
        self._stopping.set()

    def close(self) -> None:
        """Stop reading; connections are closed when no other file uses them."""
        self._connections.leave(self)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside as time that the caller waited for this object; nested: once."""
        if self._waiting:
            yield
            return
        self._waiting = True
        began = time.monotonic()
        try:
            yield
        finally:
            self._waiting = False
            self._count(seconds=time.monotonic() - began)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` (bytes) with the bytes from ``start`` on.

        Raises
        ------
        ArchiveUnavailable
            Network or server errors in all attempts.
        NoRanges
            The server serves no ranges, and there is nothing to fall back to.
        ArchiveError
            The object is gone, not readable, not the listed one, or changed while it was read.
        """
        if self._copy is None:
            try:
                self._read_ranges(start, target)
                return
            except NoRanges as refusal:
                copy = self._fall_back(refusal)
        else:
            copy = self._copy
        with copy.open("rb") as file:
            file.seek(start)
            file.readinto(target)

    def _fall_back(self, refusal: NoRanges) -> Path:
        """Make the copy once, whichever thread needs it first; raises ``refusal`` when there is no way to."""
        if self._make_copy is None:
            raise refusal
        with self._copying:
            if self._copy is None:
                LOG.warning("%s Reading a verified copy of the whole file instead.", refusal)
                self._copy = self._make_copy()
            return self._copy

    def save_whole(self, path: Path) -> None:
        """Write the whole object to ``path`` with one request, for servers that do not serve ranges.

        What arrives is as long as listed, but not verified. Errors as `read_into`.
        """

        def attempt() -> None:
            url = self._where()
            try:
                with path.open("wb") as target, self._connections.slot():
                    for block in self._stream(url, 0, self.size, whole=True):
                        target.write(block)
            except _UrlRefused as refusal:
                raise refused(self.name, url, refusal.status, self._key) from refusal

        self._retry(attempt)

    def _retry(self, attempt: Callable[[], None]) -> None:
        """Call ``attempt`` until it succeeds; raises `ArchiveUnavailable` after the last time, or when stopped."""
        try:
            retry_call(attempt, self.name, self._limits, sleep=self._stopping.wait, stop=self._stopping.is_set)
        except AttemptFailed as failure:
            raise unavailable(self.name, self._url or "", failure.reason, self._limits.attempts) from failure

    def _read_ranges(self, start: int, target: memoryview) -> None:
        done = attempts = new_urls = changes = ignored = 0

        def read_on() -> None:
            """Read what is missing; returns early where the next attempt may begin at once, with all its retries."""
            nonlocal done, attempts, new_urls, changes, ignored
            self._stopping.wait(self._next_request - time.monotonic())
            url, before = self._where(), done
            self._count(retries=1 if attempts else 0)
            attempts += 1
            try:
                with self._connections.slot():
                    for block in self._stream(url, start + done, start + len(target)):
                        target[done : done + len(block)] = block
                        done += len(block)
            except _UrlRefused as refusal:
                if new_urls == _MAX_NEW_URLS:
                    raise refused(self.name, url, refusal.status, self._key) from refusal
                new_urls += 1
                self._renew(url)
            except _Changed as different:
                changes += 1
                if changes == _MAX_CHANGES:
                    raise changed(self.name, self.size, str(different)) from different
            except NoRanges as refusal:
                ignored += 1
                if ignored >= min(_MAX_IGNORED, self._limits.attempts):
                    raise
                raise AttemptFailed(refusal.found) from refusal
            except AttemptFailed as failure:
                self._hold_back(failure)
                if self._stopping.is_set() or done - before < _ADVANCE:
                    raise

        while done < len(target):
            self._retry(read_on)

    def _hold_back(self, failure: AttemptFailed) -> None:
        """Let the threads of all reads wait as long as the server asks for."""
        seconds = min(failure.retry_after_s, self._limits.retry_after_max_s)
        with self._lock:
            self._next_request = max(self._next_request, time.monotonic() + seconds)

    def _where(self) -> str:
        """The URL, found out when it is first needed."""
        with self._renewing:
            if self._url is None:
                self._url = self._fresh_url()
            require_url(self.name, self._url)
            return self._url

    def _fresh_url(self) -> str:
        self._count(requests=1)
        with self._connections.slot():
            return self._resolve()

    def _stream(self, url: str, start: int, stop: int, *, whole: bool = False) -> Iterator[bytes]:
        self._require_going_on()  # waiting for a slot may have taken long
        headers = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        if self._pin is not None and not self._pin.startswith("W/"):  # If-Match needs a strong ETag (RFC 9110, 13.1.1)
            headers["If-Match"] = self._pin
        began = time.monotonic()
        self._count(requests=1)
        with network_errors(self.name, url):
            response = get(self._connections.pool(url), url, self.name, headers)
        try:
            self._check(response, start, stop, whole)
            done, wanted = 0, stop - start
            while done < wanted:
                with network_errors(self.name, url):
                    # read1: what has arrived; read would wait for all of it, however slowly it comes
                    block = response.read1(min(_READ_BYTES, wanted - done), decode_content=False)
                if not block:
                    raise AttemptFailed(f"the response ended {wanted - done:,} bytes early")
                self._require_going_on()
                done += len(block)
                self._limits.require_pace(time.monotonic() - began, done)
                self._count(bytes_read=len(block))
                yield block
        finally:
            response.close()

    def _require_going_on(self) -> None:
        if self._stopping.is_set():
            raise AttemptFailed("reading was stopped")

    def _check(self, response: urllib3.BaseHTTPResponse, start: int, stop: int, whole: bool) -> None:
        """Raise unless the response's body is exactly bytes ``start`` to ``stop`` of the pinned object."""
        status = response.status
        if worth_retrying(status):
            raise status_failed(status, response.headers)
        if status == 412:
            raise _Changed("HTTP status 412 (another ETag)")
        if status in _URL_REFUSED:
            raise _UrlRefused(status)
        if whole:
            require_whole(self.size, response)
        else:
            require_bytes(self.name, self.size, response, start, stop)
        etag = response.headers.get("ETag")
        with self._lock:
            if self._pin is None:
                self._pin = etag
            pinned = self._pin
        if etag != pinned:
            raise _Changed(f"ETag {etag}, before {pinned}")

    def _renew(self, seen: str) -> None:
        with self._renewing:
            if self._url == seen:  # else another thread was faster
                self._url = self._fresh_url()

    def _count(self, **cost: Any) -> None:
        with self._lock:
            self.cost.add(ReadCost(**cost))


_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def require_bytes(name: str, size: int, response: urllib3.BaseHTTPResponse, start: int, stop: int) -> None:
    """Raise `ArchiveError` unless the body is bytes ``start`` to ``stop``, as they are, of an object of ``size``.

    `NoRanges` when it is something else than a range of an object.
    """
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


def require_whole(size: int, response: urllib3.BaseHTTPResponse) -> None:
    """Raise `AttemptFailed` unless the body can be an object of ``size``, as it is."""
    length = response.headers.get("Content-Length", str(size))
    encoding = response.headers.get("Content-Encoding", "identity")
    if response.status != 200 or length != str(size) or encoding != "identity":
        kind = response.headers.get("Content-Type", "unknown type")
        raise AttemptFailed(
            f"HTTP status {response.status} with {length} bytes of {kind} (encoding {encoding}) instead of the file's "
            f"{size:,} bytes"
        )


def _require_range(name: str, size: int, text: str, start: int, stop: int) -> None:
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is not None and found[3] != "*" and int(found[3]) != size:
        raise changed(name, size, f"{int(found[3]):,} bytes")
    if found is None or int(found[1]) != start or int(found[2]) != stop - 1:
        raise _no_ranges(name, f"Content-Range {text!r} to a request for bytes {start}-{stop - 1}")


def changed(name: str, size: int, found: str) -> ArchiveError:
    """The error for an object that is not the listed one, or not the one of the first response."""
    return ArchiveError(
        f"{name} is not the file that was listed, or changed while it was read",
        found=found,
        expected=f"{size:,} bytes, the same from the first request to the last",
        remedy="materialize the dataset's manifest again, then this session",
    )


def _no_ranges(name: str, found: str) -> NoRanges:
    return NoRanges(
        f"{name} cannot be read by byte ranges",
        found=found,
        expected="status 206 with exactly the bytes requested",
        remedy="download the files (`dandi download`) and set NEURALPILE_ARCHIVE to their folder",
    )
