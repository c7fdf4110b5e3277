"""Undo HDF5's deflate and shuffle filters, decoding directly into the target array.

Source of both: HDF5 file format specification, "Filter Pipeline Message"; shuffle
stores byte 0 of every value, then byte 1 of every value, and so on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from neuralpile_dagster.hdf5.ranged.layout import AT_ONCE, Chunked

_PIECE = 1 << 16


class NotDecodable(Exception):
    """A chunk's bytes are not valid output of its filters."""


def decode_chunk(
    stored: memoryview, filter_mask: int, offset: tuple[int, ...], layout: Chunked, target: np.ndarray
) -> None:
    """Decode one chunk into its place in ``target``.

    Parameters
    ----------
    stored : memoryview
        The chunk's bytes as they are in the file.
    filter_mask : int
        Bit k set: filter k was not applied to this chunk.
    offset : tuple of int
        Index of the chunk's first value in the dataset.
    layout : Chunked
    target : numpy.ndarray, shape ``layout.shape``, C order

    Raises
    ------
    NotDecodable
        Broken deflate stream, or not exactly one chunk of values.
    """
    inflate = layout.deflate is not None and not filter_mask >> layout.deflate & 1
    shuffled = layout.shuffle is not None and not filter_mask >> layout.shuffle & 1 and layout.dtype.itemsize > 1
    if layout.in_rows:
        values = target.reshape(-1)
        row = values.size // layout.shape[0]
        part = values[offset[0] * row : (offset[0] + layout.chunk_shape[0]) * row]
    else:
        part = np.empty(layout.chunk_shape, layout.dtype).reshape(-1)
    as_bytes = part.view(np.uint8).reshape(len(part), layout.dtype.itemsize)
    _fill(_pieces(stored, layout.chunk_bytes) if inflate else iter([stored]), as_bytes, layout.chunk_bytes, shuffled)
    if not layout.in_rows:
        place = tuple(
            slice(at, min(at + n, end)) for at, n, end in zip(offset, layout.chunk_shape, layout.shape, strict=True)
        )
        inner = tuple(slice(0, piece.stop - piece.start) for piece in place)
        target[place] = part.reshape(layout.chunk_shape)[inner]


def inflate_rows(stored: memoryview, expected: int, target: np.ndarray) -> None:
    """`decode_chunk` for a chunk that `Chunked.is_plain`: many files have thousands of them, of a few kB.

    Parameters
    ----------
    stored : memoryview
        The chunk's bytes as they are in the file.
    expected : int
        Bytes of the chunk after decoding.
    target : numpy.ndarray, uint8, shape (n_bytes,)
        Target; at the end of a dataset shorter than the chunk.
    """
    content = np.frombuffer(_inflated(stored, expected), np.uint8)
    target[:expected] = content[: len(target)]


def _inflated(stored: memoryview, expected: int) -> bytes:
    """Inflate a whole stream of exactly ``expected`` bytes."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stored, expected + 1)
    except zlib.error as error:
        raise NotDecodable(f"a chunk cannot be inflated ({error})") from error
    if len(content) > expected:
        raise NotDecodable(f"a chunk inflates to more than {expected:,} bytes")
    if not inflater.eof:
        raise NotDecodable("a chunk's deflate stream is cut off")
    if len(content) < expected:
        raise NotDecodable(f"a chunk holds {len(content):,} bytes, not {expected:,}")
    return content


def _pieces(stored: memoryview, expected: int) -> Iterator[bytes]:
    """Inflate a stream piece by piece, stopping soon after ``expected`` bytes."""
    if expected <= AT_ONCE:
        yield _inflated(stored, expected)
        return
    inflater = zlib.decompressobj()
    try:
        for start in range(0, len(stored), _PIECE):
            piece = inflater.decompress(stored[start : start + _PIECE], expected + 1)
            if inflater.unconsumed_tail:
                raise NotDecodable(f"a chunk inflates to more than {expected:,} bytes")
            yield piece
    except zlib.error as error:
        raise NotDecodable(f"a chunk cannot be inflated ({error})") from error
    if not inflater.eof:
        raise NotDecodable("a chunk's deflate stream is cut off")


def _fill(pieces: Iterator[bytes | memoryview], target: np.ndarray, chunk_bytes: int, shuffled: bool) -> None:
    """Write one chunk's byte stream to ``target`` (values x bytes), dropping values beyond its end."""
    n_valid, item = target.shape
    n = chunk_bytes // item
    done = 0
    for piece in pieces:
        if done + len(piece) > chunk_bytes:
            raise NotDecodable(f"a chunk holds more than {chunk_bytes:,} bytes")
        source = np.frombuffer(piece, np.uint8)
        if shuffled and len(source) == chunk_bytes:
            target[:] = source.reshape(item, n)[:, :n_valid].T
        elif shuffled:
            _fill_planes(source, done, target, n)
        else:
            flat = target.reshape(-1)
            flat[done : done + len(source)] = source[: max(0, len(flat) - done)]
        done += len(piece)
    if done != chunk_bytes:
        raise NotDecodable(f"a chunk holds {done:,} bytes, not {chunk_bytes:,}")


def _fill_planes(source: np.ndarray, done: int, target: np.ndarray, n: int) -> None:
    """Write a piece of a shuffled stream, which begins at byte ``done`` of it."""
    while len(source):
        plane, at = divmod(done, n)
        take = min(len(source), n - at)
        valid = max(0, min(take, len(target) - at))
        target[at : at + valid, plane] = source[:valid]
        source = source[take:]
        done += take
