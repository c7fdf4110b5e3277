"""Encoded column chunks: what their pages say, with the pages' checksums verified."""

from __future__ import annotations

import functools
import io
import zlib

from neuralpile_dagster.tables.thrift_footer import ChunkFacts, decode, idl

_LONGEST_HEADER = 65_536  # bytes; ours have ~30, a header with statistics of long strings some thousand
_SMALL = 4_096  # bytes; chunks of ids repeat in thousands of rows


class ForeignEncoding(Exception):
    """A row is not encoded as `RowWriter` does, so it is not copied; says in which way."""


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
    headers = []
    ends = []
    while position < len(chunk):
        stream = io.BytesIO(chunk[position : position + _LONGEST_HEADER])
        header = decode("PageHeader", stream)
        start = position + stream.tell()
        position = _page_end(chunk, start, header)
        if header.crc is None:
            raise ForeignEncoding("pages without checksums")
        if zlib.crc32(chunk[start:position]) != header.crc & 0xFFFFFFFF:
            raise ValueError("a page's checksum is wrong")
        uncompressed += stream.tell() + header.uncompressed_page_size
        headers.append(header)
        ends.append(position)
    if [header.type for header in headers] != [types.DICTIONARY_PAGE, types.DATA_PAGE]:
        raise ForeignEncoding("pages other than one dictionary and one data page")
    dictionary, data = headers[0].dictionary_page_header, headers[1].data_page_header
    if dictionary is None or data is None:
        raise ValueError("a page header lacks its own part")
    encodings = {dictionary.encoding, data.encoding, data.definition_level_encoding, data.repetition_level_encoding}
    if data.num_values is None or None in encodings:
        raise ValueError("a page header lacks its encodings or number of values")
    return ChunkFacts(
        num_values=data.num_values,
        uncompressed=uncompressed,
        compressed=position,
        dictionary=ends[0],
        encodings=tuple(sorted(encodings)),
        encoding_stats=((types.DICTIONARY_PAGE, dictionary.encoding, 1), (types.DATA_PAGE, data.encoding, 1)),
    )


@functools.lru_cache(maxsize=8_192)
def _describe_small(chunk: bytes) -> ChunkFacts:
    return _describe(memoryview(chunk))


def _page_end(chunk: memoryview, start: int, header: object) -> int:
    length = getattr(header, "compressed_page_size", None)
    if length is None or not 0 <= length <= len(chunk) - start:
        raise ValueError("a page reaches beyond its column chunk")
    if getattr(header, "uncompressed_page_size", None) is None or getattr(header, "type", None) is None:
        raise ValueError("a page header lacks its size or type")
    return start + length
