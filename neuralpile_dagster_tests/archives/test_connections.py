"""What an archive's server sees of several files that are open at once."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import requests
import urllib3

from neuralpile_dagster.archives.dandi import _take_body
from neuralpile_dagster.archives.model import Access, ArchiveFile
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster_tests.fixtures.archives import (
    BLOBS,
    QUICK,
    SOURCE,
    archive_of,
    counts,
    local_counts,
    write_session,
)
from neuralpile_dagster_tests.fixtures.bucket import Bucket
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.http import Request, Response, Server

PROBES = [f"sub-1/sub-1_ses-1_probe-{number}.nwb" for number in range(3)]
CONNECTIONS = 4  # of `archive_of`


class Gauge:
    """Counts the requests, of those whose path begins with ``part``, that a server works on at the same time."""

    def __init__(self, server: Server, part: str = "/", seconds: float = 0.02) -> None:
        self._answer, self._lock, self._part = server.application, threading.Lock(), part
        self._seconds = seconds
        self._now = self.most = 0
        server.application = self

    def __call__(self, request: Request) -> Response:
        with self._counted() if request.path.startswith(self._part) else nullcontext():
            return self._answer(request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        threading.Event().wait(self._seconds)
        yield
        with self._lock:
            self._now -= 1


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("session")
    return [write_session(folder / f"{number}.nwb", "gzip", seed=number) for number in range(len(PROBES))]


@pytest.fixture
def server(session: list[Path]) -> Iterator[DandiServer]:
    with dandi_server() as server:
        for path, file in zip(PROBES, session, strict=True):
            server.store.add_file(SOURCE.id, SOURCE.version, path, file)
        yield server


def assert_right(found: list[np.ndarray], session: list[Path]) -> None:
    for each, file in zip(found, session, strict=True):
        np.testing.assert_array_equal(each, local_counts(file))


@pytest.mark.parametrize("access", ["ranges", "download"])
def test_all_files_of_a_session_together_keep_to_the_number_of_connections(
    server: DandiServer, session: list[Path], tmp_path: Path, access: Access
):
    archive = archive_of(server, tmp_path)
    files = archive.list_files(SOURCE).files
    gauge = Gauge(server.http)
    with ExitStack() as stack, ThreadPoolExecutor(len(files)) as threads:
        opened = list(threads.map(lambda file: stack.enter_context(archive.open(SOURCE, file, access)), files))
        found = list(threads.map(counts, opened))
    assert_right(found, session)
    assert 2 <= gauge.most <= CONNECTIONS
    assert server.http.most_connections <= CONNECTIONS + 1  # one to the API


def test_files_that_read_ahead_and_break_off_do_not_block_each_other_on_one_connection(
    server: DandiServer, session: list[Path], tmp_path: Path
):
    archive = archive_of(server, tmp_path, connections=1)
    files = archive.list_files(SOURCE).files
    for skip in range(3, 30, 5):
        server.faults.add(Fault("reset_mid_body", path=BLOBS, skip=skip))
    with ExitStack() as stack:
        opened = [stack.enter_context(archive.open(SOURCE, file)) for file in files]
        handles = [stack.enter_context(file.hdf5()) for file in opened]
        for handle in handles:
            handle["units/spike_times"].id.get_storage_size()  # walks the index
        found = [counts(file) for file in opened]
    assert_right(found, session)
    assert server.faults.struck


def test_connections_are_closed_with_the_last_file_and_not_before(bucket: Bucket, bucket_server: Server):
    bucket.path.write_bytes(bytes(1000))
    url, shared = f"{bucket_server.url}/x", Connections(2, QUICK)
    first, second = (RemoteObject("x", 1000, url, lambda: url, shared) for _ in range(2))
    for remote in (first, second, first):
        remote.read_into(0, memoryview(bytearray(1000)))
    assert bucket_server.most_connections == 1
    pool = shared.pool(url)
    first.close()
    first.close()
    assert len(pool.pools) == 1
    second.read_into(0, memoryview(bytearray(1000)))
    assert bucket_server.most_connections == 1
    second.close()
    assert len(pool.pools) == 0
    third = RemoteObject("x", 1000, url, lambda: url, shared)
    third.read_into(0, memoryview(bytearray(1000)))
    third.close()
    assert len(bucket_server.log) == 5


def test_the_api_is_asked_for_urls_by_one_thread_at_a_time(server: DandiServer, tmp_path: Path):
    archive = archive_of(server, tmp_path)
    files = [file.model_copy(update={"url": None}) for file in archive.list_files(SOURCE).files]
    gauge = Gauge(server.http, "/api/", 0.3)

    def url_of(file: ArchiveFile) -> None:
        with archive.open(SOURCE, file, "download"):
            pass

    with ThreadPoolExecutor(len(files)) as threads:
        list(threads.map(url_of, files))
    assert gauge.most == 1


def test_a_response_whose_body_breaks_off_is_closed():
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError

        read1 = read

    response = requests.Response()
    response.raw = urllib3.HTTPResponse(Broken(), preload_content=False)
    with pytest.raises((ConnectionResetError, urllib3.exceptions.ProtocolError)):
        _take_body("x", response, QUICK)
    assert response.raw.closed
