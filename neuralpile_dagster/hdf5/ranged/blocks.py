"""A remote object as a seekable file of cached blocks, with bounded memory and read-ahead.

HDF5 reads a file's metadata in many small pieces. Where an index is scattered
through the data (version 1 B-trees of files with many small chunks), walking it
means one block after the other: such a walk is detected and the following blocks
are fetched in parallel, ahead of use.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Executor, Future

import numpy as np

from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.ranges import RemoteObject

BLOCK_BYTES = 1 << 20
_STEPS_TO_TRUST = 2  # forward steps in a row before anything is read ahead
_LONGEST_STEP = 2  # blocks; a longer step is a jump


def uninitialized(size: int) -> memoryview:
    """Allocate a buffer without zeroing it (zeroing costs as much as a fast network, and blocks all threads)."""
    return np.empty(size, np.uint8).data


class Blocks:
    """LRU cache of one object's blocks, limited to ``capacity_bytes``; thread-safe."""

    def __init__(
        self,
        remote: RemoteObject,
        fetchers: Executor,
        *,
        block_bytes: int = BLOCK_BYTES,
        capacity_bytes: int,
        ahead: int,
    ) -> None:
        self.remote = remote
        self.block_bytes = block_bytes
        self.count = -(-remote.size // block_bytes)
        self._fetchers = fetchers
        self._capacity = max(4, capacity_bytes // block_bytes)
        self._max_ahead = min(ahead, self._capacity // 2)
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Future[memoryview]] = OrderedDict()
        self._last, self._steps = -1, 0

    def get(self, index: int) -> memoryview:
        """Get one block (the last may be shorter), fetching it unless it is cached or in progress."""
        with self._lock:
            block = self._held.get(index)
            mine = block is None
            if block is None:
                block = self._add(index)
            else:
                self._held.move_to_end(index)
        if mine:
            # in this thread, ahead of the queue of the fetchers
            self._fetch(index, block)
        self._read_ahead(index)
        return block.result()

    def held(self, index: int) -> Future[memoryview] | None:
        """The block if it is cached or in progress; never sends a request."""
        with self._lock:
            return self._held.get(index)

    def drop(self, start: int, stop: int) -> None:
        """Evict blocks ``start`` to ``stop`` (excluded), which are unlikely to be needed again."""
        with self._lock:
            for index in [index for index in self._held if start <= index < stop]:
                del self._held[index]

    def clear(self) -> None:
        """Evict all blocks."""
        with self._lock:
            self._held.clear()

    def _add(self, index: int) -> Future[memoryview]:
        block: Future[memoryview] = Future()
        self._held[index] = block
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return block

    def _fetch(self, index: int, block: Future[memoryview]) -> None:
        start = index * self.block_bytes
        content = uninitialized(min(self.block_bytes, self.remote.size - start))
        try:
            self.remote.read_into(start, content)
        except BaseException as error:
            self.drop(index, index + 1)
            block.set_exception(error)
            if not isinstance(error, NeuralPileError):
                raise
        else:
            block.set_result(content)

    def _read_ahead(self, index: int) -> None:
        with self._lock:
            step, self._last = index - self._last, index
            if step == 0:
                return
            self._steps = self._steps + 1 if 0 < step <= _LONGEST_STEP else 0
            trust = self._steps - _STEPS_TO_TRUST
            if trust < 0:
                return
            until = min(index + min(2 << min(trust, 8), self._max_ahead), self.count - 1)
            wanted = [(ahead, self._add(ahead)) for ahead in range(index + 1, until + 1) if ahead not in self._held]
        for ahead, block in wanted:
            self._fetchers.submit(self._fetch, ahead, block)


class BlockFile(RangeFile):
    """`Blocks` as the file object that h5py reads from; it remembers the first failure.

    HDF5 may swallow exceptions of its file object (``"units" in file`` is then
    False), so check ``failure`` before trusting any result.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks.remote.size)
        self.failure: NeuralPileError | None = None
        self._blocks = blocks

    def fill(self, start: int, target: memoryview) -> int:
        """See `RangeFile.fill`; all of ``target`` is filled."""
        if self.failure is not None:
            raise self.failure
        done = 0
        try:
            with self._blocks.remote.waiting():
                while done < len(target):
                    index, inside = divmod(start + done, self._blocks.block_bytes)
                    part = self._blocks.get(index)[inside : inside + len(target) - done]
                    target[done : done + len(part)] = part
                    done += len(part)
        except NeuralPileError as error:
            self.failure = error
            raise
        return done
