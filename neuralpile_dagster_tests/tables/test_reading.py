"""Rows read without pyarrow: equal to what it reads, by windows, and from files that somebody else may have made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.copying import encoded
from neuralpile_dagster.tables.copying.copy import RowFile
from neuralpile_dagster.tables.packed import pack
from neuralpile_dagster.tables.rows import Row, RowReader, counts_matrix, write_rows
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.row_files import write_by_pyarrow_alone
from neuralpile_dagster_tests.tables.test_encoding import every_width
from neuralpile_dagster_tests.tables.test_packed import matrices


@pytest.fixture
def no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are not unpacked by ourselves fail."""

    def refuse(self: RowReader, index: int) -> Row:
        raise AssertionError(f"pyarrow decodes row {index}")

    monkeypatch.setattr(RowReader, "_by_pyarrow", refuse)


def assert_read(path: Path, matrices: list[np.ndarray]) -> None:
    rows = [Row(counts, "sub-é", "ses", f"segment_{k}", "x") for k, counts in enumerate(matrices)]
    write_rows(path, rows, PILE_SCHEMA)
    with RowReader(path) as reader:
        for index, row in enumerate(rows):
            found = reader.row(index)
            assert replace(found, counts=None) == replace(row, counts=None)
            assert found.counts.dtype == np.uint8
            np.testing.assert_array_equal(found.counts, row.counts)
            assert reader.shape(index) == row.counts.shape


def test_rows_of_every_width_come_back(tmp_path: Path):
    assert_read(tmp_path / "rows.parquet", [counts for counts in every_width() if len(counts) or not counts.shape[1]])


@pytest.mark.usefixtures("no_pyarrow")
def test_rows_are_unpacked_without_pyarrow(tmp_path: Path):
    large = [counts for counts in every_width() if counts.size > 2_000 and counts.any()]
    assert len(large) == 13
    assert_read(tmp_path / "rows.parquet", large)


@pytest.mark.parametrize("write", [write_rows, write_by_pyarrow_alone], ids=["packed", "by pyarrow"])
def test_a_window_is_the_same_bins_of_all_units(tmp_path: Path, write: object):
    rng = np.random.default_rng(0)
    rows = [Row(rng.poisson(0.5, (k + 1, 40 - 7 * k)).astype(np.uint8), "sub", "ses", f"segment_{k}") for k in range(5)]
    write(tmp_path / "rows.parquet", rows)  # type: ignore[operator]
    with RowReader(tmp_path / "rows.parquet") as reader:
        for index in (3, 0, 4, 4, 1, 2):
            n_bins = rows[index].counts.shape[1]
            for start, stop in ((0, n_bins), (1, 4), (n_bins - 3, n_bins), (5, 5)):
                found = reader.read_window(index, start, stop)
                np.testing.assert_array_equal(found.counts, rows[index].counts[:, start:stop])
                assert found.segment_id == f"segment_{index}"
            assert reader.shape(index) == rows[index].counts.shape
            with pytest.raises(ValueError, match=f"of {n_bins}"):
                reader.read_window(index, 2, n_bins + 1)


def test_a_window_of_a_row_without_bins_is_empty(tmp_path: Path):
    write_rows(tmp_path / "rows.parquet", [Row(np.zeros((3, 0), np.uint8), "sub", "ses", "segment_0")])
    with RowReader(tmp_path / "rows.parquet") as reader:
        assert reader.read_window(0, 0, 0).counts.shape == reader.shape(0) == (3, 0)


def test_a_row_that_is_not_there_is_refused(tmp_path: Path):
    write_rows(tmp_path / "rows.parquet", [Row(np.ones((1, 1), np.uint8), "sub", "ses", "segment_0")])
    with RowReader(tmp_path / "rows.parquet") as reader:
        for index in (1, -1):
            with pytest.raises(TableError, match="has no row"):
                reader.row(index)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=matrices(), data=st.data())
def test_a_forged_page_with_a_valid_checksum_is_refused_or_read_as_pyarrow_reads_it(
    tmp_path: Path, counts: np.ndarray, data: st.DataObject
):
    packed = pack(counts)
    page, values = packed.page.copy(), packed.values
    for _ in range(data.draw(st.integers(1, 2))):
        page[data.draw(st.integers(0, min(len(page), packed.start + 9) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        values = values[: data.draw(st.integers(1, len(values)))]
    forged = encoded._compressed(replace(packed, page=page, values=values), 1)
    ids = encoded.encode_row(Row(counts, "sub", "ses", "segment_0"), ROW_SCHEMA)[1:]
    path = tmp_path / "forged.parquet"
    with path.open("wb") as stream:
        file = RowFile(stream, ROW_SCHEMA)
        file.add([forged, *ids])
        file.finish()
    try:
        with RowReader(path) as reader:
            found = reader.row(0).counts
    except TableError as error:
        assert "forged.parquet" in str(error)
        return
    expected = pq.read_table(path, page_checksum_verification=True)["spike_counts"].chunk(0)
    np.testing.assert_array_equal(found, counts_matrix(expected, "expected"))


def test_counts_that_refer_beyond_the_dictionary_are_refused_by_name(tmp_path: Path):
    counts = np.array([[0, 1, 2, 3, 4]], np.uint8)
    packed = pack(counts)
    path = tmp_path / "forged.parquet"
    with path.open("wb") as stream:
        file = RowFile(stream, ROW_SCHEMA)
        ids = encoded.encode_row(Row(counts, "sub", "ses", "segment_0"), ROW_SCHEMA)[1:]
        file.add([encoded._compressed(replace(packed, values=packed.values[:4]), 1), *ids])
        file.finish()
    with RowReader(path) as reader, pytest.raises(TableError, match=r"forged\.parquet is damaged.*value 4 of 4"):
        reader.row(0)
    with pytest.raises((OSError, pa.ArrowInvalid)):
        pq.read_table(path)


def test_a_dictionary_of_other_than_counts_is_left_to_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts = np.array([[0, 1, 1]], np.uint8)
    path = tmp_path / "forged.parquet"
    with path.open("wb") as stream:
        file = RowFile(stream, ROW_SCHEMA)
        ids = encoded.encode_row(Row(counts, "sub", "ses", "segment_0"), ROW_SCHEMA)[1:]
        file.add([encoded._compressed(replace(pack(counts), values=np.array([0, 300], np.int32)), 1), *ids])
        file.finish()
    asked = Row(counts, "by", "py", "arrow")
    monkeypatch.setattr(RowReader, "_by_pyarrow", lambda self, index: asked)
    with RowReader(path) as reader:
        assert reader.row(0) is asked
