"""What others make of files whose column chunks were copied."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster.tables.schemas import PILE_SCHEMA
from neuralpile_dagster_tests.fixtures.row_files import open_path, synthetic_rows, write_rows


@pytest.fixture
def pile(tmp_path: Path) -> tuple[Path, list[Row]]:
    """A copied file in a repository's folder, and its rows."""
    rows = []
    refs = []
    for number in range(3):
        session = synthetic_rows(4, seed=number, session=f"ses-{number}")
        path = write_rows(tmp_path / f"{number}.parquet", session)
        rows += [dataclasses.replace(row, source_dataset=f"dataset-{number}") for row in session]
        refs += [RowRef(str(path), row, f"dataset-{number}") for row in range(4)]
    order = np.random.default_rng(1).permutation(len(refs))
    target = tmp_path / "pile" / "data" / "train-00000.parquet"
    copy_rows([refs[i] for i in order], open_path, target, PILE_SCHEMA)
    return target, [rows[i] for i in order]


def plain(rows: list[Row]) -> list[dict]:
    return [{**dataclasses.asdict(row), "counts": row.counts.tolist()} for row in rows]


def named(records: list[dict]) -> list[dict]:
    return [{("counts" if name == "spike_counts" else name): value for name, value in r.items()} for r in records]


def test_pyarrow_reads_it_with_checksums_verified(pile: tuple[Path, list[Row]]):
    path, rows = pile
    table = pq.read_table(path, page_checksum_verification=True)
    assert table.schema.equals(PILE_SCHEMA)
    assert named(table.to_pylist()) == plain(rows)


def test_pyarrow_notices_a_flipped_bit_in_it(pile: tuple[Path, list[Row]]):
    path, _ = pile
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(5).column(0)
    content[chunk.dictionary_page_offset + chunk.total_compressed_size - 1] ^= 4
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.ParquetFile(path, page_checksum_verification=True).read_row_group(5)


def test_pyarrow_prunes_row_groups_by_the_copied_statistics(pile: tuple[Path, list[Row]]):
    path, rows = pile
    table = pq.read_table(path, filters=[("source_dataset", "=", "dataset-1"), ("segment_id", ">", "segment_1")])
    wanted = [row for row in rows if row.source_dataset == "dataset-1" and row.segment_id > "segment_1"]
    assert named(table.to_pylist()) == plain(wanted)


def test_polars_reads_it(pile: tuple[Path, list[Row]]):
    import polars

    path, rows = pile
    assert named(polars.read_parquet(path).to_dicts()) == plain(rows)
    lazily = polars.scan_parquet(path).filter(polars.col("session_id") == "ses-2").select("segment_id").collect()
    assert lazily["segment_id"].to_list() == [row.segment_id for row in rows if row.session_id == "ses-2"]


def test_duckdb_reads_it(pile: tuple[Path, list[Row]]):
    import duckdb

    path, rows = pile
    found = duckdb.sql(f"select * from '{path}'").fetchall()
    assert [record[1:] for record in found] == [
        (row.subject_id, row.session_id, row.segment_id, row.source_dataset) for row in rows
    ]
    assert [[list(unit) for unit in record[0]] for record in found] == [row.counts.tolist() for row in rows]
    [(count,)] = duckdb.sql(f"select count(*) from '{path}' where source_dataset = 'dataset-1'").fetchall()
    assert count == 4


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_it(
    pile: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    path, rows = pile
    dataset = datasets.load_dataset(
        str(path.parent.parent), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    assert dataset.features.arrow_schema.equals(PILE_SCHEMA)
    assert named(list(dataset)) == plain(rows)


def test_one_row_is_a_view_without_copying(pile: tuple[Path, list[Row]]):
    path, rows = pile
    units = pq.ParquetFile(path).read_row_group(2)["spike_counts"].chunk(0).flatten()
    counts = np.asarray(units.flatten()).reshape(len(units), -1)
    assert isinstance(units, pa.ListArray)
    assert np.array_equal(counts, rows[2].counts)
