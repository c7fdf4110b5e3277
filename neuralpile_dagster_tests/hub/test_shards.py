from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.hub_folders import contents
from neuralpile_dagster_tests.fixtures.killing import killed_at
from neuralpile_dagster_tests.fixtures.sessions import SMALL_SHARDS, put_session, write


def test_shards_whose_rows_did_not_change_are_kept_and_not_written_again(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    names = [f"s{i:02d}" for i in range(12)]
    many = {name: put_session(store, name) for name in names}
    folder = tmp_path / "mice"
    before = write(folder, store, {n: many[n] for n in names[1:]}, max_shard_bytes=SMALL_SHARDS)
    inodes = {shard.sha256: (folder / shard.path).stat().st_ino for shard in before.shards}
    lines: list[str] = []
    after = write(folder, store, many, max_shard_bytes=SMALL_SHARDS, progress=lines.append)
    kept = [shard for shard in after.shards if shard.sha256 in inodes]
    assert kept and len(kept) >= len(before.shards) - 2
    assert all((folder / shard.path).stat().st_ino == inodes[shard.sha256] for shard in kept)
    assert len([line for line in lines if "shard" in line]) == len(after.shards) - len(kept)
    assert {p.name for p in (folder / "data").iterdir()} == {Path(shard.path).name for shard in after.shards}


def test_a_kept_shard_that_was_damaged_meanwhile_is_written_again(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    component = write(tmp_path / "mice", store, records)
    before = contents(tmp_path / "mice")
    shard = tmp_path / "mice" / component.shards[0].path
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    assert write(tmp_path / "mice", store, records) == component
    assert contents(tmp_path / "mice") == before


def test_killed_at_any_step_the_same_call_completes_with_the_same_bytes(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    complete = write(tmp_path / "whole", store, records, max_shard_bytes=SMALL_SHARDS)
    step = 1
    while True:
        folder = tmp_path / "broken" / str(step) / "mice"
        work = functools.partial(write, folder, store, records, max_shard_bytes=SMALL_SHARDS)
        if not killed_at(folder.parent, step, work):
            break
        assert work() == complete
        assert contents(folder) == contents(tmp_path / "whole")
        step += 3
    assert step > 30


def test_a_session_larger_than_a_shard_is_split_between_rows(tmp_path: Path, store: LocalStore):
    records = {"s1": put_session(store, "s1", n_bins=400)}
    limit = 2 * max(row.bytes for row in records["s1"].rows)
    component = write(tmp_path / "mice", store, records, missing={"s2": "", "s3": ""}, max_shard_bytes=limit)
    assert len(component.shards) >= 5 and sum(shard.rows for shard in component.shards) == 10
    segments = [
        segment
        for shard in component.shards
        for segment in pq.read_table(tmp_path / "mice" / shard.path)["segment_id"].to_pylist()
    ]
    assert segments == [f"segment_{i}" for i in range(10)]


def test_rows_are_the_same_encoded_bytes_as_in_the_sessions_files(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    component = write(tmp_path / "mice", store, records)
    shard = (tmp_path / "mice" / component.shards[0].path).read_bytes()
    for record in records.values():
        with store.open(record.file.key) as file:
            content = file.read()
            column = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0).column(0)
        start = column.dictionary_page_offset
        assert content[start : start + column.total_compressed_size] in shard


def test_a_shard_of_one_row_is_logged_as_that(tmp_path: Path, store: LocalStore):
    lines: list[str] = []
    write(tmp_path / "mice", store, {"s1": put_session(store, "s1")}, max_shard_bytes=1, progress=lines.append)
    assert any(", 1 row, " in line for line in lines), lines
