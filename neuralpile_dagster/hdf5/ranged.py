"""`OpenFile` for a remote file: HDF5 metadata through cached blocks, whole datasets by range requests."""

from __future__ import annotations

import gc
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from neuralpile_dagster.hdf5.chunks import BlockFile, Blocks, Chunks, finish, require_inside
from neuralpile_dagster.hdf5.layout import Chunked, Contiguous, has_checksums, layout_of
from neuralpile_dagster.hdf5.opened import HEAD_BYTES, not_hdf5
from neuralpile_dagster.net.ranges import RemoteObject, piece_bytes

_BLOCK_MEMORY = 1 << 28  # bytes of blocks held at most; those of large datasets are dropped as they are decoded

_gc_lock = threading.Lock()
_gc_holders: list[bool] = []  # one entry per holder; the first says whether collection was on


class RangedFile:
    """One remote file, open for reading; see `open_ranged`."""

    def __init__(
        self, remote: RemoteObject, fetchers: ThreadPoolExecutor, download: Callable[[], Path], connections: int
    ) -> None:
        self.name = remote.name
        self.cost = remote.cost
        self.unverified = False
        self._remote = remote
        self._fetchers = fetchers
        self._download = download
        self._connections = connections
        self._blocks = Blocks(remote, fetchers, capacity_bytes=_BLOCK_MEMORY, ahead=connections + 2)
        self._decoders = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 1)), "decode")
        self._views: list[tuple[h5py.File, BlockFile]] = []

    @property
    def etag(self) -> str | None:
        """See `RemoteObject.etag`."""
        return self._remote.etag

    def hdf5(self) -> h5py.File:
        """Open as HDF5; see `OpenFile.hdf5`. Every byte that h5py itself reads goes through blocks."""
        view = BlockFile(self._blocks)
        try:
            file = h5py.File(view, "r")
        except Exception as error:
            # the frames hold HDF5's access properties, which crash the interpreter if they live until it exits
            traceback.clear_frames(error.__traceback__)
            if view.failure is not None:
                raise view.failure from None
            if not isinstance(error, OSError):
                raise
            view.seek(0)
            remedy = "the file in the archive is truncated, damaged or of another format; report it to the archive"
            raise not_hdf5(self.name, self._remote.size, view.read(HEAD_BYTES), error, remedy) from error
        self._views.append((file, view))
        return file

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """Read all values of a dataset of a file returned by `hdf5`; see `OpenFile.read`."""
        layout = layout_of(dataset, self.name)
        self.unverified |= not (self._remote.is_copied or has_checksums(dataset))
        if layout is None:
            values: np.ndarray = dataset[()]
            self.check()
            return values
        values = np.empty(dataset.shape, dataset.dtype)
        with self._remote.waiting():
            self._read_into(values, dataset, layout)
        return values

    def _read_into(self, values: np.ndarray, dataset: h5py.Dataset, layout: Contiguous | Chunked) -> None:
        """Fill ``values``, of the dataset's own shape and dtype."""
        if isinstance(layout, Chunked):
            room = self._connections + 2  # pieces being fetched or waiting for a decoder
            Chunks(self._remote, self._blocks, self._fetchers, self._decoders, room).read(dataset, layout, values)
            return
        target = values.reshape(-1).view(np.uint8).data
        require_inside(self._remote, layout.offset, layout.offset + len(target), dataset)
        step = piece_bytes(len(target), self._connections)
        reads = [
            self._fetchers.submit(self._remote.read_into, layout.offset + at, target[at : at + step])
            for at in range(0, len(target), step)
        ]
        finish(reads)

    def read_part(self, dataset: h5py.Dataset, place: tuple[slice, ...]) -> np.ndarray:
        """Read some values through blocks; see `OpenFile.read_part`."""
        self.unverified |= not (self._remote.is_copied or has_checksums(dataset))
        values: np.ndarray = dataset[place]
        self.check()
        return values

    def local_path(self) -> Path:
        """A complete, verified copy in the cache; see `OpenFile.local_path`."""
        return self._download()

    def check(self) -> None:
        """Raise the first failed read of HDF5, which it may have swallowed."""
        for _, view in self._views:
            if view.failure is not None:
                raise view.failure

    def close(self) -> None:
        """Stop decoding, close the files of `hdf5` (one that outlives its source crashes the interpreter at exit)."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        for file, _ in self._views:
            file.close()
        self._blocks.clear()


@contextmanager
def open_ranged(remote: RemoteObject, download: Callable[[], Path], *, connections: int) -> Iterator[RangedFile]:
    """Open a remote object with ``connections`` threads, besides the one in which HDF5 reads metadata.

    Where the server serves no ranges, all bytes come from ``download()``, a verified copy of the whole file.
    On exit, a failed read that HDF5 swallowed is raised in any case.
    """
    remote.fall_back_to(download)
    with _collection_paused(), ThreadPoolExecutor(connections, "fetch") as fetchers:
        file = RangedFile(remote, fetchers, download, connections)
        try:
            yield file
        except Exception:
            file.check()  # the exception may only be a consequence of a failed read
            raise
        else:
            file.check()
        finally:
            remote.stop()
            fetchers.shutdown(wait=True, cancel_futures=True)
            file.close()
            remote.close()


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Disable cyclic garbage collection while helper threads run.

    h5py holds its global lock while it reads from a file object, and also takes
    it to free its objects. A collection that starts in a thread which the file
    object waits for would never end (h5py issue 2019, and h5py's documentation
    of file-like objects).
    """
    with _gc_lock:
        _gc_holders.append(gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _gc_lock:
            was_on = _gc_holders[0]
            _gc_holders.pop()
            if not _gc_holders and was_on:
                gc.enable()
