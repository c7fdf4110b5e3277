"""Downloads into the cache over HTTP: resumed, verified, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest

from neuralpile_dagster.archives.downloads import DownloadCache, download, local_copy
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DigestMismatch
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster_tests.fixtures.archives import QUICK, listed
from neuralpile_dagster_tests.fixtures.bucket import Bucket
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.http import Server


@pytest.fixture
def served(bucket: Bucket, bucket_server: Server) -> Iterator[ArchiveFile]:
    content = bytes(range(256)) * 40_000  # ten pieces of 1 MiB
    bucket.path.write_bytes(content)
    yield listed(content)


def copy(cache: DownloadCache, server: Server, file: ArchiveFile, connections: int = 2) -> bytes:
    shared = Connections(connections, QUICK)

    def connect() -> RemoteObject:
        return RemoteObject(file.path, file.size, f"{server.url}/x", lambda: f"{server.url}/x", shared)

    with local_copy(cache, file, connect, connections) as opened:
        assert opened.cost.bytes_read <= file.size * 2
        return opened.local_path().read_bytes()


def test_a_download_resumes_by_range_where_it_broke_off(
    bucket: Bucket, bucket_server: Server, served: ArchiveFile, tmp_path: Path
):
    cache = DownloadCache(tmp_path / "cache")
    bucket_server.faults.add(status(503, skip=4, times=1000))
    with pytest.raises(ArchiveUnavailable):
        copy(cache, bucket_server, served)
    bucket_server.faults.clear()
    (partial,) = cache.folder.glob("*/.partial")
    there = partial.stat().st_size
    assert there >= 1 << 20
    bucket_server.log.clear()
    assert copy(cache, bucket_server, served) == bucket.path.read_bytes()
    assert sum(entry[3] for entry in bucket_server.log) == served.size - there


def test_a_download_from_a_changed_object_is_refused(
    bucket: Bucket, bucket_server: Server, served: ArchiveFile, tmp_path: Path
):
    bucket.path.write_bytes(bucket.path.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        copy(DownloadCache(tmp_path / "cache"), bucket_server, served)
    bucket.path.write_bytes(bucket.path.read_bytes() + b"longer")
    with pytest.raises(ArchiveError, match="not the file that was listed"):
        copy(DownloadCache(tmp_path / "cache"), bucket_server, served)


@pytest.mark.parametrize("connections", [1, 8])
def test_pieces_of_a_download_arrive_in_order_whatever_their_number(
    bucket: Bucket, bucket_server: Server, served: ArchiveFile, tmp_path: Path, connections: int
):
    for skip in range(0, 10, 3):
        bucket_server.faults.add(Fault("short_body", skip=skip))
    assert copy(DownloadCache(tmp_path / "cache"), bucket_server, served, connections) == bucket.path.read_bytes()


def test_an_empty_file_is_a_file(bucket: Bucket, bucket_server: Server, tmp_path: Path):
    bucket.path.write_bytes(b"")
    assert copy(DownloadCache(tmp_path / "cache"), bucket_server, listed(b"")) == b""


def test_a_piece_that_cannot_be_read_stops_the_others(tmp_path: Path):
    class Remote:
        size = 8 << 20
        waiting = staticmethod(nullcontext)

        def __init__(self) -> None:
            self.stopped, self.was_stopped = threading.Event(), []
            self.stop = self.stopped.set

        def read_into(self, start: int, target: memoryview) -> None:
            if start == 0:
                raise ArchiveUnavailable("gone")
            self.was_stopped.append(self.stopped.wait(60))

    remote = Remote()
    with pytest.raises(ArchiveUnavailable, match="gone"):
        download(cast(RemoteObject, remote), tmp_path / "x", 2)
    assert False not in remote.was_stopped
