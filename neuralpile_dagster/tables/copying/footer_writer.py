"""Write the footer and page index of a Parquet file whose column chunks were copied."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from neuralpile_dagster.tables.copying.thrift import MAGIC, TRAILER, decode_footer, encode, idl, read_footer_bytes


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
    example : bytes
        A file of one row as `RowWriter` makes it: schema, Arrow schema, codec
        and the writer's name are taken from its footer.
    """

    def __init__(self, example: bytes) -> None:
        self._file: Any = decode_footer(read_footer_bytes(pa.BufferReader(example)))
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
        stream.write(TRAILER.pack(stream.tell() - start, MAGIC))

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
