"""Parse the pages of encoded column chunks, verifying their checksums."""

from __future__ import annotations

import functools
import io
import zlib
from typing import Any

import pyarrow as pa

from neuralpile_dagster.tables.copying.footers import ChunkFacts, decode, encode, idl

_ZSTD = b"\x28\xb5\x2f\xfd"  # begins every zstd frame (RFC 8878); no other page of ours would
_LONGEST_HEADER = 65_536  # bytes; ours have ~30, a header with statistics of long strings some thousand
_OTHER_PAGES = "pages other than one dictionary and one data page"
_SMALL = 4_096  # bytes; chunks of ids repeat in thousands of rows


class ForeignEncoding(Exception):
    """A row is not encoded as `RowWriter` does, so it cannot be copied; the message names the difference."""


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
