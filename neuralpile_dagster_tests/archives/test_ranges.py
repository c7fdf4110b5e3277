"""The ranged reader and its server: what is fetched, what is believed, what is cleaned up."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import h5py
import numpy as np
import pytest
import urllib3

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DamagedRecording
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.ranges import NoRanges, RemoteObject, require_bytes, require_whole
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy
from neuralpile_dagster.recordings.nwb.annotations import open_annotations
from neuralpile_dagster_tests.fixtures.archives import QUICK
from neuralpile_dagster_tests.fixtures.bucket import TIMES, Bucket, assert_same, dataset, ranged, read, write
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.http import Request, Response, Server
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb


def test_only_the_bytes_of_the_dataset_are_fetched_besides_a_little_metadata(bucket_server: Server, bucket: Bucket):
    def make(file: h5py.File) -> None:
        for name in ("a", "x", "b"):
            file[name] = np.tile(TIMES, 6)

    write(bucket.path, make)
    cost = assert_same(bucket_server)
    needed = TIMES.nbytes * 6
    assert needed <= cost.bytes_read <= needed + 2 * 2**20
    assert cost.requests == len(bucket_server.log)
    assert cost.bytes_read == sum(entry[3] for entry in bucket_server.log)
    assert cost.retries == 0


def scattered(file: h5py.File) -> None:
    """A column that grew: the nodes of its index lie among its chunks."""
    many = np.random.default_rng(2).uniform(0, 1, 1_500_000)
    x = file.create_dataset("x", (0,), "f8", maxshape=(None,), chunks=(512,), compression="gzip")
    for start in range(0, len(many), 50_000):
        x.resize((start + 50_000,))
        x[start:] = many[start : start + 50_000]


def test_of_a_scattered_index_and_its_data_nothing_is_fetched_twice(bucket_server: Server, bucket: Bucket):
    write(bucket.path, scattered)
    size = bucket.path.stat().st_size
    for walk_before in (False, True):
        with ranged(bucket_server) as opened, opened.hdf5() as file:
            if walk_before:
                file["x"].id.get_storage_size()
            opened.read(file["x"])
        assert opened.cost.bytes_read <= 1.1 * size
        assert opened.cost.requests <= 2 + 1.1 * size / 2**20
    assert_same(bucket_server)


def test_a_walk_through_a_scattered_index_is_read_ahead_in_parallel(bucket_server: Server, bucket: Bucket):
    write(bucket.path, scattered)
    answer, lock, now, most = bucket_server.application, threading.Lock(), 0, 0

    def count(request: Request) -> Response:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return answer(request)

    with ranged(bucket_server) as opened, opened.hdf5() as file:
        column = file["x"]
        bucket_server.application = count
        column.id.get_storage_size()  # one call of HDF5, which reads one node after the other
    assert 2 <= most <= 4  # the number of connections


@pytest.mark.parametrize("connections", [1, 2, 16])
def test_any_number_of_connections_gives_the_same_values(bucket_server: Server, bucket: Bucket, connections: int):
    write(bucket.path, dataset(data=np.tile(TIMES, 5), chunks=(400_000,), compression="gzip", shuffle=True))
    found, _ = read(bucket_server, connections=connections)
    np.testing.assert_array_equal(found, np.tile(TIMES, 5))


def test_values_outside_the_file_are_refused_not_replaced_by_fill_values(bucket_server: Server, bucket: Bucket):
    outside = bucket.path.with_name("outside.raw")
    outside.write_bytes(TIMES.tobytes())

    def make(file: h5py.File) -> None:
        file.create_dataset("x", TIMES.shape, "f8", external=[(str(outside), 0, TIMES.nbytes)])
        layout = h5py.VirtualLayout(TIMES.shape, "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", TIMES.shape)
        file.create_virtual_dataset("v", layout)

    write(bucket.path, make)
    for name in ("x", "v"):
        with pytest.raises(DamagedRecording, match="outside the file"):
            read(bucket_server, name)


def test_what_is_not_hdf5_is_named(bucket_server: Server, bucket: Bucket):
    for content in (b"not HDF5 at all" * 1000, b"\x89HDF\r\n\x1a\n" + bytes(4000)):
        bucket.path.write_bytes(content)
        with (
            ranged(bucket_server) as opened,
            pytest.raises(DamagedRecording, match=r"file\.h5 cannot be opened as HDF5"),
        ):
            opened.hdf5()


def test_chunks_that_do_not_inflate_are_fetched_twice_and_then_named(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset(chunks=(30_000,), compression="gzip"))
    with h5py.File(bucket.path) as file:
        info = file["x"].id.get_chunk_info(3)
    content = bytearray(bucket.path.read_bytes())
    content[info.byte_offset + info.size // 2] ^= 0xFF
    bucket.path.write_bytes(content)
    with pytest.raises(DamagedRecording, match="x cannot be decoded"):
        read(bucket_server)


def test_a_truncated_object_is_named(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset())
    whole = bucket.path.stat().st_size
    bucket.path.write_bytes(bucket.path.read_bytes()[:-1000])
    with pytest.raises(ArchiveError, match="not the file that was listed"):
        read(bucket_server, size=whole)
    with pytest.raises(DamagedRecording):  # as listed, but HDF5 itself says that it should be longer
        read(bucket_server)


def test_an_object_replaced_while_it_is_read_is_noticed(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset())
    for bucket.obeys_if_match in (True, False):
        bucket.etag = "v1"
        with ranged(bucket_server) as opened, opened.hdf5() as file:
            bucket.etag = "v2"
            with pytest.raises(ArchiveError, match="changed while it was read") as caught:
                opened.read(file["x"])
            assert not isinstance(caught.value, ArchiveUnavailable)


def test_every_request_but_the_first_is_pinned_to_the_etag(bucket_server: Server, bucket: Bucket):
    seen: list[str | None] = []
    write(bucket.path, dataset())
    answer = bucket_server.application

    def look(request: Request) -> Response:
        seen.append(request.headers.get("if-match"))
        return answer(request)

    look.path = bucket.path  # type: ignore[attr-defined]
    bucket_server.application = look
    assert_same(bucket_server)
    assert seen[0] is None
    assert set(seen[1:]) == {'"v1"'}


def test_a_server_that_ignores_ranges_is_not_believed(bucket_server: Server, bucket: Bucket):
    write(bucket.path, lambda file: (dataset()(file), file.create_dataset("more", data=TIMES)))
    bucket.change = lambda response: Response(200, {"ETag": '"v1"'}, bucket.path.read_bytes())
    with pytest.raises(NoRanges, match="cannot be read by byte ranges"):
        read(bucket_server, limits=replace(QUICK, attempts=1))


@pytest.mark.parametrize("shift", [1, -1, 4096])
def test_bytes_of_another_place_are_not_believed(bucket_server: Server, bucket: Bucket, shift: int):
    write(bucket.path, dataset())

    def change(response: Response) -> Response:
        first, last = (int(n) for n in response.headers["Content-Range"][6:].split("/")[0].split("-"))
        size = bucket.path.stat().st_size
        return Response(
            206,
            response.headers | {"Content-Range": f"bytes {first + shift}-{last + shift}/{size}"},
            bucket.path.read_bytes()[max(first + shift, 0) : last + shift + 1],
        )

    bucket.change = change
    with pytest.raises(NoRanges, match="Content-Range"):
        read(bucket_server, limits=replace(QUICK, attempts=1))


def test_a_transfer_that_is_too_slow_is_broken_off_and_goes_on_where_it_was(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset())
    bucket_server.bytes_per_s = 4e6  # 1.6 MB take 0.4 s, with bytes arriving all the time
    limits = RetryPolicy(read_timeout_s=0.1, slowest_bytes_per_s=1e9, attempts=21, backoff_s=0.01)
    found, cost = read(bucket_server, connections=1, limits=limits)
    np.testing.assert_array_equal(found, TIMES)
    assert cost.retries >= 2


def test_a_failure_that_hdf5_swallows_still_ends_the_reading(bucket_server: Server, bucket: Bucket):
    write(bucket.path, lambda file: (dataset(data=np.tile(TIMES, 4))(file), file.create_dataset("g/units", data=1)))
    with pytest.raises(ArchiveUnavailable), ranged(bucket_server) as opened, opened.hdf5() as file:
        bucket_server.faults.add(status(503, times=1000))
        with suppress(ArchiveUnavailable):  # as if it had been lost on the way
            _ = file["g/units"]
    assert bucket_server.faults.struck


def test_reading_many_files_leaves_no_thread_and_no_paused_collection(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset(chunks=(30_000,), compression="gzip"))
    before = threading.active_count()
    bucket_server.faults.add(Fault("reset", skip=7))
    for _ in range(5):
        assert_same(bucket_server)
    with ranged(bucket_server) as first, ranged(bucket_server) as second:
        assert not gc.isenabled()
        assert first.hdf5() and second.hdf5()  # not closed by us
    assert gc.isenabled()
    mine = [thread for thread in threading.enumerate() if thread.name.startswith(("fetch", "decode"))]
    assert not mine
    assert threading.active_count() <= before + 40  # the test server keeps a thread per open connection


CRASH = """
import sys
from pathlib import Path
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.hdf5.ranged import open_ranged
from neuralpile_dagster.net.ranges import RemoteObject
url, size = sys.argv[1], int(sys.argv[2])
remote = RemoteObject("file.h5", size, url, lambda: url, Connections(2, RetryPolicy(attempts=1)))
with open_ranged(remote, Path, connections=2) as opened:
    opened.hdf5()
"""


@pytest.mark.parametrize("fault", [status(503), None])
def test_a_file_that_does_not_open_does_not_crash_the_interpreter_at_its_exit(
    bucket_server: Server, bucket: Bucket, fault: Fault | None
):
    bucket.path.write_bytes(b"not HDF5 at all" * 1000)
    if fault is not None:
        bucket_server.faults.add(fault)
    command = [sys.executable, "-c", CRASH, f"{bucket_server.url}/x", str(bucket.path.stat().st_size)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ArchiveUnavailable" in finished.stderr or "DamagedRecording" in finished.stderr
    assert finished.returncode == 1


def test_annotations_are_read_without_the_spikes_and_waveforms_beside_them(bucket_server: Server, bucket: Bucket):
    columns = {f"metric_{k}": [float(k)] * 3 for k in range(25)}
    trials = {name: [float(k) for k in range(500)] for name in ("contrast", "delay", "response")}
    write_units_nwb(
        bucket.path,
        [np.linspace(0, 1_000, 500_000)] * 3,
        columns={**columns, "waveform_mean": [np.zeros((500, 400))] * 3},
        intervals={
            name: {"start_time": trials["delay"], "stop_time": trials["delay"], "columns": trials}
            for name in ("epochs", "trials", "flashes_presentations")
        },
    )
    with ranged(bucket_server) as opened, open_annotations([opened]) as found:
        assert sum(len(table.start_time) for table in found.intervals()) == 1_500
        assert {metric.name for _, metric in found.unit_metrics()} == set(columns)
    assert bucket.path.stat().st_size > 16_000_000
    assert opened.cost.bytes_read < 3_000_000
    assert opened.cost.requests < 10


def response(status: int, **headers: str) -> urllib3.HTTPResponse:
    """A response with these headers; ``_`` stands for ``-``."""
    return urllib3.HTTPResponse(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (100, response(206, Content_Range="bytes 100-999/1000")),
        (100, response(206, Content_Range="bytes 100-999/*", Content_Encoding="identity")),
        (0, response(200, Content_Length="1000")),
    ],
)
def test_a_response_of_the_range_or_of_the_whole_that_was_requested_is_one(
    start: int, found: urllib3.HTTPResponse
) -> None:
    require_bytes("x", 1000, found, start, 1000)


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (100, 1000, response(200, Content_Length="1000")),
        (0, 500, response(200, Content_Length="1000")),
        (0, 1000, response(200, Content_Length="900")),
        (0, 1000, response(200, Content_Range="bytes 0-999/1000")),
        (0, 500, response(206, Content_Range="bytes 0-499/1000", Content_Encoding="gzip")),
        (0, 500, response(206)),
        (0, 500, response(206, Content_Range="bytes 1-499/1000")),
        (0, 500, response(206, Content_Range="bytes 0-498/1000")),
        (0, 500, response(206, Content_Range="bytes */1000")),
    ],
)
def test_a_response_of_other_bytes_is_no_range(start: int, stop: int, found: urllib3.HTTPResponse) -> None:
    with pytest.raises(NoRanges, match="cannot be read by byte ranges"):
        require_bytes("x", 1000, found, start, stop)


@pytest.mark.parametrize("found", [response(416), response(206, Content_Range="bytes 0-499/1001")])
def test_a_response_of_an_object_of_another_size_is_of_another_object(found: urllib3.HTTPResponse) -> None:
    with pytest.raises(ArchiveError, match="not the file that was listed") as caught:
        require_bytes("x", 1000, found, 0, 500)
    assert not isinstance(caught.value, NoRanges)


@pytest.mark.parametrize(
    ("found", "is_whole"),
    [
        (response(200, Content_Length="1000"), True),
        (response(200), True),
        (response(206, Content_Length="1000"), False),
        (response(200, Content_Length="999"), False),
        (response(200, Content_Length="1000", Content_Encoding="gzip"), False),
    ],
)
def test_a_whole_file_has_the_listed_size_and_is_not_encoded(found: urllib3.HTTPResponse, is_whole: bool) -> None:
    with nullcontext() if is_whole else pytest.raises(AttemptFailed, match="instead of the file's 1,000 bytes"):
        require_whole(1000, found)


def test_a_weak_etag_pins_the_object_without_if_match(bucket_server: Server, bucket: Bucket) -> None:
    bucket.path.write_bytes(bytes(200))
    bucket.change = lambda response: replace(response, headers=response.headers | {"ETag": 'W/"v1"'})
    url, conditions = f"{bucket_server.url}/x", []
    bucket_server.application = lambda request: conditions.append(request.headers.get("if-match")) or bucket(request)
    remote = RemoteObject("x", 200, url, lambda: url, Connections(1, QUICK))
    for start in (0, 100):
        remote.read_into(start, memoryview(bytearray(100)))
    assert (remote.etag, conditions) == ('W/"v1"', [None, None])
    bucket.change = lambda response: replace(response, headers=response.headers | {"ETag": 'W/"v2"'})
    with pytest.raises(ArchiveError, match="changed while it was read"):
        remote.read_into(0, memoryview(bytearray(100)))
    remote.close()


def test_a_stopped_object_gives_no_further_block_of_a_response(bucket_server: Server, bucket: Bucket) -> None:
    bucket.path.write_bytes(bytes(1 << 20))
    url = f"{bucket_server.url}/x"
    remote = RemoteObject("x", 1 << 20, url, lambda: url, Connections(1, QUICK))
    blocks = remote._stream(url, 0, 1 << 20)
    next(blocks)
    remote.stop()
    for stopped in (blocks, remote._stream(url, 0, 1 << 20)):
        with pytest.raises(AttemptFailed, match="reading was stopped"):
            next(stopped)
    assert len(bucket_server.log) == 1
    remote.close()


def test_a_transfer_that_advances_gets_all_its_attempts_again(bucket_server: Server, bucket: Bucket) -> None:
    bucket.path.write_bytes(bytes(range(256)) * 4096)
    bucket_server.faults.add(Fault("short_body", times=5))  # each time half of what was missing arrives
    url, content = f"{bucket_server.url}/x", bytearray(1 << 20)
    remote = RemoteObject("x", 1 << 20, url, lambda: url, Connections(1, QUICK))
    remote.read_into(0, memoryview(content))
    remote.close()
    assert content == bucket.path.read_bytes()
    assert len(bucket_server.faults.struck) == 5 > QUICK.attempts


def test_a_url_that_another_thread_renewed_is_not_renewed_again() -> None:
    fresh = iter(("third", "fourth"))
    remote = RemoteObject("x", 1, "second", lambda: next(fresh), Connections(1, QUICK))
    for seen, url in (("first", "second"), ("second", "third"), ("second", "third")):
        remote._renew(seen)
        assert remote._url == url
    remote.close()
