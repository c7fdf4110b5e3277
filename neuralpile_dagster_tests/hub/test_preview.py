from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralpile_dagster.publish.card_parts import row_arrow_bytes
from neuralpile_dagster.publish.configs import MAX_BINS, MAX_ROWS, first_rows, preview_bins, write_preview
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.rows import Row, RowReader, write_rows
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.sessions import counts_of, put_session


@given(st.integers(1, 10_000), st.integers(1, 10**6))
def test_a_preview_row_is_small_whatever_the_session(n_units: int, n_bins: int):
    bins = preview_bins(n_units, n_bins)
    assert 1 <= bins <= min(n_bins, MAX_BINS)
    assert row_arrow_bytes(n_units, bins, ["x" * 100] * 3) < 500_000


def test_the_largest_sessions_show_a_second():
    assert preview_bins(3_900, 608_000) == 51
    assert preview_bins(100, 608_000) == MAX_BINS


def test_it_holds_the_first_bins_of_the_first_segments(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    records = [put_session(store, f"s{i:02d}", n_bins=30 + i) for i in range(MAX_ROWS + 3)]
    config = write_preview(tmp_path / "folder", first_rows(store, (r.file for r in records)), ROW_SCHEMA)
    with RowReader(tmp_path / "folder" / "preview" / "preview.parquet") as reader:
        assert reader.n_rows == MAX_ROWS == config.splits["train"].num_examples
        for number in range(MAX_ROWS):
            row = reader.row(number)
            assert (row.session_id, row.segment_id) == (f"s{number:02d}", "segment_0")
            np.testing.assert_array_equal(row.counts, counts_of(f"s{number:02d}", 5, 30 + number)[:, :40])


@pytest.mark.parametrize("n_units", [1, 3_900])
def test_only_the_beginning_of_long_rows_is_written(tmp_path: Path, n_units: int):
    counts = counts_of("long", n_units, 2_000)

    config = write_preview(tmp_path, iter([Row(counts, "sub-1", "long", "segment_0", "mice")]), PILE_SCHEMA)
    with RowReader(tmp_path / "preview" / "preview.parquet") as reader:
        row = reader.row(0)
    np.testing.assert_array_equal(row.counts, counts[:, : preview_bins(n_units, 2_000)])
    assert row.source_dataset == "mice"
    assert config.splits["train"].num_bytes < 500_000


def test_a_preview_has_the_same_bytes_whether_rows_are_read_whole_or_not(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    rows = {name: Row(counts_of(name, 9, 3_000), "sub-1", name, "segment_0") for name in ("s1", "s2")}
    files = [put_file(store, name, lambda path, row=row: write_rows(path, [row]))[0] for name, row in rows.items()]

    def whole() -> Iterator[Row]:
        for file in files:
            with RowReader(store.open(file.key), file.key) as reader:
                yield reader.row(0)

    assert {row.counts.shape for row in first_rows(store, files)} == {(9, MAX_BINS)}
    for name, some in (("short", first_rows(store, files)), ("whole", whole())):
        write_preview(tmp_path / name, some, ROW_SCHEMA)
    short, long = ((tmp_path / name / "preview" / "preview.parquet").read_bytes() for name in ("short", "whole"))
    assert short == long


def test_no_more_rows_are_read_than_are_shown(tmp_path: Path):
    read = []

    def rows() -> Iterator[Row]:
        for number in range(100):
            read.append(number)
            yield Row(counts_of("s", 3, 10), "sub-1", "s", f"segment_{number}")

    write_preview(tmp_path, rows(), ROW_SCHEMA)
    assert len(read) == MAX_ROWS
