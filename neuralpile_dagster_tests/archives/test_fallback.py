"""A page of a proxy, or a response without the range, is not final: retries, then the whole file, verified."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.archives.model import Access
from neuralpile_dagster.errors import ArchiveUnavailable, DigestMismatch
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster_tests.fixtures.archives import (
    BLOBS,
    QUICK,
    SOURCE,
    archive_of,
    counts,
    only_file,
    read_counts,
)
from neuralpile_dagster_tests.fixtures.bucket import Bucket
from neuralpile_dagster_tests.servers.dandi_server import DandiServer
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.http import Server

ALWAYS = 10_000
BOTH: tuple[Access, ...] = ("ranges", "download")
PAGE = Fault(
    "status",
    status=200,
    headers=(("Content-Type", "text/html"),),
    body=b"<html><body>Please log in to the network</body></html>",
    path=BLOBS,
)


def whole_requests(served: DandiServer, size: int) -> int:
    """Number of responses that were a whole file."""
    return sum(entry[3] == size for entry in served.http.requests("GET", "/blobs/"))


@pytest.mark.parametrize("access", BOTH)
@pytest.mark.parametrize("skip", [0, 2])
def test_one_page_of_a_proxy_instead_of_the_range_is_only_a_failed_attempt(
    served: DandiServer, right: np.ndarray, tmp_path: Path, skip: int, access: Access
) -> None:
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    served.faults.add(Fault(**{**vars(PAGE), "skip": skip}))
    found, cost = read_counts(archive, access, file)
    np.testing.assert_array_equal(found, right)
    assert cost.retries >= 1
    assert whole_requests(served, file.size) == 0


@pytest.mark.parametrize("access", BOTH)
def test_a_server_that_ignores_ranges_is_read_whole_and_verified_and_the_log_says_so(
    served: DandiServer, right: np.ndarray, tmp_path: Path, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    served.store.ranges = False
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    with archive.open(SOURCE, file, access) as opened:
        np.testing.assert_array_equal(counts(opened), right)
        assert not opened.unverified
        assert opened.cost.bytes_read >= file.size
    (copy,) = (path for path in (tmp_path / "cache").rglob("*.nwb"))
    assert copy.stat().st_size == file.size
    assert ("Reading a verified copy of the whole file instead" in caplog.text) == (access == "ranges")


def test_a_server_that_begins_to_ignore_ranges_while_a_file_is_open_is_read_whole_too(
    served: DandiServer, right: np.ndarray, tmp_path: Path
) -> None:
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    requests = len(served.http.requests("GET", "/blobs/"))
    whole = served.store.blobs[next(iter(served.store.blobs))][1].file
    assert whole is not None
    ignored = Fault("status", status=200, body=whole.read_bytes(), path=BLOBS, skip=requests + 2, times=ALWAYS)
    served.faults.add(ignored)
    found, _ = read_counts(archive, "ranges", file)
    np.testing.assert_array_equal(found, right)


def test_what_a_server_without_ranges_sends_is_not_believed_when_its_digest_differs(
    served: DandiServer, tmp_path: Path
) -> None:
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    served.faults.add(Fault("status", status=200, body=bytes(file.size), path=BLOBS, times=ALWAYS))
    for access in BOTH:
        with pytest.raises(DigestMismatch):
            read_counts(archive, access, file)


@pytest.mark.parametrize("access", BOTH)
def test_a_proxy_that_always_sends_its_page_counts_as_unavailable_and_is_named(
    served: DandiServer, right: np.ndarray, tmp_path: Path, access: Access
) -> None:
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    served.faults.add(Fault(**{**vars(PAGE), "times": ALWAYS}))
    with pytest.raises(ArchiveUnavailable, match=r"status 200 with \d+ bytes of text/html .* instead of the file's"):
        read_counts(archive, access, file)
    served.faults.clear()
    found, _ = read_counts(archive, access, file)
    np.testing.assert_array_equal(found, right)


def test_threads_that_fall_back_together_make_one_copy(bucket: Bucket, bucket_server: Server, tmp_path: Path) -> None:
    bucket.path.write_bytes(bytes(range(200)))
    bucket.change = lambda response: replace(response, status=200)
    remote = RemoteObject("x", 200, f"{bucket_server.url}/x", lambda: "", Connections(2, QUICK))
    made = []

    def make_copy() -> Path:
        made.append(1)
        threading.Event().wait(0.2)  # the other thread waits for this copy by then
        return bucket.path

    remote.fall_back_to(make_copy)
    found = [bytearray(100), bytearray(100)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(remote.read_into, (0, 100), map(memoryview, found)))
    remote.close()
    assert b"".join(found) == bytes(range(200))
    assert made == [1]
