"""A histogram of motifs holds what a Counter over bytes counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.motifs.counts import MotifCounts, bucket_of_keys, bucket_of_patches, total_of
from neuralpile_dagster.motifs.histogram import MotifReader, count_silent, write_histogram
from neuralpile_dagster.motifs.records import N_BUCKETS, HistogramNumbers, MotifShape
from neuralpile_dagster_tests.fixtures.motifs import as_counter, counts_of_patches, oracle, random_rows, read_histogram

SHAPES = [MotifShape(1, 15), MotifShape(4, 4), MotifShape(2, 3), MotifShape(1, 1), MotifShape(3, 11), MotifShape(8, 8)]
SILENT = {shape: bytes(shape.cells) for shape in SHAPES}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_patch_is_counted_as_a_counter_over_its_bytes_does(tmp_path: Path, shape: MotifShape):
    rows = random_rows(1, shape)
    numbers = write_histogram(tmp_path / "found.parquet", rows, shape)
    expected = oracle(rows, shape)
    silent = expected.pop(SILENT[shape])
    assert read_histogram(tmp_path / "found.parquet", shape) == expected
    without = sum(1 for patch in expected if not shape.has_keys or max(patch) > 15)
    assert numbers == HistogramNumbers(
        shape=(shape.n_units, shape.n_bins),
        rows=len(rows),
        tokens=sum(row.size for row in rows),
        patches=sum(shape.n_patches(*row.shape) for row in rows),
        silent=silent,
        spikes=sum(int(row.sum()) for row in rows),
        motifs=len(expected),
        without_key=without,
    )
    assert sum(count_silent(row, shape) for row in rows) == silent


@pytest.mark.parametrize("shape", [MotifShape(1, 15), MotifShape(3, 11)], ids=lambda shape: shape.name)
def test_the_file_depends_neither_on_the_order_of_rows_nor_on_what_memory_held(tmp_path: Path, shape: MotifShape):
    rows = random_rows(2, shape)
    whole = write_histogram(tmp_path / "whole.parquet", rows, shape)
    runs = write_histogram(tmp_path / "runs.parquet", rows[::-1], shape, max_motifs=10)
    assert whole == runs
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "runs.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.parquet", "whole.parquet"], "no run is left"


def test_many_motifs_are_counted_while_the_tables_grow(tmp_path: Path):
    shape, rng = MotifShape(1, 15), np.random.default_rng(3)
    rows = [rng.integers(0, 18, (40, 3_000), dtype=np.uint8) for _ in range(3)]
    numbers = write_histogram(tmp_path / "found.parquet", [*rows, rows[0]], shape)
    assert numbers.motifs == 3 * 40 * 200
    counts = sorted(read_histogram(tmp_path / "found.parquet", shape).values())
    assert counts == [1] * (2 * 40 * 200) + [2] * (40 * 200)


def test_a_row_group_is_a_bucket_in_ascending_order(tmp_path: Path):
    shape = MotifShape(1, 15)
    write_histogram(tmp_path / "found.parquet", random_rows(4, shape), shape)
    reader = MotifReader(tmp_path / "found.parquet", "found", shape)
    assert reader.n_groups == N_BUCKETS
    for bucket in range(N_BUCKETS):
        group = reader.group(bucket)
        assert set(bucket_of_keys(group.keys)) | set(bucket_of_patches(group.patches)) <= {bucket}
        assert np.all(np.diff(group.keys.astype(object)) > 0)
        texts = [patch.tobytes() for patch in group.patches]
        assert texts == sorted(texts)


def test_rows_without_tokens_have_an_empty_histogram(tmp_path: Path):
    shape = MotifShape(1, 15)
    numbers = write_histogram(
        tmp_path / "none.parquet", [np.zeros((3, 0), np.uint8), np.zeros((0, 9), np.uint8)], shape
    )
    assert (numbers.rows, numbers.patches, numbers.silent, numbers.motifs) == (2, 0, 0, 0)
    assert read_histogram(tmp_path / "none.parquet", shape) == {}


def test_a_file_of_another_shape_is_refused_by_name(tmp_path: Path):
    wide = np.full((1, 40), 17, np.uint8)
    write_histogram(tmp_path / "wide.parquet", [wide], MotifShape(1, 20))
    reader = MotifReader(tmp_path / "wide.parquet", "wide", MotifShape(2, 20))
    with pytest.raises(TableError, match=r"wide is damaged, or holds motifs of another shape; expected: .* 2x20"):
        [reader.group(bucket) for bucket in range(N_BUCKETS)]


def test_a_damaged_file_is_refused_by_name(tmp_path: Path):
    shape, path = MotifShape(1, 15), tmp_path / "found.parquet"
    write_histogram(path, random_rows(5, shape), shape)
    keys = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[keys.data_page_offset + keys.total_compressed_size - 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match="found is damaged"):
        read = MotifReader(path, "found", shape)
        [read.group(bucket) for bucket in range(N_BUCKETS)]


@pytest.mark.parametrize("shape", [MotifShape(1, 15), MotifShape(4, 5)], ids=lambda shape: shape.name)
def test_sums_and_differences_are_those_of_counters(shape: MotifShape):
    def counted(rows: list[np.ndarray]) -> MotifCounts:
        found = oracle(rows, shape)
        found.pop(bytes(shape.cells), None)
        patches = np.array([list(patch) for patch in found], np.uint8)
        return counts_of_patches(patches, np.array(list(found.values()), np.int64), shape)

    parts = [random_rows(seed, shape) for seed in range(5)]
    every = total_of(map(counted, parts), shape)
    expected = oracle([row for part in parts for row in part], shape)
    del expected[bytes(shape.cells)]
    assert as_counter([every]) == expected
    assert every.total == expected.total()
    rest = every.minus(counted(parts[0])).minus(counted(parts[3]))
    expected.subtract(as_counter([counted(parts[0] + parts[3])]))
    assert as_counter([rest]) == +expected
    assert len(rest) == len(+expected), "a motif that is left 0 times is none"
    with pytest.raises(ValueError, match="less than 0"):
        rest.minus(counted(parts[0] + parts[3] + parts[1] + parts[1]))
    assert len(total_of([], shape)) == 0
