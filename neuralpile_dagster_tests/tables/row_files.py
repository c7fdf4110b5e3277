"""Small Parquet files of rows, for tests of copying and merging; synthetic counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.tables.rows import WRITER_SETTINGS, Row, RowReader, RowWriter, counts_array
from neuralpile_dagster.tables.schemas import ROW_SCHEMA


def synthetic_rows(n_rows: int, seed: int = 0, session: str = "ses-1", subject: str = "sub-1") -> list[Row]:
    """Rows of one synthetic session; every segment has its own counts."""
    rng = np.random.default_rng(seed)
    n_units = int(rng.integers(1, 6))
    return [
        Row(rng.poisson(0.4, (n_units, int(rng.integers(1, 300)))).astype(np.uint8), subject, session, f"segment_{k}")
        for k in range(n_rows)
    ]


def write_rows(path: Path, rows: Sequence[Row], schema: pa.Schema = ROW_SCHEMA) -> Path:
    """Write rows as the package does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with RowWriter(path, schema) as writer:
        for row in rows:
            writer.write(row.counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset)
    return path


def write_foreign(
    path: Path, rows: Sequence[Row], schema: pa.Schema = ROW_SCHEMA, rows_per_group: int = 1, **settings: Any
) -> Path:
    """Write rows with pyarrow and other settings, or another schema with the same column names."""
    arrays = {
        "spike_counts": pa.chunked_array([counts_array(row.counts) for row in rows]),
        **{name: pa.array([getattr(row, name) for row in rows]) for name in ROW_SCHEMA.names[1:]},
    }
    arrays["note"] = pa.array(["an extra column"] * len(rows))
    table = pa.table({field.name: arrays[field.name].cast(field.type) for field in schema}, schema=schema)
    options = {**WRITER_SETTINGS, "write_statistics": True, **settings}
    if options["compression"] != "zstd":
        options["compression_level"] = None
    with pq.ParquetWriter(path, schema, **options) as writer:
        writer.write_table(table, row_group_size=rows_per_group)
    return path


def read_rows(path: Path) -> list[tuple[Any, ...]]:
    """All rows, comparable: counts as (shape, bytes), then the texts."""
    with RowReader(path) as reader:
        return [comparable(reader.row(number)) for number in range(reader.n_rows)]


def comparable(row: Row, source_dataset: str | None = None) -> tuple[Any, ...]:
    """A row that ``==`` compares."""
    counts = (row.counts.shape, row.counts.tobytes())
    return (*counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset or source_dataset)


def encoded_chunks(path: Path) -> Iterator[dict[str, bytes]]:
    """For each row group, the bytes of every column chunk by column name."""
    content = path.read_bytes()
    metadata = pq.read_metadata(path)
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        chunks = [group.column(number) for number in range(group.num_columns)]
        yield {
            chunk.path_in_schema.split(".")[0]: content[chunk.dictionary_page_offset :][: chunk.total_compressed_size]
            for chunk in chunks
        }


def open_path(name: str) -> pa.NativeFile:
    """Open a file by its path, as `copy_rows` asks."""
    return pa.OSFile(name, "rb")


def whole(path: Path) -> np.ndarray:
    with RowReader(path) as reader:
        return np.concatenate([reader.row(k).counts for k in range(reader.n_rows)], axis=1)
