"""What only the store on S3 can get wrong when all goes well: reading too much, mixing, its location."""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.errors import DiskFull, StoreError, StoreUnavailable
from neuralpile_dagster.store import map_items, open_store, put_file
from neuralpile_dagster.store import s3 as s3_module
from neuralpile_dagster.store.s3 import S3Store
from neuralpile_dagster.tables.rows import RowReader, RowWriter
from neuralpile_dagster_tests.fixtures.stores import put
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.s3 import SECRET_KEY, S3Server


def test_reading_one_row_group_does_not_download_the_file(s3: S3Server, s3_store: S3Store):
    rng = np.random.default_rng(0)

    def write(path: Path) -> None:
        with RowWriter(path) as writer:
            for number in range(20):
                counts = rng.integers(0, 256, (100, 4_000), dtype=np.uint8)  # does not compress
                writer.write(counts, "sub-1", "ses-1", f"segment_{number}")

    stored, _ = put_file(s3_store, "a/rows.parquet", write)
    del s3.front.log[:]
    with s3_store.open("a/rows.parquet") as file, RowReader(file, "rows") as reader:
        assert reader.row(11).segment_id == "segment_11"
    fetched = [(target, sent) for _, target, _, sent in s3.front.requests("GET")]
    assert sum(sent for _, sent in fetched) < 100 * 4_000 + 128 * 1024 < stored.size / 10
    assert len(fetched) <= 6
    assert all(code == 206 for _, _, code, _ in s3.front.requests("GET"))


def test_more_keys_than_one_reply_holds_are_listed(s3: S3Server, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    keys = [f"a/{number:02}" for number in range(25)]
    for key in keys:
        put(s3_store, key, b"")
    del s3.front.log[:]
    assert list(s3_store.keys("a")) == keys
    assert len(s3.front.requests("GET", "list-type")) == 3


def test_several_records_are_on_their_way_at_once(s3_store: S3Store):
    together = threading.Barrier(4)  # passes only when four are in it

    def look(key: str) -> bytes | None:
        together.wait(timeout=60)
        return s3_store.read(key)

    assert map_items(s3_store, look, [f"a/{number}" for number in range(8)]) == [None] * 8


def test_folders_that_other_programs_make_are_no_keys(s3: S3Server, s3_store: S3Store):
    s3.client.put_object(Bucket=s3_store.bucket, Key="pre/fix/a/", Body=b"")
    s3.client.put_object(Bucket=s3_store.bucket, Key="pre/fix/a/b", Body=b"")
    assert list(s3_store.keys("a")) == ["a/b"]


def test_an_object_replaced_while_it_is_read_is_never_mixed_with_the_new_one(s3_store: S3Store):
    put(s3_store, "a/b", b"old" * 100)
    with s3_store.open("a/b") as file:
        assert file.read(3) == b"old"
        put(s3_store, "a/b", b"new" * 100)
        with pytest.raises(StoreUnavailable, match="PreconditionFailed"):
            file.read(3)


def test_an_object_deleted_while_it_is_read_is_missing(s3_store: S3Store):
    put(s3_store, "a/b", b"old")
    with s3_store.open("a/b") as file:
        s3_store.delete("a/b")
        with pytest.raises(StoreError, match="is not in the store"):
            file.read()


def test_an_object_too_long_for_memory_is_refused_before_it_is_read(
    s3: S3Server, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
):
    put(s3_store, "a/b", bytes(1_000_000))
    monkeypatch.setattr(s3_module, "MAX_READ_BYTES", 999_999)
    with pytest.raises(StoreError, match=r"too long; found: 1,000,000 bytes; expected: at most 999,999"):
        s3_store.read("a/b")


def test_no_upload_begins_on_a_full_disk(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_module, "free_bytes", lambda path: 1_000)
    with pytest.raises(DiskFull, match=r"found: 1,000 bytes available; .*TMPDIR"), s3_store.writing("a/b"):
        pytest.fail("the writer was called")


def test_a_profile_gives_credentials_and_endpoint(
    s3: S3Server, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    profile = {"endpoint_url": s3.front.url, "aws_access_key_id": "from-profile", "aws_secret_access_key": "x"}
    lines = ["[profile lab]", *(f"{name} = {value}" for name, value in profile.items())]
    (tmp_path / "config").write_text("\n".join(lines))
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    used: list[str] = []
    s3.front.faults.add(Fault("status", only_if=lambda headers: bool(used.append(headers["authorization"]))))
    profiled = S3Store(s3_store.bucket)
    put(profiled, "a/b", b"x")
    assert profiled.read("a/b") == b"x"
    assert used
    assert all("Credential=from-profile/" in each and "/eu-central-1/s3/" in each for each in used)


@pytest.mark.parametrize(
    ("location", "bucket", "prefix"),
    [
        ("s3://lab-pile", "lab-pile", ""),
        ("s3://lab-pile/", "lab-pile", ""),
        ("s3://lab.pile/a/b_c=d/", "lab.pile", "a/b_c=d"),
    ],
)
def test_a_location_is_a_bucket_and_a_prefix(location: str, bucket: str, prefix: str):
    store = open_store(location)
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    "location",
    [
        "s3://",
        "s3:///prefix",
        f"s3://key:{SECRET_KEY}@bucket/prefix",
        f"s3://bucket/prefix?secret={SECRET_KEY}",
        "s3://bucket:9000/prefix",
        "s3://bucket/../other",
        "s3://bucket//prefix",
        "s3://..",
        "s3://bucket/" + "a/" * 201,
    ],
)
def test_a_location_that_is_none_is_refused_without_being_repeated(location: str):
    with pytest.raises(StoreError, match="NEURALPILE_STORE is not a location on S3") as caught:
        open_store(location)
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


def test_what_a_killed_upload_left_on_the_disk_is_removed_days_later(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "neuralpile-upload-abc"
    left.mkdir()
    os.utime(left, (0, 0))
    put(s3_store, "a/1", b"x")
    assert list(tmp_path.iterdir()) == []
