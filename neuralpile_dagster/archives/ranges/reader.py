"""Fetching and decoding a dataset's bytes with several connections at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

from neuralpile_dagster.archives.ranges.blocks import Blocks
from neuralpile_dagster.archives.ranges.chunks import Chunks, finish, require_inside
from neuralpile_dagster.archives.ranges.layout import Chunked, Contiguous
from neuralpile_dagster.archives.ranges.remote import RemoteObject, piece_bytes


class RangeReader:
    """Reads datasets of one object with ``connections`` threads; others decode."""

    def __init__(self, remote: RemoteObject, blocks: Blocks, fetchers: ThreadPoolExecutor, connections: int) -> None:
        self._remote = remote
        self._blocks = blocks
        self._connections = connections
        self._fetchers = fetchers
        self._decoders = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 1)), "decode")

    def close(self) -> None:
        """Stop the decoding threads; what they still had to do is dropped."""
        self._decoders.shutdown(wait=True, cancel_futures=True)

    def read(self, dataset: h5py.Dataset, layout: Contiguous | Chunked) -> np.ndarray:
        """All values of the dataset, in its own dtype."""
        values: np.ndarray = np.empty(dataset.shape, dataset.dtype)
        if isinstance(layout, Chunked):
            room = self._connections + 2  # pieces on their way or waiting for a decoder
            Chunks(self._remote, self._blocks, self._fetchers, self._decoders, room).read(dataset, layout, values)
            return values
        target = values.reshape(-1).view(np.uint8).data
        require_inside(self._remote, layout.offset, layout.offset + len(target), dataset)
        step = piece_bytes(len(target), self._connections)
        reads = [
            self._fetchers.submit(self._remote.read_into, layout.offset + at, target[at : at + step])
            for at in range(0, len(target), step)
        ]
        finish(reads)
        return values
