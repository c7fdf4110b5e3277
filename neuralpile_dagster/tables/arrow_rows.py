"""One row of a published dataset as Arrow and pyarrow hold it: its type, and the settings of pyarrow's encoder.

How the counts of nearly all rows are encoded is in `packed`; files of rows are written and read in `rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.schemas import COUNTS

COUNTS_COLUMN = "spike_counts"
MAX_ROW_TOKENS = 2**31 - 1
"""Offsets of a list are int32: more tokens than this do not fit one row."""


@dataclass(frozen=True)
class Row:
    """One row: ``counts`` is uint8 (n_units, n_bins), read-only; ``source_dataset`` is None outside the pile."""

    counts: np.ndarray
    subject_id: str
    session_id: str
    segment_id: str
    source_dataset: str | None = None


EXAMPLE = Row(np.zeros((1, 1), np.uint8), "", "", "", "")
"""A made-up row: how pyarrow encodes it shows how it describes files of rows."""


def writer_settings(schema: pa.Schema) -> dict[str, Any]:
    """Arguments with which pyarrow's ``ParquetWriter`` encodes rows: one dictionary and one data page per column."""
    # statistics of counts are useless and cost a pass; the page index makes pages end at rows
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": True,
        "write_statistics": [name for name in schema.names if name != COUNTS_COLUMN],
        "write_page_index": True,
        "write_page_checksum": True,
        "data_page_version": "1.0",
        "write_batch_size": 65_536,
    }


def row_table(row: Row, schema: pa.Schema) -> pa.Table:
    """A row as a table that shares its counts."""
    texts = [getattr(row, name) for name in schema.names if name != COUNTS_COLUMN]
    return pa.Table.from_arrays([counts_array(row.counts), *map(_one_text, texts)], schema=schema)


def encoded_by_pyarrow(row: Row, schema: pa.Schema) -> bytes:
    """A Parquet file of one row, encoded by pyarrow."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **writer_settings(schema)) as writer:
        writer.write_table(row_table(row, schema), row_group_size=1)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def require_counts(counts: np.ndarray) -> None:
    """Raise `TableError` unless counts, (n_units, n_bins), are uint8 of at most `MAX_ROW_TOKENS` tokens."""
    if counts.dtype != np.uint8 or counts.ndim != 2 or counts.size > MAX_ROW_TOKENS:
        raise TableError(
            "spike counts do not fit a row",
            found=f"{counts.dtype} of shape {counts.shape}",
            expected=f"uint8, units x bins, at most {MAX_ROW_TOKENS:,} tokens",
        )


def counts_array(counts: np.ndarray) -> pa.ListArray:
    """One row's ``spike_counts`` as an Arrow array that shares the matrix's memory.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)

    Returns
    -------
    pyarrow.ListArray, list<list<uint8>>, length 1

    Raises
    ------
    TableError
        Another dtype, other dimensions, or more than `MAX_ROW_TOKENS` tokens.
    """
    require_counts(counts)
    return nested_array(counts, COUNTS)


def nested_array(matrix: np.ndarray, kind: pa.ListType) -> pa.ListArray:
    """A matrix, any dtype, shape (n_units, n), as one list of lists that shares its memory."""
    ends = shared_array(np.array([0, len(matrix)], np.int32))
    return pa.ListArray.from_arrays(ends, lists_array(matrix, kind.value_type), type=kind)


def lists_array(matrix: np.ndarray, kind: pa.ListType) -> pa.ListArray:
    """The rows of a matrix, any dtype, shape (n_rows, n), as lists that share its memory."""
    ends = np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1]
    values = shared_array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.ListArray.from_arrays(shared_array(ends.astype(np.int32)), values, type=kind)


def shared_array(values: np.ndarray, known: np.ndarray | None = None) -> pa.Array:
    """Numbers as Arrow holds them, null where not ``known``; contiguous ones share their memory.

    Parameters
    ----------
    values : numpy.ndarray, any dtype of numbers, shape (n,)
    known : numpy.ndarray, bool, shape (n,), optional
    """
    # pa.array would import pandas: 0.45 s and 40 MB in every process
    valid = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    buffers = [valid, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def _one_text(text: str) -> pa.StringArray:
    content = text.encode()
    ends = np.array([0, len(content)], np.int32)
    return pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(content))


def counts_matrix(column: pa.ListArray, name: str) -> np.ndarray:
    """One row's ``spike_counts`` as a matrix that shares the column's memory.

    Parameters
    ----------
    column : pyarrow.ListArray, list<list<uint8>>, length 1
    name : str
        The file's, for messages.

    Returns
    -------
    numpy.ndarray, uint8, shape (n_units, n_bins)

    Raises
    ------
    TableError
        The units differ in length, there are nulls, or the values are not uint8.
    """
    units = column.flatten()
    lengths = np.diff(np.asarray(units.offsets))
    if column.null_count or units.null_count or len(set(lengths.tolist())) > 1:
        raise TableError(f"{name}: spike counts are not a matrix", expected="units of equal length, no nulls")
    values = units.flatten()
    if values.null_count or not pa.types.is_uint8(values.type):
        raise TableError(f"{name}: spike counts are not uint8", found=f"{values.type} with nulls or not")
    return np.asarray(values).reshape(len(units), -1 if len(values) else 0)
