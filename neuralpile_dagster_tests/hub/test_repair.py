"""A local hub, and the notes of shards, that were damaged after they were written: the next publishing repairs them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.hub.verify import verify_publication
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.hub_folders import FIRST, contents, make_folder, silent
from neuralpile_dagster_tests.fixtures.row_files import synthetic_rows, write_rows
from neuralpile_dagster_tests.fixtures.sessions import put_session, write


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_local_hub_is_repaired_and_named(tmp_path: Path) -> None:
    hub, said = LocalHub(tmp_path / "hub", "local"), list[str]()
    folder = make_folder(tmp_path / "staging", FIRST)
    hub.publish("mice", folder, silent)
    flip(hub.path("mice") / "README.md")
    assert hub.publish("mice", folder, said.append).changed
    assert contents(hub.path("mice")) == FIRST
    assert any("README.md was damaged in the hub" in line and "repaired" in line for line in said)
    assert not hub.publish("mice", folder, silent).changed


def test_publishing_again_reads_each_file_once_and_a_bit_flipped_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "staging" / "mice"
    hub = LocalHub(tmp_path / "hub", "lab")
    records, read, digest = {"s1": put_session(store, "s1")}, list[str](), hashlib.file_digest

    def noted(file: BinaryIO, algorithm: str) -> object:
        read.append(file.name)
        return digest(file, algorithm)

    monkeypatch.setattr("neuralpile_dagster.files.CLOCK_STEP_NS", -(10**9))  # all files count as written to long ago
    first = write(folder, store, records)
    hub.publish("mice", folder, silent)
    monkeypatch.setattr(hashlib, "file_digest", noted)
    assert write(folder, store, records) == first
    assert not hub.publish("mice", folder, silent).changed
    assert verify_publication(hub, "mice", folder) == []
    shards = [path for path in read if "/data/" in path]
    assert shards
    assert len(shards) == len(set(shards))
    flip(folder / first.shards[0].path)
    assert any("has other content" in line for line in verify_publication(hub, "mice", folder))


def test_a_damaged_listing_of_the_local_hub_is_made_anew(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path / "hub", "local")
    folder = make_folder(tmp_path / "staging", FIRST)
    done = hub.publish("mice", folder, silent)
    [listing] = (tmp_path / "hub" / "local" / ".versions" / "mice").glob("*.json")
    flip(listing)
    assert hub.files("mice") == done.files
    hub.publish("mice", folder, silent)
    assert contents(hub.path("mice")) == FIRST


def test_damaged_notes_of_shards_are_made_anew_and_a_damaged_session_is_refused(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "staging" / "mice"
    records = {"s1": put_session(store, "s1")}
    first = write(folder, store, records)
    for note in (tmp_path / "staging" / ".mice.shards").glob("*.json"):
        flip(note)
    assert write(folder, store, records) == first
    flip(store.root / records["s1"].file.key)
    (folder / first.shards[0].path).unlink()
    with pytest.raises(StoreError, match="is damaged; found: sha256"):
        write(folder, store, records)


def test_statistics_of_published_rows_come_from_the_rows_and_not_from_a_damaged_footer(tmp_path: Path) -> None:
    rows = synthetic_rows(2, session="ses-known")
    right, source = tmp_path / "right.parquet", tmp_path / "source.parquet"
    write_rows(source, rows)
    refs = [RowRef(str(source), 0), RowRef(str(source), 1)]
    copy_rows(refs, lambda name: pa.OSFile(name, "rb"), right, ROW_SCHEMA)
    content = source.read_bytes()
    last = content.rindex(b"ses-known")  # in the footer
    source.write_bytes(content[:last] + b"sas-known" + content[last + 9 :])
    copy_rows(refs, lambda name: pa.OSFile(name, "rb"), tmp_path / "copy.parquet", ROW_SCHEMA)
    assert (tmp_path / "copy.parquet").read_bytes() == right.read_bytes()
    assert pq.read_table(tmp_path / "copy.parquet", filters=[("session_id", "=", "ses-known")]).num_rows == 2
