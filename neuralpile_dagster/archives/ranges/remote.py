"""One object on a server that serves byte ranges: every byte checked for where it belongs, read by many threads."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from neuralpile_dagster.archives.http import get, open_pool
from neuralpile_dagster.archives.http_errors import refused, unavailable
from neuralpile_dagster.archives.model import ReadCost
from neuralpile_dagster.archives.patience import Attempts, Interrupted, NetworkLimits, interruptions, worth_retrying
from neuralpile_dagster.errors import ArchiveError

# what stores answer when a signed URL has expired or a public one is no longer public (S3: 400 and 403)
_URL_REFUSED = (400, 401, 403, 404, 410)
_MAX_NEW_URLS = 2
_MAX_CHANGES = 2  # the second time that an object is not the pinned one is the last
_MIN_PIECE, _MAX_PIECE = 1 << 20, 1 << 23
_READ_BYTES = 1 << 18
_ADVANCE = 1 << 16  # a transfer that got so far before it broke off has a right to all its retries again
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def piece_bytes(n_bytes: int, connections: int) -> int:
    """Into how large pieces to cut ``n_bytes`` that ``connections`` fetch together.

    Three each evens out their speeds; below 1 MiB a request takes longer to answer than to transfer.
    """
    share = -(-n_bytes // (3 * connections))
    return min(max(share, _MIN_PIECE), _MAX_PIECE)


class _UrlRefused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Changed(Exception):
    """The answer is of another object."""


class RemoteObject:
    """An object of known size, pinned to the ETag of its first answer.

    Parameters
    ----------
    name, size : str, int
        Path of the file (for messages) and its bytes, as listed.
    url : str or None
        Where it is; None when ``resolve`` must be asked first.
    resolve : callable
        Gives a fresh URL (a signed one may expire). May raise `ArchiveError`.
    limits : NetworkLimits
    connections : int
        How many requests may be on their way at the same time.

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
        limits: NetworkLimits,
        connections: int,
    ) -> None:
        self.name = name
        self.size = size
        self.cost = ReadCost()
        self._resolve = resolve
        self._limits = limits
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._stopping = threading.Event()
        self._waiting = False
        self._slots = threading.BoundedSemaphore(connections)
        self._url = url
        self._pin: str | None = None
        self._connections = connections
        self._pool: urllib3.PoolManager | None = None

    def stop(self) -> None:
        """Let every running `read_into` fail soon: no more waiting, no more retries."""
        self._stopping.set()

    def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.clear()

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
            Network or server trouble that outlasted all retries.
        ArchiveError
            The object is gone, not readable, not the listed one, or changed while it was read.
        """
        done, attempts, new_urls, changes = 0, self._attempts(), 0, 0
        while done < len(target):
            (url, pool), before = self._where(), done
            try:
                with self._slots:
                    for block in self._stream(pool, url, start + done, start + len(target)):
                        target[done : done + len(block)] = block
                        done += len(block)
            except _UrlRefused as no:
                if new_urls == _MAX_NEW_URLS:
                    raise refused(self.name, url, no.status) from no
                new_urls += 1
                self._renew(url)
            except _Changed as different:
                changes += 1
                if changes == _MAX_CHANGES:
                    raise self._changed(str(different)) from different
            except Interrupted as again:
                if done - before >= _ADVANCE:
                    attempts = self._attempts()
                if self._stopping.is_set() or not attempts.wait(again):
                    raise unavailable(self.name, url, again.trouble, self._limits.retries + 1) from again
            if done < len(target):
                self._count(retries=1)

    def _attempts(self) -> Attempts:
        return Attempts(self.name, self._limits, self._stopping.wait)

    def _where(self) -> tuple[str, urllib3.PoolManager]:
        """The URL and the connections to it, found out when they are first needed."""
        with self._renewing:
            if self._url is None:
                self._count(requests=1)
                self._url = self._resolve()
            if self._pool is None:
                self._pool = open_pool(self._url, self._limits, self._connections)
            return self._url, self._pool

    def _stream(self, pool: urllib3.PoolManager, url: str, start: int, stop: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self._pin is not None and not self._pin.startswith("W/"):  # If-Match needs a strong ETag (RFC 9110, 13.1.1)
            headers["If-Match"] = self._pin
        deadline = time.monotonic() + self._limits.seconds_for(stop - start)
        self._count(requests=1)
        with interruptions():
            response = get(pool, url, headers)
        try:
            self._check(response, start, stop)
            remaining = stop - start
            while remaining:
                with interruptions():
                    block = response.read(min(_READ_BYTES, remaining), decode_content=False)
                if not block:
                    raise Interrupted(f"the answer ended {remaining:,} bytes early")
                if self._stopping.is_set():
                    raise Interrupted("reading was given up")
                if time.monotonic() > deadline:
                    raise Interrupted(f"slower than {self._limits.slowest_bytes_per_s:,.0f} bytes/s")
                remaining -= len(block)
                self._count(bytes_read=len(block))
                yield block
        finally:
            response.close()

    def _check(self, response: urllib3.BaseHTTPResponse, start: int, stop: int) -> None:
        """Raise unless the answer's body is exactly bytes ``start`` to ``stop`` of the pinned object."""
        status = response.status
        if worth_retrying(status):
            raise Interrupted(f"HTTP status {status}", response)
        if status == 412:
            raise _Changed("HTTP status 412 (another ETag)")
        if status in _URL_REFUSED:
            raise _UrlRefused(status)
        if status == 416:
            raise self._changed(f"no bytes from {start:,} on")
        whole = status == 200 and start == 0 and response.headers.get("Content-Length") == str(stop) == str(self.size)
        if status != 206 and not whole:
            raise self._no_ranges(f"HTTP status {status} to a request for bytes {start}-{stop - 1}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._no_ranges(f"Content-Encoding {response.headers['Content-Encoding']}")
        if not whole:
            self._check_range(response.headers.get("Content-Range", ""), start, stop)
        etag = response.headers.get("ETag")
        with self._lock:
            if self._pin is None:
                self._pin = etag
            pinned = self._pin
        if etag != pinned:
            raise _Changed(f"ETag {etag}, before {pinned}")

    def _check_range(self, text: str, start: int, stop: int) -> None:
        found = _CONTENT_RANGE.fullmatch(text.strip())
        if found is None or int(found[1]) != start or int(found[2]) != stop - 1:
            if found is not None and found[3] != "*" and int(found[3]) != self.size:
                raise self._changed(f"{int(found[3]):,} bytes")
            raise self._no_ranges(f"Content-Range {text!r} to a request for bytes {start}-{stop - 1}")
        if found[3] != "*" and int(found[3]) != self.size:
            raise self._changed(f"{int(found[3]):,} bytes")

    def _renew(self, seen: str) -> None:
        with self._renewing:
            if self._url == seen:  # else another thread was faster
                self._count(requests=1)
                self._url = self._resolve()

    def _count(self, **cost: Any) -> None:
        with self._lock:
            self.cost.add(ReadCost(**cost))

    def _changed(self, found: str) -> ArchiveError:
        return ArchiveError(
            f"{self.name} is not the file that was listed, or changed while it was read",
            found=found,
            expected=f"{self.size:,} bytes, the same from the first request to the last",
            remedy="materialize the dataset's manifest again, then this session",
        )

    def _no_ranges(self, found: str) -> ArchiveError:
        return ArchiveError(
            f"{self.name} cannot be read by byte ranges",
            found=found,
            expected="status 206 with exactly the bytes asked for",
            remedy="fetch the files by hand (`dandi download`) and set NEURALPILE_ARCHIVE to their folder",
        )
