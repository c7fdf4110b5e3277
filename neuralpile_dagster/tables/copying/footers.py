"""Footers of Parquet files: read from the files whose rows are copied, written behind the rows of a new file.

They are Thrift structures, read and written with ``thriftpy2`` from the IDL
that ``fastparquet`` ships. pyarrow does not read them here: its metadata classes
end the process (``terminate``) when a damaged footer names an unknown codec or
has level histograms of the wrong length.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.tables.arrow_rows import EXAMPLE, encoded_by_pyarrow
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA

MAX_KNOWN_ROWS = 100_000
"""Row groups whose places are cached (~1 kB each)."""

_WRITER = "parquet-cpp-arrow version "
MAGIC = b"PAR1"  # the first and last four bytes of a Parquet file
_TRAILER = struct.Struct("<I4s")  # length of the footer, magic


class ChunkPlace(NamedTuple):
    """Facts of one column chunk in a footer.

    ``start``, ``length``, ``uncompressed`` and ``dictionary`` (the dictionary
    page) are bytes, page headers included. ``text`` is true for ids, false for counts.
    """

    start: int
    length: int
    num_values: int
    uncompressed: int
    dictionary: int
    encodings: tuple[int, ...]
    text: bool


class SourceFooter(NamedTuple):
    """The parts of a footer needed to copy rows.

    ``foreign`` is the reason why none of the file's rows can be copied, if any; then ``rows`` is empty.
    ``group_rows`` are the numbers of rows of the row groups.
    """

    foreign: str | None
    group_rows: tuple[int, ...]
    rows: tuple[tuple[ChunkPlace, ...], ...]


class GroupSize(NamedTuple):
    """A row group: rows, compressed bytes of all columns, and values of one column (nulls included)."""

    rows: int
    bytes: int
    values: int


def read_group_sizes(file: pa.NativeFile, column: str) -> list[GroupSize]:
    """Sizes of the row groups of any Parquet file; raises `ValueError` when it is damaged or has no such column."""
    sizes = []
    for group in decode_footer(read_footer_bytes(file)).row_groups or ():
        chunks = [chunk.meta_data for chunk in group.columns or () if chunk.meta_data is not None]
        values = [chunk.num_values for chunk in chunks if (chunk.path_in_schema or [None])[0] == column]
        lengths = [chunk.total_compressed_size for chunk in chunks]
        if len(values) != 1 or None in (group.num_rows, *values, *lengths):
            raise ValueError(f"its footer does not give the sizes of {column}")
        sizes.append(GroupSize(group.num_rows, sum(lengths), values[0]))
    return sizes


class Footers:
    """LRU cache of footers, limited by their number of row groups."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._rows = 0
        self._kept: OrderedDict[Hashable, SourceFooter] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], SourceFooter]) -> SourceFooter:
        """Cached footer of ``key``, made on a miss."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        footer = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = footer
                self._rows += len(footer.group_rows)
            while self._rows > self._max_rows and len(self._kept) > 1:
                _, forgotten = self._kept.popitem(last=False)
                self._rows -= len(forgotten.group_rows)
        return footer


_DECODED = Footers(MAX_KNOWN_ROWS)  # by digest: every shard reads the same files


def read_source_footer(file: pa.NativeFile) -> SourceFooter:
    """Read the parts of a file's footer needed to copy rows; raises `ValueError` when it is damaged."""
    content = read_footer_bytes(file)
    return _DECODED.get(hashlib.sha256(content).digest(), lambda: _source_footer(decode_footer(content)))


@functools.cache
def _example_footer(schema: pa.Schema) -> Any:
    """Footer of an example file of one row, which shows how pyarrow describes files of this schema."""
    return decode_footer(read_footer_bytes(pa.BufferReader(encoded_by_pyarrow(EXAMPLE, schema))))


def _source_footer(footer: Any) -> SourceFooter:
    try:
        group_rows = tuple(int(group.num_rows) for group in footer.row_groups)
        foreign = _why_foreign(footer, group_rows)
        rows = () if foreign else tuple(tuple(map(_place, group.columns)) for group in footer.row_groups)
    except (TypeError, AttributeError) as error:  # a field that the IDL requires is missing
        raise ValueError(f"its footer is incomplete ({error})") from error
    if any(len(row) != len(rows[0]) for row in rows) or any(number < 0 for number in group_rows):
        raise ValueError("its footer contradicts itself")
    return SourceFooter(foreign, group_rows, rows)


def _why_foreign(footer: Any, group_rows: Sequence[int]) -> str | None:
    if not (footer.created_by or "").startswith(_WRITER):
        return "written by another program"
    examples = (_example_footer(ROW_SCHEMA), _example_footer(PILE_SCHEMA))
    if (footer.schema, footer.key_value_metadata) not in [(each.schema, each.key_value_metadata) for each in examples]:
        return "other columns or types"
    if any(rows != 1 for rows in group_rows):
        return "several rows in a row group"
    if not all(column.meta_data.dictionary_page_offset for group in footer.row_groups for column in group.columns):
        return "columns without a dictionary"
    return None


def _place(column: Any) -> ChunkPlace:
    found = column.meta_data
    if None in (found.total_compressed_size, found.num_values, found.total_uncompressed_size):
        raise ValueError("its footer lacks sizes of a column chunk")
    text = found.type == idl().Type.BYTE_ARRAY
    return ChunkPlace(
        start=found.dictionary_page_offset,
        length=found.total_compressed_size,
        num_values=found.num_values,
        uncompressed=found.total_uncompressed_size,
        dictionary=found.data_page_offset - found.dictionary_page_offset,
        encodings=_shared(tuple(sorted(found.encodings))),
        text=text,
    )


@functools.lru_cache(maxsize=65_536)
def _shared(value: Any) -> Any:
    """Deduplicate equal objects: ids repeat in thousands of rows."""
    return value


class ChunkStatistics(NamedTuple):
    """Smallest and largest value of a column chunk (None: unknown), and its number of nulls."""

    minimum: bytes | None
    maximum: bytes | None
    null_count: int | None


class ChunkFacts(NamedTuple):
    """Facts of one encoded column chunk that a footer must state, read from its pages alone.

    ``uncompressed``, ``compressed`` and ``dictionary`` (the dictionary page) are
    bytes, page headers included. One data page follows the dictionary page,
    which holds ``dictionary_values`` values in ``dictionary_content`` bytes before
    compression. ``encoding_stats`` holds (page type, encoding, number of pages).
    """

    num_values: int
    dictionary_values: int
    dictionary_content: int
    uncompressed: int
    compressed: int
    dictionary: int
    encodings: tuple[int, ...]
    encoding_stats: tuple[tuple[int, int, int], ...]


class PlacedRow(NamedTuple):
    """One row, written as a row group: its column chunks begin at the bytes ``starts``."""

    starts: tuple[int, ...]
    chunks: tuple[tuple[ChunkFacts, ChunkStatistics | None], ...]


class FooterWriter:
    """Write the page index and the footer after rows that were copied into a file.

    Rows are held as numbers (~1 kB each) and become Thrift structures one at a time.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the rows. Arrow schema, codec and the writer's name are taken from the footer of an example.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._file = copy(_example_footer(schema))
        self._columns = [column.meta_data for column in self._file.row_groups[0].columns]

    def write(self, rows: Sequence[PlacedRow], stream: BinaryIO) -> None:
        """Write the offset index of every chunk and the footer; ``stream`` is positioned after the last row."""
        indexes = array("q")  # where each chunk's offset index begins, and where the last one ends
        for row in rows:
            for location in _page_locations(row):
                indexes.append(stream.tell())
                encode(idl().OffsetIndex(page_locations=[location]), stream)
        start = stream.tell()
        indexes.append(start)
        width = len(self._columns)
        self._file.num_rows = len(rows)
        self._file.row_groups = _Computed(
            len(rows), lambda i: self._row_group(rows[i], indexes[i * width : (i + 1) * width + 1])
        )
        encode(self._file, stream)
        stream.write(_TRAILER.pack(stream.tell() - start, MAGIC))

    def _row_group(self, row: PlacedRow, indexes: Sequence[int]) -> Any:
        columns = []
        placed = zip(self._columns, row.chunks, row.starts, strict=True)
        for number, (column, (facts, statistics), position) in enumerate(placed):
            columns.append(
                idl().ColumnChunk(
                    file_offset=0,  # deprecated; parquet-cpp writes 0 as well
                    meta_data=_column_metadata(column, facts, statistics, position),
                    offset_index_offset=indexes[number],
                    offset_index_length=indexes[number + 1] - indexes[number],
                )
            )
        return idl().RowGroup(
            columns=columns,
            total_byte_size=sum(facts.uncompressed for facts, _ in row.chunks),
            num_rows=1,
            file_offset=row.starts[0],
            total_compressed_size=sum(facts.compressed for facts, _ in row.chunks),
        )


def _column_metadata(column: Any, facts: ChunkFacts, statistics: ChunkStatistics | None, position: int) -> Any:
    return idl().ColumnMetaData(
        type=column.type,
        encodings=facts.encodings,
        path_in_schema=column.path_in_schema,
        codec=column.codec,
        num_values=facts.num_values,
        total_uncompressed_size=facts.uncompressed,
        total_compressed_size=facts.compressed,
        data_page_offset=position + facts.dictionary,
        dictionary_page_offset=position,
        statistics=statistics
        and idl().Statistics(
            null_count=statistics.null_count, max_value=statistics.maximum, min_value=statistics.minimum
        ),
        encoding_stats=[
            idl().PageEncodingStats(page_type=page, encoding=encoding, count=count)
            for page, encoding, count in facts.encoding_stats
        ],
    )


def _page_locations(row: PlacedRow) -> Iterator[Any]:
    for position, (facts, _) in zip(row.starts, row.chunks, strict=True):
        yield idl().PageLocation(
            offset=position + facts.dictionary,
            compressed_page_size=facts.compressed - facts.dictionary,
            first_row_index=0,
        )


class _Computed:
    """A lazy list: items are made on access; has what thriftpy2 needs to write a list."""

    def __init__(self, length: int, item: Callable[[int], Any]) -> None:
        self._length = length
        self._item = item

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return map(self._item, range(self._length))


@functools.cache
def idl() -> Any:
    """The Parquet IDL as a module: ``idl().FileMetaData`` and so on.

    fastparquet is located, not imported: importing it would import pandas.
    Raises `ConfigurationError` when it is not installed.
    """
    import thriftpy2

    spec = importlib.util.find_spec("fastparquet")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ConfigurationError(
            "the Parquet IDL is not installed",
            expected="parquet.thrift, in the package fastparquet",
            remedy="install fastparquet",
        )
    return thriftpy2.load(str(Path(folders[0]) / "parquet.thrift"), module_name="neuralpile_parquet_thrift")


def decode(kind: str, stream: BinaryIO) -> Any:
    """Read one structure of the IDL at the position of ``stream``; raises `ValueError` when there is none."""
    from thriftpy2.protocol.compact import TCompactProtocol
    from thriftpy2.thrift import TException

    value = getattr(idl(), kind)()
    try:
        TCompactProtocol(stream).read_struct(value)
    except (TException, TypeError, KeyError, IndexError, struct.error, RecursionError) as error:
        # thriftpy2 raises any of these for damaged or truncated bytes
        raise ValueError(f"not a {kind} ({type(error).__name__}: {error})") from error
    return value


def encode(value: Any, stream: BinaryIO) -> None:
    """Write one structure of the IDL to ``stream``; raises `ValueError` when a number does not fit its type."""
    from thriftpy2.protocol.compact import TCompactProtocol
    from thriftpy2.thrift import TException

    try:
        TCompactProtocol(stream).write_struct(value)
    except TException as error:
        raise ValueError(f"not a valid {type(value).__name__} ({error})") from error


def read_footer_bytes(file: pa.NativeFile) -> bytes:
    """Read a file's footer; raises `ValueError` when it has none."""
    size = file.size()
    trailer = file.read_at(min(size, _TRAILER.size), max(size - _TRAILER.size, 0))
    length, magic = _TRAILER.unpack(trailer) if len(trailer) == _TRAILER.size else (0, b"")
    start = size - _TRAILER.size - length
    if magic != MAGIC or start < len(MAGIC):
        raise ValueError(f"{size:,} bytes that do not end in the footer of a Parquet file")
    content: bytes = file.read_at(length, start)
    return content


def decode_footer(content: bytes) -> Any:
    """The FileMetaData of a footer; raises `ValueError` when it is damaged."""
    return decode("FileMetaData", io.BytesIO(content))
