"""How rows are encoded: what other readers find in them, and their size beside pyarrow's own encoding."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.tables.arrow_rows import encoded_by_pyarrow
from neuralpile_dagster.tables.copying.encoded import encode_row
from neuralpile_dagster.tables.rows import Row, write_rows
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster_tests.tables.test_packed import matrices

EMPTY = [np.zeros(shape, np.uint8) for shape in ((0, 0), (0, 5), (3, 0))]


def every_width() -> list[np.ndarray]:
    """Rows of one and many units and bins, of every width, and without any."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (2, 8), (7, 301), (40, 1003)]
    made = [rng.integers(0, n, shape).astype(np.uint8) for n in (1, 2, 4, 16, 17, 256) for shape in shapes]
    few_large = [rng.choice([0, 3, 255], shape).astype(np.uint8) for shape in shapes]
    return [*made, *few_large, np.tile(np.arange(256, dtype=np.uint8), (3, 4)), *EMPTY]


def by_pyarrow(path: Path) -> list[Any]:
    return pq.read_table(path, page_checksum_verification=True)["spike_counts"].to_pylist()


def by_polars(path: Path) -> list[Any]:
    import polars

    return polars.read_parquet(path)["spike_counts"].to_list()


def by_duckdb(path: Path) -> list[Any]:
    import duckdb

    return [row for (row,) in duckdb.sql(f"select spike_counts from '{path}'").fetchall()]


def by_arrow_rs(path: Path) -> list[Any]:
    arro3 = pytest.importorskip("arro3.io")
    return pa.table(arro3.read_parquet(str(path)).read_all())["spike_counts"].to_pylist()


def by_datasets(path: Path) -> list[Any]:
    import datasets

    data = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    return data["spike_counts"][:]


def by_datasets_streaming(path: Path) -> list[Any]:
    import datasets

    data = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    return [row["spike_counts"] for row in data]


READERS: list[Callable[[Path], list[Any]]] = [
    by_pyarrow,
    by_polars,
    by_duckdb,
    by_arrow_rs,
    by_datasets,
    by_datasets_streaming,
]


@pytest.mark.parametrize("read", READERS)
def test_other_readers_find_the_counts(tmp_path: Path, read: Callable[[Path], list[Any]]):
    counts = every_width()
    write_rows(tmp_path / "rows.parquet", [Row(c, "sub", "ses", "segment_0") for c in counts])
    assert [[list(unit) for unit in row] for row in read(tmp_path / "rows.parquet")] == [c.tolist() for c in counts]


def test_fastparquet_finds_the_ids(tmp_path: Path):
    """It reads no lists of lists, pyarrow's neither: they are None."""
    import fastparquet

    write_rows(tmp_path / "rows.parquet", [Row(c, "sub", "ses", f"segment_{k}") for k, c in enumerate(every_width())])
    found = fastparquet.ParquetFile(str(tmp_path / "rows.parquet")).to_pandas(columns=["segment_id"])
    assert found["segment_id"].tolist() == [f"segment_{k}" for k in range(len(every_width()))]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(matrices(), min_size=1, max_size=4))
def test_pyarrow_and_polars_find_any_counts(tmp_path: Path, rows: list[np.ndarray]):
    path = tmp_path / "rows.parquet"
    write_rows(path, [Row(counts, "sub", "ses", "segment_0") for counts in rows])
    expected = [counts.tolist() for counts in rows]
    assert by_pyarrow(path) == expected
    assert by_polars(path) == expected


@lru_cache
def published(density: float, shape: tuple[int, int] = (150, 4000), seed: int = 0) -> np.ndarray:
    """Counts of so many spikes per token, as published data have them: log-normal rates, bursts."""
    rng = np.random.default_rng(seed)
    rates = np.clip(rng.lognormal(0.9, 1.2, shape[0]), 0.05, 80)
    mean = rates / rates.mean() * density
    return np.minimum(rng.poisson(rng.gamma(0.6, mean[:, None] / 0.6, shape)), 15).astype(np.uint8)


def bursts(counts: np.ndarray, largest: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    counts = counts.copy()
    counts.reshape(-1)[rng.integers(0, counts.size, 100)] = rng.integers(13, largest + 1, 100)
    return counts


def runs(length: int, n_values: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.repeat(rng.integers(0, n_values, 600_000 // length), length)[: 150 * 3900].reshape(150, -1).astype("u1")


def bytes_by_pyarrow(row: Row) -> int:
    column: Any = pq.read_metadata(pa.BufferReader(encoded_by_pyarrow(row, ROW_SCHEMA))).row_group(0).column(0)
    return int(column.total_compressed_size)


def relative_size(counts: np.ndarray) -> float:
    row = Row(counts, "sub", "ses", "segment_0")
    return len(encode_row(row, ROW_SCHEMA)[0].data) / bytes_by_pyarrow(row)


@pytest.mark.parametrize("density", [0.07, 0.096, 0.116, 0.15])
def test_rows_like_the_published_ones_are_at_most_2_percent_larger_than_by_pyarrow(density: float):
    assert relative_size(published(density)) < 1.02


UNUSUAL: dict[str, Callable[[], np.ndarray]] = {  # made by their tests: each process collects all
    **{
        f"{density} spikes per token": partial(published, density)
        for density in (0.0003, 0.002, 0.01, 0.03, 0.05, 0.5, 3.0)
    },
    **{
        f"bursts of {n}, {d}": lambda n=n, d=d: bursts(published(d), n)
        for n in (17, 30, 40, 70, 200)
        for d in (0.01, 0.05, 0.1, 0.3, 0.6)
    },
    **{
        f"runs of {length}, {n} values": partial(runs, length, n) for length in (12, 30, 100, 1000) for n in (2, 10, 40)
    },
    "no spike": lambda: np.zeros((150, 4000), np.uint8),
    "one spike": lambda: np.eye(1, 400_000, 999, dtype=np.uint8),
    "a constant": lambda: np.full((150, 4000), 7, np.uint8),
    "noise": lambda: np.random.default_rng(3).integers(0, 256, (300, 4000)).astype(np.uint8),
    "half of the units silent": lambda: np.concatenate([published(0.1), np.zeros((150, 4000), np.uint8)]),
    "an end without spikes": lambda: np.concatenate([published(0.1), np.zeros((150, 4000), np.uint8)], axis=1),
    "a small row": partial(published, 0.1, (5, 30)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_no_row_is_more_than_5_percent_larger_than_by_pyarrow(name: str):
    assert relative_size(UNUSUAL[name]()) <= 1.05


def test_a_row_of_10_million_tokens_is_read_by_pyarrow(tmp_path: Path):
    counts = np.random.default_rng(0).integers(0, 5, (1730, 5781)).astype(np.uint8)
    write_rows(tmp_path / "rows.parquet", [Row(counts, "sub", "ses", "segment_0")])
    column = pq.read_table(tmp_path / "rows.parquet", page_checksum_verification=True)["spike_counts"]
    units = column.chunk(0).flatten()
    np.testing.assert_array_equal(np.asarray(units.flatten()).reshape(1730, 5781), counts)
    assert np.array_equal(np.asarray(units.offsets), np.arange(1731) * 5781)
