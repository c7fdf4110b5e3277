"""Write and read rows of a published dataset: one segment of spike counts per row, one row group per row.

The one place that decides how rows are encoded. Each column chunk is a pure
function of its row, so the same row has the same bytes in a session's file,
in a component's shard and in the pile, and can be copied without decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.schemas import COUNTS, ROW_SCHEMA

COUNTS_COLUMN = "spike_counts"
MAX_ROW_TOKENS = 2**31 - 1
"""Offsets of a list are int32: more tokens than this do not fit one row."""

# zstd-1 is as small as zstd-3 on spike counts and never slower (docs/performance.md);
# the dictionary matters more than the codec. Statistics of counts are useless and cost a pass.
# The page index makes pages end at rows: one data page per row group.
WRITER_SETTINGS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": True,
    "write_statistics": [name for name in [*ROW_SCHEMA.names, "source_dataset"] if name != COUNTS_COLUMN],
    "write_page_index": True,
    "write_page_checksum": True,
    "data_page_version": "1.0",
    "write_batch_size": 65_536,
}


@dataclass(frozen=True)
class Row:
    """One row: ``counts`` is uint8 (n_units, n_bins), read-only; ``source_dataset`` is None outside the pile."""

    counts: np.ndarray
    subject_id: str
    session_id: str
    segment_id: str
    source_dataset: str | None = None


class RowWriter:
    """Write rows to a Parquet file, one row group each; a context manager.

    The same rows give the same bytes. Writes directly to ``target``: use it
    inside `files.atomic_write` or `store.put_file`.

    Parameters
    ----------
    target : Path or pyarrow.NativeFile
        File to write.
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.
    """

    def __init__(self, target: Path | pa.NativeFile, schema: pa.Schema = ROW_SCHEMA) -> None:
        self.schema = schema
        settings = dict(WRITER_SETTINGS)
        settings["write_statistics"] = [name for name in settings["write_statistics"] if name in schema.names]
        self._writer = pq.ParquetWriter(target, schema, **settings)

    def write(
        self,
        counts: np.ndarray,
        subject_id: str,
        session_id: str,
        segment_id: str,
        source_dataset: str | None = None,
    ) -> None:
        """Append one row. ``counts`` is uint8 (n_units, n_bins), not copied when C-contiguous."""
        texts = {"subject_id": subject_id, "session_id": session_id, "segment_id": segment_id}
        if source_dataset is not None:
            texts["source_dataset"] = source_dataset
        if [COUNTS_COLUMN, *texts] != self.schema.names:
            raise TableError("a row has other columns than its file", found=str([*texts]), expected=str(self.schema))
        columns = [counts_array(counts), *(_one_text(text) for text in texts.values())]
        table = pa.Table.from_arrays(columns, schema=self.schema)
        self._writer.write_table(table, row_group_size=1)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
    if counts.dtype != np.uint8 or counts.ndim != 2 or counts.size > MAX_ROW_TOKENS:
        raise TableError(
            "spike counts do not fit a row",
            found=f"{counts.dtype} of shape {counts.shape}",
            expected=f"uint8, units x bins, at most {MAX_ROW_TOKENS:,} tokens",
        )
    n_units, n_bins = counts.shape
    values = _sharing(np.ascontiguousarray(counts).reshape(-1))
    ends = np.arange(n_units + 1, dtype=np.int64) * n_bins
    units = pa.ListArray.from_arrays(_sharing(ends.astype(np.int32)), values, type=COUNTS.value_type)
    return pa.ListArray.from_arrays(_sharing(np.array([0, n_units], np.int32)), units, type=COUNTS)


def _sharing(values: np.ndarray) -> pa.Array:
    # pa.array would import pandas: 0.45 s and 40 MB in every process
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


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


class RowReader:
    """Read rows one at a time, verifying the pages' checksums; memory is that of one row.

    Parameters
    ----------
    file : Path or pyarrow.NativeFile
        Parquet file of `ROW_SCHEMA` or `PILE_SCHEMA`.
    name : str
        How errors call the file; needed for a ``NativeFile``.

    Raises
    ------
    TableError
        The file is not such a table; raised here or in `row`.
    """

    def __init__(self, file: Path | str | pa.NativeFile, name: str = "") -> None:
        self.name = name or (str(file) if isinstance(file, Path | str) else "a Parquet file")
        self._file = open_parquet(file, self.name)
        require_schema(self._file.schema_arrow, ROW_SCHEMA, self.name, optional=("source_dataset",))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._file.num_row_groups)

    @property
    def group_bytes(self) -> list[int]:
        """Compressed bytes of each row's counts."""
        groups = (self._file.metadata.row_group(index) for index in range(self.n_rows))
        return [group.column(0).total_compressed_size for group in groups]

    def row(self, index: int) -> Row:
        """Decode one row."""
        with damaged(self.name):
            table = self._file.read_row_group(index)
        if table.num_rows != 1:
            raise TableError(f"{self.name}: row group {index} is not one row", found=f"{table.num_rows} rows")
        texts = {name: table[name][0].as_py() for name in table.schema.names if name != COUNTS_COLUMN}
        return Row(counts=counts_matrix(table[COUNTS_COLUMN].chunk(0), self.name), **texts)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __enter__(self) -> RowReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
