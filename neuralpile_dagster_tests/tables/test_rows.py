from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.arrow_rows import counts_array
from neuralpile_dagster.tables.copying.footers import read_group_sizes
from neuralpile_dagster.tables.rows import Row, RowReader, RowWriter, write_rows
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA


def some_rows(n_rows: int = 5, n_units: int = 7, n_bins: int = 300, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        Row(rng.poisson(0.3, (n_units, n_bins - k)).astype(np.uint8), "sub-1", "ses-1", f"segment_{k}")
        for k in range(n_rows)
    ]


def write(path: Path, rows: list[Row], schema: pa.Schema = ROW_SCHEMA) -> Path:
    with RowWriter(path, schema) as writer:
        for row in rows:
            writer.write(row.counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset)
    return path


def assert_same(found: Row, expected: Row) -> None:
    assert vars(found) | {"counts": None} == vars(expected) | {"counts": None}
    assert found.counts.dtype == np.uint8
    np.testing.assert_array_equal(found.counts, expected.counts)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 400))),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
)
def test_any_counts_and_ids_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, counts: Any, text: str):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    row = Row(counts, text, "Ford Prefect", "segment_0")
    write(path, [row])
    with RowReader(path) as reader:
        assert reader.n_rows == 1
        assert_same(reader.row(0), row)


def test_every_row_is_a_row_group_with_the_settings_of_the_contract(tmp_path: Path):
    metadata = pq.ParquetFile(write(tmp_path / "rows.parquet", some_rows())).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1] * 5
    counts, subject = (metadata.row_group(2).column(i) for i in (0, 1))
    assert counts.compression == subject.compression == "ZSTD"
    assert counts.has_dictionary_page
    assert "RLE_DICTIONARY" in counts.encodings
    assert counts.has_offset_index
    assert not counts.is_stats_set
    assert subject.statistics.min == "sub-1"


def test_lists_have_32_bit_offsets(tmp_path: Path):
    schema = pq.read_schema(write(tmp_path / "rows.parquet", some_rows()))
    assert schema.field("spike_counts").type == pa.list_(pa.list_(pa.uint8()))


def test_datasets_finds_the_features_of_the_published_pile(tmp_path: Path):
    path = write(tmp_path / "rows.parquet", some_rows())
    found = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    text = datasets.Value("string")
    counts = datasets.List(datasets.List(datasets.Value("uint8")))
    assert list(found.features) == ["spike_counts", "subject_id", "session_id", "segment_id"]
    assert dict(found.features) == {"spike_counts": counts, "subject_id": text, "session_id": text, "segment_id": text}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    files = [write(tmp_path / f"{k}.parquet", some_rows()).read_bytes() for k in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_writes_the_same_bytes_in_the_order_of_the_rows(tmp_path: Path, threads: int):
    rows = [*some_rows(9), *some_rows(2, n_units=900, n_bins=2000, seed=1), *some_rows(9, seed=2)]
    write_rows(tmp_path / "one.parquet", rows)
    write_rows(tmp_path / "many.parquet", iter(rows), threads=threads)
    assert (tmp_path / "many.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    with RowReader(tmp_path / "many.parquet") as reader:
        assert reader.n_rows == len(rows)
        for k, row in enumerate(rows):
            assert_same(reader.row(k), row)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_while_rows_are_made_leaves_nothing_behind(tmp_path: Path, threads: int):
    def broken() -> Any:
        yield from some_rows()
        raise RuntimeError("the recording ended")

    with pytest.raises(RuntimeError, match="the recording ended"):
        write_rows(tmp_path / "rows.parquet", broken(), threads=threads)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_while_a_row_is_encoded_leaves_nothing_behind(tmp_path: Path, threads: int):
    rows = [*some_rows(3), Row(np.zeros((2, 2), np.int16), "a", "b", "c"), *some_rows(3)]
    with pytest.raises(TableError, match="int16"):
        write_rows(tmp_path / "rows.parquet", rows, threads=threads)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_the_pile_name_their_dataset(tmp_path: Path):
    rows = [Row(row.counts, "s", "t", "segment_0", "vbn") for row in some_rows(2)]
    with RowReader(write(tmp_path / "pile.parquet", rows, PILE_SCHEMA)) as reader:
        assert_same(reader.row(1), rows[1])


@pytest.mark.parametrize(("schema", "source"), [(ROW_SCHEMA, "vbn"), (PILE_SCHEMA, None)])
def test_a_row_with_other_columns_than_its_file_is_refused(tmp_path: Path, schema: pa.Schema, source: str | None):
    with RowWriter(tmp_path / "rows.parquet", schema) as writer, pytest.raises(TableError, match="other columns"):
        writer.write(np.zeros((1, 1), np.uint8), "a", "b", "c", source)


def test_the_counts_matrix_is_not_copied_on_its_way_to_arrow():
    counts = some_rows(1)[0].counts
    values = counts_array(counts).values.values
    assert values.buffers()[1].address == counts.ctypes.data


def test_a_matrix_that_is_a_view_is_written_as_it_looks(tmp_path: Path):
    counts = np.arange(200, dtype=np.uint8).reshape(10, 20)[::2, 3:9]
    with RowReader(write(tmp_path / "rows.parquet", [Row(counts, "a", "b", "c")])) as reader:
        np.testing.assert_array_equal(reader.row(0).counts, counts)


def test_a_flipped_bit_is_never_read_as_other_counts(tmp_path: Path):
    rows = some_rows(2)
    whole = write(tmp_path / "rows.parquet", rows).read_bytes()
    damaged = tmp_path / "damaged.parquet"
    refused = 0
    padding = [position for position in range(len(whole)) if whole[position : position + 64] == bytes(64)]
    positions = np.setdiff1d(np.arange(4, len(whole) - 8), padding)
    for position in np.random.default_rng(0).choice(positions, 300, replace=False):
        content = bytearray(whole)
        content[position] ^= 1 << int(position % 8)
        damaged.write_bytes(content)
        try:
            with RowReader(damaged) as reader:
                for k, row in enumerate(rows):
                    np.testing.assert_array_equal(reader.row(k).counts, row.counts)
        except TableError as error:
            assert "damaged.parquet" in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100, b"not Parquet at all"])
def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "wrong.parquet"
    path.write_bytes(content)
    with pytest.raises(TableError, match="wrong"):
        RowReader(path)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path):
    path = write(tmp_path / "rows.parquet", some_rows())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableError, match="of the store"):
        RowReader(pa.OSFile(str(path)), "rows.parquet of the store")


def test_a_table_of_other_columns_is_refused(tmp_path: Path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(TableError, match=r"x: int64.*spike_counts"):
        RowReader(tmp_path / "x.parquet")


def test_counts_that_are_no_matrix_are_refused(tmp_path: Path):
    table = pa.table([[[[1, 2], [3]]], ["a"], ["b"], ["c"]], schema=ROW_SCHEMA)
    pq.write_table(table, tmp_path / "ragged.parquet")
    with RowReader(tmp_path / "ragged.parquet") as reader, pytest.raises(TableError, match="not a matrix"):
        reader.row(0)


def test_a_row_group_of_several_rows_is_refused(tmp_path: Path):
    table = pa.table([[[[1]], [[2]]], ["a"] * 2, ["b"] * 2, ["c"] * 2], schema=ROW_SCHEMA)
    pq.write_table(table, tmp_path / "two.parquet")
    with RowReader(tmp_path / "two.parquet") as reader, pytest.raises(TableError, match="2 rows"):
        reader.row(0)


def test_the_footer_tells_rows_and_compressed_bytes(tmp_path: Path):
    path = write(tmp_path / "rows.parquet", some_rows())
    sizes = [group.bytes for group in read_group_sizes(pa.OSFile(str(path)), "spike_counts")]
    assert len(sizes) == 5
    assert 0 < path.stat().st_size - sum(sizes) < 5 * 8300 + 6000, "padding around counts, and the footer"
    assert all(size > 100 for size in sizes)
