"""Files that others wrote, and files that were damaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.row_files import (
    comparable,
    open_path,
    read_rows,
    synthetic_rows,
    write_foreign,
    write_rows,
)

LARGE = pa.schema([("spike_counts", pa.large_list(pa.large_list(pa.uint8()))), *list(ROW_SCHEMA)[1:]])
WIDE = pa.schema([("spike_counts", pa.list_(pa.list_(pa.int64()))), *list(ROW_SCHEMA)[1:]])
REORDERED = pa.schema([*list(ROW_SCHEMA)[1:], ROW_SCHEMA.field(0)])
EXTRA = ROW_SCHEMA.append(pa.field("note", pa.string()))


def by_polars(path: Path, rows: list[Row]) -> Path:
    import polars

    write_foreign(path, rows)
    polars.read_parquet(path).write_parquet(path, row_group_size=1)
    return path


def by_datasets(path: Path, rows: list[Row]) -> Path:
    """As the published pile was made: its own Arrow metadata, several rows in a row group, snappy."""
    import datasets

    records = [{**dataclasses.asdict(row), "spike_counts": row.counts.tolist()} for row in rows]
    features = datasets.Features.from_arrow_schema(ROW_SCHEMA)
    wanted = [{name: record[name] for name in ROW_SCHEMA.names} for record in records]
    datasets.Dataset.from_list(wanted, features=features).to_parquet(path)
    return path


FOREIGN: dict[str, tuple[Callable[[Path, list[Row]], Path], str]] = {
    "polars": (by_polars, "written by another program"),
    "datasets": (by_datasets, "other columns or types"),
    "snappy": (lambda p, r: write_foreign(p, r, compression="snappy"), "another compression than zstd"),
    "plain": (lambda p, r: write_foreign(p, r, compression="none"), "another compression than zstd"),
    "several rows": (lambda p, r: write_foreign(p, r, rows_per_group=2), "several rows in a row group"),
    "no checksums": (lambda p, r: write_foreign(p, r, write_page_checksum=False), "pages without checksums"),
    "no dictionary": (
        lambda p, r: write_foreign(p, r, use_dictionary=False),
        "columns without a dictionary",
    ),
    "pages of version 2": (
        lambda p, r: write_foreign(p, r, data_page_version="2.0"),
        "pages other than one dictionary and one data page",
    ),
    "large lists": (lambda p, r: write_foreign(p, r, LARGE), "other columns or types"),
    "int64 counts": (lambda p, r: write_foreign(p, r, WIDE), "other columns or types"),
    "another order of columns": (lambda p, r: write_foreign(p, r, REORDERED), "other columns or types"),
    "an extra column": (lambda p, r: write_foreign(p, r, EXTRA), "other columns or types"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_rows_of_foreign_files_are_encoded_anew_and_counted_with_the_reason(tmp_path: Path, kind: str):
    write, reason = FOREIGN[kind]
    rows = synthetic_rows(5)
    ours = write_rows(tmp_path / "ours.parquet", rows)
    theirs = write(tmp_path / "theirs.parquet", rows)
    order = [4, 0, 3, 1, 2]
    expected = copy_rows([RowRef(str(ours), n, "x") for n in order], open_path, tmp_path / "a", PILE_SCHEMA)
    report = copy_rows([RowRef(str(theirs), n, "x") for n in order], open_path, tmp_path / "b", PILE_SCHEMA)
    assert expected.reasons == {}
    assert (report.reasons, report.decoded_rows) == ({reason: 5}, 5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_only_the_foreign_rows_of_a_mixture_are_decoded(tmp_path: Path):
    ours = write_rows(tmp_path / "ours.parquet", synthetic_rows(3))
    theirs = write_foreign(tmp_path / "theirs.parquet", synthetic_rows(2, seed=1), compression="gzip")
    refs = [RowRef(str(ours), 0), RowRef(str(theirs), 1), RowRef(str(ours), 2), RowRef(str(theirs), 0)]
    report = copy_rows(refs, open_path, tmp_path / "out", ROW_SCHEMA)
    assert (report.rows, report.decoded_rows) == (4, 2)
    assert report.reasons == {"another compression than zstd": 2}


def test_a_foreign_source_dataset_is_kept_or_replaced(tmp_path: Path):
    row = dataclasses.replace(synthetic_rows(1)[0], source_dataset="theirs")
    path = write_rows(tmp_path / "pile.parquet", [row], PILE_SCHEMA)
    pq.write_table(pq.read_table(path), path, row_group_size=1)  # snappy
    copy_rows([RowRef(str(path), 0), RowRef(str(path), 0, "ours")], open_path, tmp_path / "out", PILE_SCHEMA)
    assert [row[-1] for row in read_rows(tmp_path / "out")] == ["theirs", "ours"]


def test_counts_that_do_not_fit_uint8_are_refused(tmp_path: Path):
    table = pa.table({"spike_counts": [[[1, 256]]], "subject_id": ["a"], "session_id": ["b"], "segment_id": ["c"]})
    pq.write_table(table, tmp_path / "wide.parquet")
    with pytest.raises(TableError, match=r"wide\.parquet"):
        copy_rows([RowRef(str(tmp_path / "wide.parquet"), 0)], open_path, tmp_path / "out", ROW_SCHEMA)


def test_a_foreign_row_without_an_id_is_refused(tmp_path: Path):
    table = pa.table({"spike_counts": [[[1]]], "subject_id": ["a"], "session_id": ["b"], "segment_id": [None]})
    pq.write_table(table.cast(ROW_SCHEMA), tmp_path / "null.parquet")
    with pytest.raises(TableError, match=r"null\.parquet.*segment_id"):
        copy_rows([RowRef(str(tmp_path / "null.parquet"), 0)], open_path, tmp_path / "out", ROW_SCHEMA)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path):
    (tmp_path / "not.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("not.parquet", "empty.parquet"):
        with pytest.raises(TableError, match=name):
            copy_rows([RowRef(str(tmp_path / name), 0)], open_path, tmp_path / "out", ROW_SCHEMA)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(where=0.004, flip=1)  # a page header, which no checksum covers
@example(where=0.13171926772191278, flip=6)  # the encoding of levels in a page header
@example(where=0.53125, flip=128)  # the name of a column
def test_a_flipped_byte_is_refused_or_changes_no_row(tmp_path: Path, where: float, flip: int):
    rows = synthetic_rows(3)
    path = write_rows(tmp_path / "flipped.parquet", rows)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= flip
    path.write_bytes(content)
    try:
        copy_rows([RowRef(str(path), n) for n in range(3)], open_path, tmp_path / "out", ROW_SCHEMA)
    except TableError as error:
        assert "flipped.parquet" in str(error)
    else:
        assert read_rows(tmp_path / "out") == [comparable(row) for row in rows]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path: Path, where: float):
    path = write_rows(tmp_path / "cut.parquet", synthetic_rows(3))
    content = path.read_bytes()
    path.write_bytes(content[: int(where * len(content))])
    with pytest.raises(TableError, match=r"cut\.parquet"):
        copy_rows([RowRef(str(path), 0)], open_path, tmp_path / "out", ROW_SCHEMA)


def test_a_flipped_bit_in_the_counts_of_a_foreign_file_is_refused(tmp_path: Path):
    row = Row(np.arange(200, dtype=np.uint8).reshape(2, 100), "sub", "ses", "segment_0")
    path = write_foreign(tmp_path / "foreign.parquet", [row, row], rows_per_group=2, compression="none")
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    content[chunk.data_page_offset + chunk.total_compressed_size // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"foreign\.parquet"):
        copy_rows([RowRef(str(path), 0)], open_path, tmp_path / "out", ROW_SCHEMA)
