"""Where the bytes of an HDF5 dataset are in its file, and how its chunks are decoded without HDF5.

Deflate and shuffle are undone here, directly into the target array; whatever else a dataset has is left to HDF5.
Source: HDF5 file format specification, "Filter Pipeline Message"; shuffle stores byte 0 of every value, then byte 1 of
every value, and so on. Fetching bytes belongs in `chunks` and `ranged`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import h5py
import numpy as np

from neuralpile_dagster.hdf5.careful import filters_of, leaves_the_file

_SMALL_BYTES = 1 << 17  # below this a request of its own costs more than it saves
_PIPELINES: dict[tuple[int, ...], tuple[int | None, int | None]] = {
    # filters in the order of writing -> positions of (shuffle, deflate) in it
    (): (None, None),
    (h5py.h5z.FILTER_DEFLATE,): (None, 0),
    (h5py.h5z.FILTER_SHUFFLE,): (0, None),
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE): (0, 1),
}
_AT_ONCE = 1 << 20
"""Bytes; chunks up to this are inflated in one call, larger ones piece by piece."""
_PIECE = 1 << 16  # stored bytes inflated at a time of a larger one


@dataclass(frozen=True)
class Contiguous:
    """All values in one piece, from byte ``offset`` of the file."""

    offset: int


@dataclass(frozen=True)
class Chunked:
    """Values in chunks of ``chunk_shape``, whole chunks even at the edges of ``shape``.

    ``shuffle`` and ``deflate`` are the positions of these filters in the
    pipeline (bits of a chunk's filter mask), None where it has none.
    """

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype
    shuffle: int | None
    deflate: int | None

    # cached, because they are used for each of many thousand small chunks
    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk after decoding."""
        return prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-length // step) for length, step in zip(self.shape, self.chunk_shape, strict=True))

    @cached_property
    def in_rows(self) -> bool:
        """Whether a chunk is one run of values of the array in C order."""
        return self.chunk_shape[1:] == self.shape[1:]

    @cached_property
    def is_plain(self) -> bool:
        """Whether chunks are small runs of values of the array, with no filter but deflate."""
        return self.in_rows and self.deflate is not None and self.shuffle is None and self.chunk_bytes <= _AT_ONCE

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of the values at one index of the first dimension."""
        return prod(self.shape[1:]) * self.dtype.itemsize


def layout_of(dataset: h5py.Dataset, name: str) -> Contiguous | Chunked | None:
    """Layout for reading a dataset by ranges; None if HDF5 must (other filters, types or layouts, or little data).

    Raises `DamagedRecording` when values lie outside the file (external storage, virtual datasets):
    HDF5 would silently return fill values for files it cannot open.
    """
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if creation.get_external_count() or layout == h5py.h5d.VIRTUAL:
        found = "external storage" if layout != h5py.h5d.VIRTUAL else "a virtual dataset"
        raise leaves_the_file(name, dataset.name, found)
    if dataset.shape is None or dataset.nbytes <= _SMALL_BYTES or not _is_plain(dataset):
        return None
    if layout == h5py.h5d.CONTIGUOUS:
        offset = dataset.id.get_offset()
        return None if offset is None else Contiguous(int(offset))  # None: nothing written, all fill values
    # with a userblock, HDF5 versions differ in whether chunk addresses count from the file's start
    if layout != h5py.h5d.CHUNKED or dataset.file.userblock_size:
        return None
    filters = tuple(number for number, _ in filters_of(dataset))
    if filters not in _PIPELINES:
        return None
    shuffle, deflate = _PIPELINES[filters]
    return Chunked(dataset.shape, dataset.chunks, dataset.dtype, shuffle, deflate)


def has_checksums(dataset: h5py.Dataset) -> bool:
    """Whether a flipped bit of the stored values would be found when they are decoded.

    Deflate's streams end in a checksum of their own (RFC 1950, Adler-32).
    """
    return any(number in (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32) for number, _ in filters_of(dataset))


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether the bytes in the file are the bytes of a numpy array (integers and floats of its own formats)."""
    if dataset.dtype.kind not in "iuf":
        return False
    return bool(h5py.h5t.py_create(dataset.dtype).equal(dataset.id.get_type()))


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
    if expected <= _AT_ONCE:
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
