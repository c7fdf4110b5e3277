"""Rows as they lie encoded in Parquet files, read from many files with few of them open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.rows import COUNTS_COLUMN, Row, counts_matrix
from neuralpile_dagster.tables.schemas import COUNTS, PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster.tables.thrift_footer import ChunkFacts, ChunkStatistics
from neuralpile_dagster.tables.thrift_pages import ForeignEncoding, describe_chunk

OpenFile = Callable[[str], pa.NativeFile]

MAX_OPEN = 64
"""Source files open at a time."""
MAX_KNOWN_ROW_GROUPS = 200_000
"""Row groups whose metadata are kept (~0.5 kB each); files met least recently are forgotten and read again."""

_WRITER = "parquet-cpp-arrow version "


class EncodedChunk(NamedTuple):
    """One column chunk: its bytes, what they say, and the statistics that its file's footer has for it."""

    data: memoryview
    facts: ChunkFacts
    statistics: ChunkStatistics | None


@dataclass(frozen=True)
class _Source:
    """What is known of one file. ``foreign`` says why none of its rows can be copied, if so."""

    name: str
    size: int
    metadata: pq.FileMetaData
    columns: dict[str, int]
    foreign: str | None


class Sources:
    """Many Parquet files, of which rows are asked in any order; a context manager.

    Parameters
    ----------
    open_file : callable
        Opens a file, by the name that rows give it, for random access. Every
        file opened is closed here.
    """

    def __init__(self, open_file: OpenFile) -> None:
        self._open_file = open_file
        self._known: OrderedDict[str, _Source] = OrderedDict()
        self._known_row_groups = 0
        self._open: OrderedDict[str, pa.NativeFile] = OrderedDict()

    def encoded(self, name: str, row: int, columns: list[str]) -> list[EncodedChunk]:
        """Read the column chunks of one row, checksums verified.

        Raises
        ------
        ForeignEncoding
            The file or the row is not encoded as `RowWriter` does.
        TableError
            The file is damaged, or has no such row or columns.
        """
        source = self._source(name)
        missing = [column for column in columns if column not in source.columns]
        if missing:
            raise TableError(f"{name} lacks columns", found=", ".join(source.columns), expected=", ".join(columns))
        _require_row(source, row)
        if source.foreign:
            raise ForeignEncoding(source.foreign)
        try:
            return read_encoded(self._file(name), source.size, source.metadata.row_group(row), source.columns, columns)
        except ValueError as error:
            raise TableError(
                f"{name} is damaged: row {row} cannot be copied",
                found=str(error),
                remedy="delete it and materialize the asset that makes it",
            ) from error

    def decoded(self, name: str, row: int) -> Row:
        """Decode one row that `encoded` would not give; raises `TableError` when it is not one of spike counts."""
        source = self._source(name)
        group, offset = 0, row
        while offset >= source.metadata.row_group(group).num_rows:
            offset -= source.metadata.row_group(group).num_rows
            group += 1
        names = [column for column in PILE_SCHEMA.names if column in source.columns]
        with damaged(name):
            file = pq.ParquetFile(self._file(name), metadata=source.metadata, page_checksum_verification=True)
            for number, batch in enumerate(file.iter_batches(1, row_groups=[group], columns=names, use_threads=False)):
                if number == offset:
                    return _as_row(batch, name)
        raise TableError(f"{name} is damaged: it has fewer rows than its footer says", found=f"no row {row}")

    def _source(self, name: str) -> _Source:
        if name in self._known:
            self._known.move_to_end(name)
            return self._known[name]
        file = self._file(name)
        size = file.size()
        parquet = open_parquet(file, name)
        with damaged(name):
            foreign = _why_foreign(parquet)
        columns = {column: number for number, column in enumerate(parquet.schema_arrow.names)}
        source = _Source(name, size, parquet.metadata, columns, foreign)
        self._known[name] = source
        self._known_row_groups += source.metadata.num_row_groups
        while self._known_row_groups > MAX_KNOWN_ROW_GROUPS and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._known_row_groups -= forgotten.metadata.num_row_groups
        return source

    def _file(self, name: str) -> pa.NativeFile:
        if name not in self._open:
            self._open[name] = self._open_file(name)
            if len(self._open) > MAX_OPEN:
                _, oldest = self._open.popitem(last=False)
                oldest.close()
        self._open.move_to_end(name)
        return self._open[name]

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()


def read_encoded(
    file: pa.NativeFile, size: int, group: pq.RowGroupMetaData, positions: dict[str, int], columns: list[str]
) -> list[EncodedChunk]:
    """Read the chunks of ``columns`` (at ``positions``) of a row group of one row, in one piece.

    Raises `ForeignEncoding`, or `ValueError` when the row group is damaged.
    """
    if group.num_rows != 1:
        raise ForeignEncoding("several rows in a row group")
    chunks = [group.column(positions[column]) for column in columns]
    if any(chunk.compression != "ZSTD" for chunk in chunks):
        raise ForeignEncoding("another compression than zstd")
    if not all(chunk.has_dictionary_page for chunk in chunks):
        raise ForeignEncoding("pages other than one dictionary and one data page")
    starts = [chunk.dictionary_page_offset for chunk in chunks]
    lengths = [chunk.total_compressed_size for chunk in chunks]
    first = min(starts)
    last = max(start + length for start, length in zip(starts, lengths, strict=True))
    if first < 0 or min(lengths) < 0 or last > size:
        raise ValueError(f"a column chunk reaches to byte {last:,} of {size:,}")
    data = memoryview(file.read_at(last - first, first))
    if len(data) != last - first:
        raise ValueError(f"the file ends {last - first - len(data):,} bytes early")
    return [
        _encoded_chunk(data[start - first : start - first + length], chunk)
        for chunk, start, length in zip(chunks, starts, lengths, strict=True)
    ]


def _encoded_chunk(data: memoryview, chunk: pq.ColumnChunkMetaData) -> EncodedChunk:
    facts = describe_chunk(data)
    if facts.num_values != chunk.num_values:
        raise ValueError(f"{chunk.path_in_schema} has {facts.num_values} values, its footer says {chunk.num_values}")
    return EncodedChunk(data, facts, _statistics(chunk))


def _statistics(chunk: pq.ColumnChunkMetaData) -> ChunkStatistics | None:
    if chunk.physical_type != "BYTE_ARRAY" or not chunk.is_stats_set:
        return None  # those of counts say nothing; ours have none
    found = chunk.statistics
    return ChunkStatistics(
        minimum=found.min.encode() if found.has_min_max else None,
        maximum=found.max.encode() if found.has_min_max else None,
        null_count=found.null_count if found.has_null_count else None,
    )


def _why_foreign(file: pq.ParquetFile) -> str | None:
    if not (file.metadata.created_by or "").startswith(_WRITER):
        return "written by another program"
    if not any(file.schema_arrow.equals(schema) for schema in (ROW_SCHEMA, PILE_SCHEMA)):
        return "other columns or types"
    return None


def _require_row(source: _Source, row: int) -> None:
    if not 0 <= row < source.metadata.num_rows:
        raise TableError(f"{source.name} has no row {row}", found=f"{source.metadata.num_rows:,} rows")


def _as_row(batch: pa.RecordBatch, name: str) -> Row:
    texts = {column: batch[column][0].as_py() for column in batch.schema.names if column != COUNTS_COLUMN}
    unusual = {column: value for column, value in texts.items() if not isinstance(value, str)}
    if unusual:
        raise TableError(f"{name} has a row without text in a column of ids", found=str(unusual))
    return Row(counts=counts_matrix(batch[COUNTS_COLUMN].cast(COUNTS), name), **texts)
