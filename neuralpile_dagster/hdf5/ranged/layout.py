"""Find the bytes of an HDF5 dataset in its file, and whether they can be read without HDF5."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording

_SMALL_BYTES = 1 << 17  # below this a request of its own costs more than it saves
_PIPELINES: dict[tuple[int, ...], tuple[int | None, int | None]] = {
    # filters in the order of writing -> positions of (shuffle, deflate) in it
    (): (None, None),
    (h5py.h5z.FILTER_DEFLATE,): (None, 0),
    (h5py.h5z.FILTER_SHUFFLE,): (0, None),
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE): (0, 1),
}

AT_ONCE = 1 << 20
"""Bytes; chunks up to this are inflated in one call, larger ones piece by piece."""


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
        return self.in_rows and self.deflate is not None and self.shuffle is None and self.chunk_bytes <= AT_ONCE

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
        raise DamagedRecording(
            f"{name}: {dataset.name} lies outside the file",
            found="external storage" if layout != h5py.h5d.VIRTUAL else "a virtual dataset",
            expected="data inside the file itself",
            remedy="copy the data into one file; nothing outside an archive file is read",
        )
    if dataset.shape is None or dataset.nbytes <= _SMALL_BYTES or not _is_plain(dataset):
        return None
    if layout == h5py.h5d.CONTIGUOUS:
        offset = dataset.id.get_offset()
        return None if offset is None else Contiguous(int(offset))  # None: nothing written, all fill values
    # with a userblock, HDF5 versions differ in whether chunk addresses count from the file's start
    if layout != h5py.h5d.CHUNKED or dataset.file.userblock_size:
        return None
    filters = tuple(creation.get_filter(place)[0] for place in range(creation.get_nfilters()))
    if filters not in _PIPELINES:
        return None
    shuffle, deflate = _PIPELINES[filters]
    return Chunked(dataset.shape, dataset.chunks, dataset.dtype, shuffle, deflate)


def has_checksums(dataset: h5py.Dataset) -> bool:
    """Whether a flipped bit of the stored values would be found when they are decoded.

    Deflate's streams end in a checksum of their own (RFC 1950, Adler-32).
    """
    creation = dataset.id.get_create_plist()
    filters = {creation.get_filter(place)[0] for place in range(creation.get_nfilters())}
    return bool(filters & {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32})


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether the bytes in the file are the bytes of a numpy array (integers and floats of its own formats)."""
    if dataset.dtype.kind not in "iuf":
        return False
    return bool(h5py.h5t.py_create(dataset.dtype).equal(dataset.id.get_type()))
