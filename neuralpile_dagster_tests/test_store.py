"""What every store keeps to, on a folder and on S3 over HTTP."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import DiskFull, StoreError
from neuralpile_dagster.files import DigestWriter
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import (
    Store,
    digest_of,
    fetch,
    is_intact,
    map_items,
    open_store,
    open_verified,
    put_file,
    put_stream,
    read_record,
    write_record,
)
from neuralpile_dagster.tables.rows import RowReader, RowWriter
from neuralpile_dagster_tests.fixtures.commands import start
from neuralpile_dagster_tests.fixtures.stores import put
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.s3 import S3Server


@pytest.fixture(params=["folder", "s3", "s3 without a prefix"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of an empty store, and the environment to use it."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    server.use(patch)
    return f"s3://{server.new_bucket()}" + ("/some/prefix" if request.param == "s3" else "")


@pytest.fixture
def store(location: str) -> Store:
    return open_store(location)


def test_what_is_written_is_read_back(store: Store, location: str):
    put(store, "a/b=1+2_c.bin", b"0123456789")
    assert store.read("a/b=1+2_c.bin") == b"0123456789"
    assert store.size("a/b=1+2_c.bin") == 10
    assert store.uri("a/b=1+2_c.bin") == f"{location}/a/b=1+2_c.bin"
    with store.open("a/b=1+2_c.bin") as file:
        assert file.size() == 10
        assert file.read_at(3, 6) == b"678"
        file.seek(0)
        assert file.read() == b"0123456789"


def test_an_empty_file_is_a_file(store: Store):
    put(store, "a/empty", b"")
    assert store.size("a/empty") == 0
    assert store.read("a/empty") == b""
    with store.open("a/empty") as file:
        assert file.read() == b""


def test_what_is_not_there_is_said_to_be_missing(store: Store):
    assert store.size("a/b") is None
    assert store.read("a/b") is None
    assert list(store.keys("a")) == []
    with pytest.raises(StoreError, match="is not in the store; what to do: materialize"):
        store.open("a/b")


def test_a_key_appears_when_it_is_complete_and_not_before(store: Store):
    with store.writing("a/b") as path:
        path.write_bytes(b"half")
        assert store.size("a/b") is None
        assert list(store.keys("a")) == []
    assert list(store.keys("a")) == ["a/b"]


def test_a_replaced_key_is_the_old_one_until_the_new_one_is_complete(store: Store):
    put(store, "a/b", b"old")
    with store.writing("a/b") as path:
        path.write_bytes(b"newer")
        assert store.read("a/b") == b"old"
    assert store.read("a/b") == b"newer"


def test_nothing_appears_when_the_writer_raises(store: Store):
    put(store, "a/old", b"old")
    for key in ("a/new", "a/old"):
        with pytest.raises(ZeroDivisionError), store.writing(key) as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError
    assert list(store.keys("a")) == ["a/old"]
    assert store.read("a/old") == b"old"


def test_keys_are_those_below_a_folder_in_the_order_of_their_characters(store: Store):
    for key in ("a/b/2", "a/b/10", "a/b-c/1", "a/b.d", "ab/1", "b"):
        put(store, key, b"x")
    assert list(store.keys("a")) == ["a/b-c/1", "a/b.d", "a/b/10", "a/b/2"]
    assert list(store.keys("a/b")) == ["a/b/10", "a/b/2"]


def test_deleting_removes_a_key_and_is_content_when_there_is_none(store: Store):
    put(store, "a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.size("a/b") is None


def test_the_longest_key_fits_the_file_system(store: Store):
    key = "/".join(["a" * 240, "b" * 240, "c" * 118])
    put(store, key, b"x")
    assert list(store.keys("a" * 240)) == [key]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 1100)), max_size=4))
def test_random_reads_give_the_bytes_that_are_there(store: Store, steps: list[tuple[int, int]]):
    content = np.random.default_rng(0).bytes(1000)
    if store.size("a/b") is None:  # once for all examples
        put(store, "a/b", content)
    with store.open("a/b") as file:
        for offset, length in steps:
            file.seek(offset)
            assert file.read(length) == content[offset : offset + length]
            assert file.tell() == max(offset, min(offset + length, 1000))


def test_two_writers_of_one_key_leave_one_whole_file(store: Store):
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    both = threading.Barrier(2)

    def write(content: bytes) -> None:
        for _ in range(5):
            with store.writing("a/b") as path:
                path.write_bytes(content)
                both.wait()

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("a/b") in contents
    assert list(store.keys("a")) == ["a/b"]


WRITE_AND_WAIT = """
import sys, time
from neuralpile_dagster.store import open_store
with open_store(sys.argv[1]).writing("a/b") as path:
    path.write_bytes(bytes(17 * 1024**2))
    print("written", flush=True)
    if sys.argv[1].startswith("/"):
        time.sleep(60)
"""


def test_nothing_appears_when_the_writer_is_killed_in_the_middle(
    store: Store, location: str, s3: S3Server, tmp_path: Path
):
    # on S3 the upload's second part never gets its answer; in a folder the file is never renamed
    s3.front.faults.add(Fault("hang", method="PUT", path="partNumber=2"))
    struck = len(s3.front.faults.struck)
    command = [sys.executable, "-c", WRITE_AND_WAIT, location]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with tempfile.TemporaryFile() as said:
        writer = start(command, environment, tmp_path, said, said)
        while os.pread(said.fileno(), 1000, 0) != b"written\n" or (
            location.startswith("s3") and len(s3.front.faults.struck) == struck
        ):
            assert writer.poll() is None, os.pread(said.fileno(), 1000, 0)
            time.sleep(0.01)
        writer.kill()
        writer.wait()
    assert store.size("a/b") is None
    assert list(store.keys("a")) == []
    s3.front.faults.clear()
    put(store, "a/b", b"again")
    assert store.read("a/b") == b"again"


def test_a_stream_is_stored_with_the_digest_of_what_was_written_or_not_at_all(store: Store):
    def write(stream: DigestWriter) -> int:
        stream.write(b"a")
        return stream.write(memoryview(b"bc"))

    stored, returned = put_stream(store, "a/b", write)
    assert returned == 2
    assert (stored.size, stored.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert store.read("a/b") == b"abc"

    def fail(stream: DigestWriter) -> None:
        stream.write(b"half")
        raise ValueError

    with pytest.raises(ValueError):
        put_stream(store, "a/b", fail)
    assert store.read("a/b") == b"abc"


def stored_long_ago(store: Store, key: str, content: bytes) -> StoredFile:
    """Store a file whose last write lies further back than the file system's clock is exact."""

    def write(stream: DigestWriter) -> None:
        stream.write(content)
        stream.flush()
        past = time.time_ns() - 10**9
        os.utime(stream.path, ns=(past, past))

    return put_stream(store, key, write)[0]


def test_what_this_process_wrote_is_not_read_for_its_digest_until_somebody_writes_there(tmp_path: Path):
    store = open_store(str(tmp_path))
    file = stored_long_ago(store, "a.bin", b"0123456789")
    path = Path(store.uri("a.bin"))
    state = path.stat()
    assert (store.remembers(file), digest_of(store, file)) == (True, file.sha256)
    assert not store.remembers(file.model_copy(update={"sha256": "00"}))
    assert not open_store(str(tmp_path)).remembers(file)  # as in another process: it is read there
    time.sleep(0.03)  # of the time of before, only `st_ctime` tells it
    with path.open("r+b") as stream:  # in place, of the same size, and with the time of before
        stream.write(b"x")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not store.remembers(file)
    assert digest_of(store, file) == hashlib.sha256(b"x123456789").hexdigest()
    path.write_bytes(b"0123456789")
    file = stored_long_ago(store, "a.bin", b"0123456789")
    assert store.remembers(file)
    os.link(path, tmp_path / "kept")  # so that its inode is not given to the next file
    (tmp_path / "other").write_bytes(b"0123456789")
    os.utime(tmp_path / "other", ns=(state.st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "other").replace(path)
    assert not store.remembers(file)
    path.unlink()
    assert not store.remembers(file)


def test_what_was_written_a_moment_ago_is_read_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("neuralpile_dagster.store.CLOCK_STEP_NS", 10**12)
    store = open_store(str(tmp_path))
    file = stored_long_ago(store, "a.bin", b"0123456789")
    assert not store.remembers(file)
    assert digest_of(store, file) == file.sha256


def test_a_file_of_another_writer_is_not_taken_for_ours(tmp_path: Path):
    store = open_store(str(tmp_path))
    ours = stored_long_ago(store, "a.bin", b"0123456789")
    written = Path(store.uri("a.bin")).stat()
    other = stored_long_ago(open_store(str(tmp_path)), "a.bin", b"9876543210")
    store.remember(ours, written)
    assert not store.remembers(ours)
    assert digest_of(store, ours) == other.sha256


def test_what_s3_keeps_is_read_for_its_digest(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    s3.use(monkeypatch)
    store = open_store(f"s3://{s3.new_bucket()}")
    file = stored_long_ago(store, "a.bin", b"0123456789")
    assert not store.remembers(file)
    put(store, "a.bin", b"9876543210")
    assert digest_of(store, file) == hashlib.sha256(b"9876543210").hexdigest()


def test_a_file_is_stored_with_its_size_and_digest(store: Store):
    stored, returned = put_file(store, "a/b", lambda path: path.write_bytes(b"abc"))
    assert returned == 3
    assert stored == StoredFile(
        key="a/b", size=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert is_intact(store, stored)
    put(store, "a/b", b"longer")
    assert not is_intact(store, stored)
    store.delete("a/b")
    assert not is_intact(store, stored)


def test_a_copy_that_does_not_fit_is_refused_with_the_place_where_it_was_to_be(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.use(monkeypatch)
    store = open_store(f"s3://{s3.new_bucket()}")
    stored, _ = put_file(store, "a/b", lambda path: path.write_bytes(b"0123456789"))
    monkeypatch.setattr("neuralpile_dagster.files.free_bytes", lambda path: 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DiskFull, match=f"a copy of a/b at {tmp_path}/c; found: 10 bytes available"):
        fetch(store, stored, tmp_path / "c")
    with pytest.raises(DiskFull, match=f"a copy of a/b at {tmp_path}; found: 10 bytes available"):
        open_verified(store, stored)
    assert not list(tmp_path.iterdir())


def test_a_record_is_itself_again_and_another_document_is_refused(store: Store):
    record = StoredFile(key="a/b", size=3, sha256="0")
    write_record(store, "a/r.json", record)
    assert read_record(store, "a/r.json", StoredFile) == record
    assert read_record(store, "a/none.json", StoredFile) is None
    put(store, "a/r.json", b'{"key": "a/b", "size": 3, "sha256": 0, "surprise": 1}')
    with pytest.raises(StoreError, match=r"r.json is not a StoredFile.*delete that file"):
        read_record(store, "a/r.json", StoredFile)


def test_many_small_things_are_read_in_their_order_and_a_failure_is_raised(store: Store):
    keys = [f"a/{number:02}" for number in range(12)]
    for key in keys:
        put(store, key, key.encode())
    assert map_items(store, store.read, reversed(keys)) == [key.encode() for key in reversed(keys)]
    with pytest.raises(StoreError, match="not a valid key"):
        map_items(store, store.read, [*keys, "../a"])


def test_rows_are_read_from_the_store(store: Store):
    counts = np.random.default_rng(1).poisson(0.1, (5, 1000)).astype(np.uint8)
    with store.writing("a/rows.parquet") as path, RowWriter(path) as writer:
        writer.write(counts, "sub-1", "ses-1", "segment_0")
    with store.open("a/rows.parquet") as file, RowReader(file, "rows") as reader:
        np.testing.assert_array_equal(reader.row(0).counts, counts)


def test_stores_elsewhere_are_refused_without_repeating_what_was_said():
    with pytest.raises(StoreError, match=r"unknown kind of store gs://") as caught:
        open_store("gs://user:password@bucket/x")
    assert "password" not in str(caught.value)
