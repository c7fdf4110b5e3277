"""Read and cache the footers of Parquet files to copy rows from.

They are not read by pyarrow, whose metadata classes end the process
(``terminate``) when a damaged footer names an unknown codec or has level
histograms of the wrong length.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from neuralpile_dagster.tables.copying.thrift import decode_footer, idl, read_footer_bytes

MAX_KNOWN_ROWS = 100_000
"""Row groups whose places are cached (~1 kB each)."""

_WRITER = "parquet-cpp-arrow version "


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


def read_source_footer(file: pa.NativeFile, examples: Sequence[Any]) -> SourceFooter:
    """Read the parts of a file's footer needed to copy rows.

    Parameters
    ----------
    file : pyarrow.NativeFile
    examples : sequence of FileMetaData
        Footers of `RowWriter`; a file can be copied from when its schema is that of one of them.

    Raises
    ------
    ValueError
        The footer is damaged.
    """
    content = read_footer_bytes(file)
    return _DECODED.get(hashlib.sha256(content).digest(), lambda: _source_footer(decode_footer(content), examples))


def _source_footer(footer: Any, examples: Sequence[Any]) -> SourceFooter:
    try:
        group_rows = tuple(int(group.num_rows) for group in footer.row_groups)
        foreign = _why_foreign(footer, group_rows, examples)
        rows = () if foreign else tuple(tuple(map(_place, group.columns)) for group in footer.row_groups)
    except (TypeError, AttributeError) as error:  # a field that the IDL requires is missing
        raise ValueError(f"its footer is incomplete ({error})") from error
    if any(len(row) != len(rows[0]) for row in rows) or any(number < 0 for number in group_rows):
        raise ValueError("its footer contradicts itself")
    return SourceFooter(foreign, group_rows, rows)


def _why_foreign(footer: Any, group_rows: Sequence[int], examples: Sequence[Any]) -> str | None:
    if not (footer.created_by or "").startswith(_WRITER):
        return "written by another program"
    if not any(
        footer.schema == example.schema and footer.key_value_metadata == example.key_value_metadata
        for example in examples
    ):
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
