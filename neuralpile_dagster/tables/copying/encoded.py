"""One encoded row: read from a file, its pages parsed and their checksums verified, or encoded in memory.

The one place that decides how rows are encoded.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.arrow_rows import EXAMPLE, Row, encoded_by_pyarrow, require_counts
from neuralpile_dagster.tables.copying.footers import (
    ChunkFacts,
    ChunkPlace,
    ChunkStatistics,
    decode,
    encode,
    idl,
)
from neuralpile_dagster.tables.packed import MAX_VALUES, PackedCounts, pack, recognize
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

SOURCE_COLUMN = "source_dataset"
_ZSTD = b"\x28\xb5\x2f\xfd"  # begins every zstd frame (RFC 8878); no other page of ours would
_LONGEST_HEADER = 65_536  # bytes; ours have ~30, a header with statistics of long strings some thousand
_OTHER_PAGES = "pages other than one dictionary and one data page"
_SMALL = 4_096  # bytes; chunks of ids repeat in thousands of rows
_LONGEST_STATISTIC = 4_096
"""Bytes of a value that parquet-cpp (``max_statistics_size``) states as a minimum and maximum."""
_LEVEL = 1
"""Level of zstd for counts; measured in docs/performance.md."""
_RUNS = 1 / 256
"""Bytes per token below which, and constant groups above which pyarrow's runs may be smaller than packed counts."""
_SMALL_ROW = 32_768
"""Tokens of a row that pyarrow encodes in no time."""
_TOLERATED = 1.03
"""Size of packed counts by that of pyarrow's runs above which the runs are taken, which are slower to read."""


class ForeignEncoding(Exception):
    """A row is not encoded as `RowWriter` does, so it cannot be copied; the message names the difference."""


class EncodedChunk(NamedTuple):
    """One column chunk: its bytes, what they say, and the statistics of its values as pyarrow states them."""

    data: memoryview
    facts: ChunkFacts
    statistics: ChunkStatistics | None


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


def unpack(chunks: Sequence[EncodedChunk]) -> tuple[PackedCounts, list[str]]:
    """Take a row's counts and ids out of its column chunks, in the order of the schema; counts stay packed.

    Raises
    ------
    ForeignEncoding
        The counts are not packed as `encode_row` does, or an id is null or very long.
    ValueError
        A chunk is damaged.
    """
    counts, *ids = chunks
    texts = [chunk.statistics.minimum for chunk in ids if chunk.statistics and chunk.statistics.minimum is not None]
    if len(texts) < len(ids):
        raise ForeignEncoding("ids encoded in another way")
    return _unpack_counts(counts.data, counts.facts), [text.decode() for text in texts]


def unpack_counts(chunk: memoryview) -> PackedCounts:
    """Take the counts out of one row's column chunk of ``spike_counts``, checksums verified; errors as `unpack`.

    That every count is one of the dictionary's is checked when it is unpacked.
    """
    return _unpack_counts(chunk, describe_chunk(chunk), check_later=True)


def _unpack_counts(chunk: memoryview, facts: ChunkFacts, check_later: bool = False) -> PackedCounts:
    kinds, encodings = idl().PageType, idl().Encoding
    if facts.encoding_stats == (
        (kinds.DICTIONARY_PAGE, encodings.PLAIN, 1),
        (kinds.DATA_PAGE, encodings.RLE_DICTIONARY, 1),
    ):
        dictionary = page_content(chunk[: facts.dictionary])
        values = np.frombuffer(dictionary[: len(dictionary) // 4 * 4], "<i4")
        if len(dictionary) == 4 * len(values) and len(values) <= MAX_VALUES and not np.any(values & ~0xFF):
            page = page_content(chunk[facts.dictionary :])
            packed = recognize(page, facts.num_values, values.astype(np.uint8), check_later)
            if packed is not None:
                return packed
    raise ForeignEncoding("counts packed in another way")


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


def encode_row(row: Row, schema: pa.Schema) -> list[EncodedChunk]:
    """Encode one row: a pure function.

    Counts are packed (`tables.packed`). pyarrow encodes the ids, counts
    without units or bins, and counts that become smaller by it, such as
    long runs of equal counts.

    Returns
    -------
    list of EncodedChunk
        In the order of ``schema``.

    Raises
    ------
    TableError
        The counts do not fit a row, or the row has other columns than ``schema``.
    """
    require_counts(row.counts)
    if (row.source_dataset is not None) != (SOURCE_COLUMN in schema.names):
        raise TableError(
            "a row has other columns than its file",
            found=f"{SOURCE_COLUMN} {row.source_dataset!r}",
            expected=", ".join(schema.names),
        )
    small = row.counts.size <= _SMALL_ROW
    by_pyarrow, *ids = _by_pyarrow(row if small else replace(row, counts=EXAMPLE.counts), schema)
    if not row.counts.size:
        return [by_pyarrow, *ids]
    packed = pack(row.counts)
    ours = _compressed(packed, _LEVEL)
    level = _better_level(packed, len(ours.data) / len(packed.page))
    if level != _LEVEL:
        ours = min(ours, _compressed(packed, level), key=lambda chunk: len(chunk.data))
    if not small and (len(ours.data) < _RUNS * row.counts.size or packed.constant_groups() > _RUNS):
        by_pyarrow, small = _by_pyarrow(row, schema)[0], True
    return [by_pyarrow if small and len(ours.data) > _TOLERATED * len(by_pyarrow.data) else ours, *ids]


def _better_level(packed: PackedCounts, share: float) -> int:
    """Level for a row that `_LEVEL` compresses to this share: a higher one where pyarrow's file would be smaller.

    Level 1 is good at Huffman codes, which end at a bit per byte: sparse rows are beyond them, and so are most
    rows with a byte per count. For more than 32 values pyarrow's widths (6 and 7 bits) are worse than ours.
    """
    if packed.width < 8:
        return 7 if share < 1 / 10 else _LEVEL
    if share < 1 / 20:
        return 7
    return 5 if share < 1 / 4 and len(packed.values) <= 32 else _LEVEL


def _compressed(packed: PackedCounts, level: int) -> EncodedChunk:
    """A column chunk of a dictionary page and a data page, each with a checksum."""
    thrift, codec = idl(), pa.Codec("zstd", compression_level=level)
    dictionary = thrift.DictionaryPageHeader(
        num_values=len(packed.values), encoding=thrift.Encoding.PLAIN, is_sorted=False
    )
    data = thrift.DataPageHeader(
        num_values=packed.n_units * packed.n_bins,
        encoding=thrift.Encoding.RLE_DICTIONARY,
        definition_level_encoding=thrift.Encoding.RLE,
        repetition_level_encoding=thrift.Encoding.RLE,
    )
    pages = io.BytesIO()
    for content, header in (
        (packed.values.astype("<i4"), {"type": thrift.PageType.DICTIONARY_PAGE, "dictionary_page_header": dictionary}),
        (packed.page, {"type": thrift.PageType.DATA_PAGE, "data_page_header": data}),
    ):
        # without asbytes the result has the length of the buffer, not of what is in it (pyarrow 26)
        body = codec.compress(content, asbytes=True)
        crc = zlib.crc32(body)
        encode(
            thrift.PageHeader(
                uncompressed_page_size=content.nbytes,
                compressed_page_size=len(body),
                crc=crc - (crc >> 31 << 32),  # an int32
                **header,
            ),
            pages,
        )
        pages.write(body)
    chunk = pages.getbuffer()
    return EncodedChunk(chunk, describe_chunk(chunk), None)


def _by_pyarrow(row: Row, schema: pa.Schema) -> list[EncodedChunk]:
    content = encoded_by_pyarrow(row, schema)
    group = pq.read_metadata(pa.BufferReader(content)).row_group(0)
    chunks = []
    for column in map(group.column, range(group.num_columns)):
        data = memoryview(content)[column.dictionary_page_offset :][: column.total_compressed_size]
        facts = describe_chunk(data)
        text = column.physical_type == "BYTE_ARRAY"
        chunks.append(EncodedChunk(data, facts, _statistics(bytes(data[: facts.dictionary])) if text else None))
    return chunks


@functools.lru_cache(maxsize=1_024)
def encode_source(source_dataset: str) -> EncodedChunk:
    """Encode the ``source_dataset`` column chunk of a row."""
    return _by_pyarrow(replace(EXAMPLE, source_dataset=source_dataset), PILE_SCHEMA)[-1]


def describe_chunk(chunk: memoryview) -> ChunkFacts:
    """Walk the pages of a column chunk of one row and verify their checksums.

    Raises
    ------
    ForeignEncoding
        The chunk is valid, as far as was read, but not one dictionary page and one data page with checksums.
    ValueError
        The chunk is damaged.
    """
    return _describe_small(bytes(chunk)) if len(chunk) <= _SMALL else _describe(chunk)


def _describe(chunk: memoryview) -> ChunkFacts:
    types = idl().PageType
    position = uncompressed = 0
    headers: list[Any] = []
    ends = []
    while position < len(chunk):
        stream = io.BytesIO(chunk[position : position + _LONGEST_HEADER])
        header = decode("PageHeader", stream)
        start = position + stream.tell()
        _require_canonical(header, chunk[position:start])
        position = _page_end(chunk, start, header)
        headers.append(header)
        ends.append(position)
        if [h.type for h in headers] != [types.DICTIONARY_PAGE, types.DATA_PAGE][: len(headers)]:
            raise ForeignEncoding(_OTHER_PAGES)
        _verify(chunk[start:position], header.crc)
        uncompressed += stream.tell() + header.uncompressed_page_size
    if len(headers) != 2:
        raise ForeignEncoding(_OTHER_PAGES)
    dictionary, data = headers[0].dictionary_page_header, headers[1].data_page_header
    if dictionary is None or data is None:
        raise ValueError("a page header lacks its own part")
    values = (dictionary.num_values, data.num_values)
    encodings = {dictionary.encoding, data.encoding, data.definition_level_encoding, data.repetition_level_encoding}
    if None in values or None in encodings:
        raise ValueError("a page header lacks its encodings or number of values")
    levels = {data.definition_level_encoding, data.repetition_level_encoding}
    if levels != {idl().Encoding.RLE} or not encodings <= _encodings_of_ours():
        raise ForeignEncoding("encodings other than those of the row writer")
    return ChunkFacts(
        num_values=data.num_values,
        dictionary_values=dictionary.num_values,
        dictionary_content=headers[0].uncompressed_page_size,
        uncompressed=uncompressed,
        compressed=position,
        dictionary=ends[0],
        encodings=tuple(sorted(encodings)),
        encoding_stats=((types.DICTIONARY_PAGE, dictionary.encoding, 1), (types.DATA_PAGE, data.encoding, 1)),
    )


def page_content(page: memoryview) -> bytes:
    """Decompress a page (header included) that `describe_chunk` has seen; `ValueError` when that fails."""
    stream = io.BytesIO(page[:_LONGEST_HEADER])
    header = decode("PageHeader", stream)
    if header.uncompressed_page_size == 0:
        return b""
    try:
        # raises as well when there is less content than the header says
        content: bytes = pa.Codec("zstd").decompress(
            page[stream.tell() :], max(header.uncompressed_page_size, 0), asbytes=True
        )
    except OSError as error:
        raise ValueError(f"a page that cannot be decompressed: {error}") from error
    return content


def dictionary_value(page: bytes) -> bytes | None:
    """The one text of a dictionary page (header included), None for a null; `ValueError` when it has another form."""
    content = page_content(memoryview(page))
    if not content:
        return None
    length = int.from_bytes(content[:4], "little")
    if len(content) != 4 + length:
        raise ValueError(f"a dictionary page of {len(content)} bytes for one text of {length} bytes")
    return content[4:]


def _encodings_of_ours() -> set[int]:
    """Encodings that pyarrow writes for dictionary-encoded columns, in either version of the format."""
    known = idl().Encoding
    return {known.PLAIN, known.PLAIN_DICTIONARY, known.RLE, known.RLE_DICTIONARY}


@functools.lru_cache(maxsize=8_192)
def _describe_small(chunk: bytes) -> ChunkFacts:
    return _describe(memoryview(chunk))


def _verify(page: memoryview, crc: int | None) -> None:
    if crc is None:
        raise ForeignEncoding("pages without checksums")
    if zlib.crc32(page) != crc & 0xFFFFFFFF:
        raise ValueError("a page's checksum is wrong")
    if page[: len(_ZSTD)] != _ZSTD:
        raise ForeignEncoding("another compression than zstd")


def _require_canonical(header: object, found: memoryview) -> None:
    """Require that a header re-encodes to the same bytes: it has no checksum, and thriftpy2 skips unknown fields."""
    written = io.BytesIO()
    encode(header, written)
    if written.getvalue() != found:
        raise ForeignEncoding("page headers of an unknown form")


def _page_end(chunk: memoryview, start: int, header: object) -> int:
    length = getattr(header, "compressed_page_size", None)
    if length is None or not 0 <= length <= len(chunk) - start:
        raise ValueError("a page reaches beyond its column chunk")
    if getattr(header, "uncompressed_page_size", None) is None or getattr(header, "type", None) is None:
        raise ValueError("a page header lacks its size or type")
    return start + length
