"""Write and read files of rows: one segment of spike counts per row, one row group per row.

Each column chunk is a pure function of its row, so the same row has the same
bytes in a session's file, in a component's shard and in the pile, and can be
copied without decoding. How rows are encoded is decided in `copying.encoded`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.tables.arrow_rows import COUNTS_COLUMN, Row, counts_matrix
from neuralpile_dagster.tables.copying.copy import RowFile, Sources, damaged_row
from neuralpile_dagster.tables.copying.encoded import EncodedChunk, ForeignEncoding, encode_row, unpack
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.packed import PackedCounts
from neuralpile_dagster.tables.schemas import COUNTS, PILE_SCHEMA, ROW_SCHEMA


class RowWriter:
    """Write rows to a Parquet file, one row group each; a context manager.

    The same rows give the same bytes. Writes directly to ``target``: use it
    inside `files.atomic_write` or `store.put_file`. A file whose context ends in
    an exception is left without a footer, so that nobody can read it.

    Parameters
    ----------
    target : Path
        File to write.
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.
    """

    def __init__(self, target: Path, schema: pa.Schema = ROW_SCHEMA) -> None:
        self.schema = schema
        self._stream = target.open("wb")
        self._file = RowFile(self._stream, schema)

    def write(
        self,
        counts: np.ndarray,
        subject_id: str,
        session_id: str,
        segment_id: str,
        source_dataset: str | None = None,
    ) -> None:
        """Append one row. ``counts`` is uint8 (n_units, n_bins), not copied when C-contiguous."""
        self._file.add(encode_row(Row(counts, subject_id, session_id, segment_id, source_dataset), self.schema))

    def close(self) -> None:
        """Write the footer."""
        self._file.finish()
        self._stream.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        self._stream.close()


def write_rows(path: Path, rows: Iterable[Row], schema: pa.Schema = ROW_SCHEMA, threads: int = 1) -> tuple[int, ...]:
    """Write rows to a Parquet file, one row group each, in their order; the file does not depend on ``threads``.

    Parameters
    ----------
    path : Path
        In a folder that exists; appears complete or not at all.
    rows : iterable of Row
        Taken one by one, in the calling thread, while earlier ones are encoded.
        Held at a time: those being encoded (a row of 10 M tokens takes 25 MB meanwhile) and one more.
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.
    threads : int
        How many rows are encoded at a time; 1 encodes in the calling thread.

    Returns
    -------
    tuple of int
        Compressed bytes of each row.
    """
    with atomic_write(path) as aside, aside.open("wb") as stream:
        return write_rows_to(stream, rows, schema, threads)


def write_rows_to(
    stream: BinaryIO, rows: Iterable[Row], schema: pa.Schema = ROW_SCHEMA, threads: int = 1
) -> tuple[int, ...]:
    """`write_rows` into an empty binary stream, which the caller closes."""
    file = RowFile(stream, schema)
    for chunks in _in_order(rows, lambda row: encode_row(row, schema), threads):
        file.add(chunks)
    return file.finish()


def _in_order(
    rows: Iterable[Row], encode: Callable[[Row], list[EncodedChunk]], threads: int
) -> Iterator[list[EncodedChunk]]:
    if threads == 1:
        yield from map(encode, rows)
        return
    pending: deque[Future[list[EncodedChunk]]] = deque()
    with ThreadPoolExecutor(threads, "encode") as pool:
        for row in rows:
            pending.append(pool.submit(encode, row))
            del row  # free its memory before the next one is made
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class RowReader:
    """Read rows one at a time, verifying the pages' checksums; memory is that of one row.

    Rows that `RowWriter` packed are unpacked here; all others, such as those of
    earlier versions, are decoded by pyarrow.

    Parameters
    ----------
    file : Path or pyarrow.NativeFile
        Parquet file of `ROW_SCHEMA` or `PILE_SCHEMA`.
    name : str
        How errors call the file; needed for a ``NativeFile``.

    Raises
    ------
    TableError
        The file is not such a table; raised here or when a row is read.
    """

    def __init__(self, file: Path | str | pa.NativeFile, name: str = "") -> None:
        self.name = name or (str(file) if isinstance(file, Path | str) else "a Parquet file")
        self._opened = pa.OSFile(str(file), "rb") if isinstance(file, Path | str) else None
        self._file = open_parquet(self._opened or file, self.name)
        self._sources = Sources(lambda _: self._opened or file)
        self._latest: tuple[int, PackedCounts, list[str]] | None = None
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
        found = self._packed(index)
        return Row(found[0].counts(), *found[1]) if found else self._by_pyarrow(index)

    def shape(self, index: int) -> tuple[int, int]:
        """Units and bins of a row; its counts are decompressed and kept packed for a following `read_window`."""
        found = self._packed(index)
        n_units, n_bins = (found[0].n_units, found[0].n_bins) if found else self._by_pyarrow(index).counts.shape
        return n_units, n_bins

    def read_window(self, index: int, start: int, stop: int) -> Row:
        """One row with the bins ``[start, stop)`` alone; others are not unpacked.

        The row that was looked at last is kept packed (half a byte per token),
        so further windows of it cost only themselves.

        Raises
        ------
        ValueError
            The row has no such bins.
        """
        found = self._packed(index)
        if found:
            return Row(found[0].window(start, stop), *found[1])
        row = self._by_pyarrow(index)
        if not 0 <= start <= stop <= row.counts.shape[1]:
            raise ValueError(f"bins {start} to {stop} of {row.counts.shape[1]}")
        return replace(row, counts=row.counts[:, start:stop])

    def _packed(self, index: int) -> tuple[PackedCounts, list[str]] | None:
        if self._latest is None or self._latest[0] != index:
            try:
                chunks = self._sources.encoded(self.name, index, self._file.schema_arrow.names)
                with damaged_row(self.name, index):
                    self._latest = (index, *unpack(chunks))
            except ForeignEncoding:
                return None
        return self._latest[1:]

    def _by_pyarrow(self, index: int) -> Row:
        with damaged(self.name):
            table = self._file.read_row_group(index)
        if table.num_rows != 1:
            raise TableError(f"{self.name}: row group {index} is not one row", found=f"{table.num_rows} rows")
        texts = {name: table[name][0].as_py() for name in table.schema.names if name != COUNTS_COLUMN}
        return Row(counts=counts_matrix(table[COUNTS_COLUMN].chunk(0), self.name), **texts)

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_counts(file: pa.NativeFile, name: str, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Spike counts of rows of any file that can be merged, ours or foreign; memory is that of one row.

    Parameters
    ----------
    file : pyarrow.NativeFile
    name : str
        How errors call the file.
    rows : sequence of int
        Numbers of rows in the file; they come in ascending order.

    Yields
    ------
    numpy.ndarray, uint8, shape (n_units, n_bins)

    Raises
    ------
    TableError
        The file is damaged, or has no such rows.
    """
    parquet = open_parquet(file, name)
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    wanted = sorted(rows)
    if COUNTS_COLUMN not in parquet.schema_arrow.names or (wanted and wanted[-1] >= sum(sizes)):
        raise TableError(
            f"{name} has no such rows",
            found=f"{sum(sizes):,} rows of {', '.join(parquet.schema_arrow.names)}",
            expected=f"row {wanted[-1]:,} of {COUNTS_COLUMN}",
        )
    if set(sizes) <= {1} and any(parquet.schema_arrow.equals(schema) for schema in (ROW_SCHEMA, PILE_SCHEMA)):
        with RowReader(file, name) as reader:
            yield from (reader.row(row).counts for row in wanted)
        return
    first, chosen = 0, set(wanted)
    for group, size in enumerate(sizes):
        if chosen.intersection(range(first, first + size)):
            with damaged(name):  # row by row: a row group of many rows may not fit into memory
                for number, batch in enumerate(parquet.iter_batches(1, [group], [COUNTS_COLUMN], use_threads=False)):
                    if first + number in chosen:
                        yield counts_matrix(batch[0].cast(COUNTS), name)
        first += size
