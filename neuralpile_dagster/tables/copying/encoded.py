"""One encoded row: read from a file, or encoded by `RowWriter` in memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from neuralpile_dagster.tables.copying.footer_writer import ChunkFacts, ChunkStatistics
from neuralpile_dagster.tables.copying.pages import describe_chunk, dictionary_value
from neuralpile_dagster.tables.copying.source_footers import ChunkPlace, SourceFooter, read_source_footer
from neuralpile_dagster.tables.copying.thrift import decode_footer, read_footer_bytes
from neuralpile_dagster.tables.rows import Row, RowWriter
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA

SOURCE_COLUMN = "source_dataset"
_LONGEST_STATISTIC = 4_096
"""Bytes of a value that parquet-cpp (``max_statistics_size``) states as a minimum and maximum."""


class EncodedChunk(NamedTuple):
    """One column chunk: its bytes, what they say, and the statistics of its values as `RowWriter` states them."""

    data: memoryview
    facts: ChunkFacts
    statistics: ChunkStatistics | None


def read_footer_of_rows(file: pa.NativeFile) -> SourceFooter:
    """Read a file's footer; raises `ValueError` when it is damaged."""
    return read_source_footer(file, [_example_footer(schema) for schema in (ROW_SCHEMA, PILE_SCHEMA)])


def read_encoded(file: pa.NativeFile, places: Sequence[ChunkPlace]) -> list[EncodedChunk]:
    """Read adjacent column chunks with one read.

    Raises
    ------
    ForeignEncoding
        A chunk is not encoded as `RowWriter` does.
    ValueError
        A chunk is damaged.
    """
    first = min(place.start for place in places)
    last = max(place.start + place.length for place in places)
    if first < 0 or min(place.length for place in places) < 0 or last > file.size():
        raise ValueError(f"a column chunk reaches to byte {last:,} of {file.size():,}")
    data = memoryview(file.read_at(last - first, first))
    if len(data) != last - first:
        raise ValueError(f"the file ends {last - first - len(data):,} bytes early")
    return [_encoded(data[place.start - first :][: place.length], place) for place in places]


def _encoded(data: memoryview, place: ChunkPlace) -> EncodedChunk:
    """Describe a chunk; page headers have no checksum, but the footer repeats their facts."""
    facts = describe_chunk(data)
    dictionary = min(facts.dictionary_content, 1) if place.text else facts.dictionary_content // 4
    told = {
        "values": (facts.num_values, place.num_values),
        "bytes before compression": (facts.uncompressed, place.uncompressed),
        "bytes of dictionary": (facts.dictionary, place.dictionary),
        "values in the dictionary": (facts.dictionary_values, dictionary),
        "encodings": (facts.encodings, place.encodings),
    }
    for what, (found, expected) in told.items():
        if found != expected:
            raise ValueError(f"{found} {what} in a column chunk where {expected} were expected")
    return EncodedChunk(data, facts, _statistics(bytes(data[: facts.dictionary])) if place.text else None)


@functools.lru_cache(maxsize=8_192)
def _statistics(dictionary: bytes) -> ChunkStatistics:
    """Statistics of a column of ids, from the dictionary page with its value: no footer is trusted for them."""
    value = dictionary_value(dictionary)
    known = value if value is not None and len(value) <= _LONGEST_STATISTIC else None
    return ChunkStatistics(known, known, int(value is None))


def encode_row(row: Row, schema: pa.Schema) -> dict[str, EncodedChunk]:
    """Encode one row with `RowWriter`; returns its column chunks by name."""
    file = pa.BufferReader(_one_row(row, schema))
    [places] = read_footer_of_rows(file).rows
    return dict(zip(schema.names, read_encoded(file, places), strict=True))


@functools.lru_cache(maxsize=1_024)
def encode_source(source_dataset: str) -> EncodedChunk:
    """Encode the ``source_dataset`` column chunk of a row."""
    return encode_row(_example_row(source_dataset), PILE_SCHEMA)[SOURCE_COLUMN]


@functools.cache
def example(schema: pa.Schema) -> bytes:
    """Example file of one made-up row, whose footer shows how `RowWriter` describes files of this schema."""
    return _one_row(_example_row(""), schema)


@functools.cache
def _example_footer(schema: pa.Schema) -> Any:
    return decode_footer(read_footer_bytes(pa.BufferReader(example(schema))))


def _example_row(source_dataset: str) -> Row:
    return Row(np.zeros((1, 1), np.uint8), "", "", "", source_dataset)


def _one_row(row: Row, schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    source_dataset = (row.source_dataset or "") if SOURCE_COLUMN in schema.names else None
    with RowWriter(sink, schema) as writer:
        writer.write(row.counts, row.subject_id, row.session_id, row.segment_id, source_dataset)
    content: bytes = sink.getvalue().to_pybytes()
    return content
