"""Read a remote HDF5 file: its metadata through cached blocks, its chunked datasets chunk by chunk.

HDF5 reads a file's metadata in many small pieces, which `Blocks` cuts out of larger ones, with bounded memory. Where an
index is scattered through the data (version 1 B-trees of files with many small chunks), walking it means one block
after the other: such a walk is detected and the following blocks are fetched in parallel, ahead of use. `Chunks`
fetches and decodes what the walk lists while it goes on. How a chunk is decoded belongs in `layout`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from threading import BoundedSemaphore
from typing import NamedTuple

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording, NeuralPileError
from neuralpile_dagster.hdf5.layout import Chunked, NotDecodable, decode_chunk, inflate_rows
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.ranges import RemoteObject

_BLOCK_BYTES = 1 << 20
_STEPS_TO_TRUST = 2  # forward steps in a row before anything is read ahead
_LONGEST_STEP = 2  # blocks; a longer step is a jump
_PIECE = 1 << 20  # bytes fetched at a time; held until they are decoded
_GAP = 1 << 16  # bytes between two chunks up to which both are fetched with one request
_WINDOW = 512  # chunks sorted by file offset before neighbors are joined
_LARGE = 16  # blocks; of datasets above this, blocks are dropped once they are decoded


class Blocks:
    """LRU cache of one object's blocks, limited to ``capacity_bytes``; thread-safe."""

    def __init__(self, remote: RemoteObject, fetchers: Executor, *, capacity_bytes: int, ahead: int) -> None:
        self.remote = remote
        self._count = -(-remote.size // _BLOCK_BYTES)
        self._fetchers = fetchers
        self._capacity = max(4, capacity_bytes // _BLOCK_BYTES)
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
        start = index * _BLOCK_BYTES
        content = _uninitialized(min(_BLOCK_BYTES, self.remote.size - start))
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
            until = min(index + min(2 << min(trust, 8), self._max_ahead), self._count - 1)
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
                    index, inside = divmod(start + done, _BLOCK_BYTES)
                    part = self._blocks.get(index)[inside : inside + len(target) - done]
                    target[done : done + len(part)] = part
                    done += len(part)
        except NeuralPileError as error:
            self.failure = error
            raise
        return done


class _Chunk(NamedTuple):
    """One stored chunk: bytes ``start`` to ``stop`` of the file, filter mask, index of its first value."""

    start: int
    stop: int
    filter_mask: int
    offset: tuple[int, ...]


class _Piece:
    """Neighboring chunks and the source of their bytes: a request of their own, or cached blocks."""

    def __init__(self, chunks: list[_Chunk]) -> None:
        self.chunks = chunks
        self.start, self.stop = chunks[0].start, max(chunk.stop for chunk in chunks)
        self.sources: list[tuple[int, Future[memoryview]]] = []  # in order: file offset, bytes
        self._held: list[tuple[int, memoryview]] = []

    def wait(self) -> None:
        """Wait until all bytes have arrived."""
        self._held = [(first, source.result()) for first, source in self.sources]

    def replace(self, content: memoryview) -> None:
        """Replace the bytes from the first chunk to the last."""
        self._held = [(self.start, content)]

    def part(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the file; copied only if they come from two sources."""
        parts = [
            held[max(start - first, 0) : stop - first]
            for first, held in self._held
            if first < stop and start < first + len(held)
        ]
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


class Chunks:
    """Fetch and decode chunks with the given threads.

    Chunks that lie close together in the file are fetched with one request.
    Bytes in blocks that the index walk cached are not fetched again. At most
    ``room`` pieces are held at a time, which bounds the memory.
    """

    def __init__(self, remote: RemoteObject, blocks: Blocks, fetchers: Executor, decoders: Executor, room: int) -> None:
        self._remote = remote
        self._blocks = blocks
        self._fetchers = fetchers
        self._decoders = decoders
        self._room = BoundedSemaphore(room)
        self._running: list[Future[None]] = []
        self._failed = False
        self._first = remote.size  # lowest offset of the chunks known so far

    def read(self, dataset: h5py.Dataset, layout: Chunked, values: np.ndarray) -> None:
        """Fill ``values`` (C order, the dataset's shape and dtype).

        Raises `DamagedRecording` when chunks lie outside the file or cannot be decoded.
        """
        seen = np.zeros(layout.grid, bool)
        found: list[h5py.h5d.StoreInfo] = []

        def visit(info: h5py.h5d.StoreInfo) -> None:
            found.append(info)
            if len(found) == _WINDOW:
                start()

        def start() -> None:
            self._start(dataset.name, layout, values, self._chunks(dataset, layout, found, seen))
            found.clear()

        try:
            dataset.id.chunk_iter(visit)
            start()
        finally:
            finish(self._running)
        for index in np.argwhere(~seen):
            place = tuple(slice(at * step, (at + 1) * step) for at, step in zip(index, layout.chunk_shape, strict=True))
            values[place] = dataset.fillvalue

    def _chunks(
        self, dataset: h5py.Dataset, layout: Chunked, found: list[h5py.h5d.StoreInfo], seen: np.ndarray
    ) -> list[_Chunk]:
        """Chunks to read, marked in ``seen``; converted at once, because single calls would slow down the decoders."""
        if not found:
            return []
        offsets = np.array([info.chunk_offset for info in found], np.uint64)
        # HDF5 never reads chunks outside the shape
        wanted: np.ndarray = np.all(offsets < np.array(layout.shape, np.uint64), axis=1)
        seen[tuple((offsets[wanted].astype(np.int64) // layout.chunk_shape).T)] = True
        chunks = [
            _Chunk(info.byte_offset, info.byte_offset + info.size, info.filter_mask, info.chunk_offset)
            for info, inside in zip(found, wanted.tolist(), strict=True)
            if inside
        ]
        if chunks:
            first, last = min(chunk.start for chunk in chunks), max(chunk.stop for chunk in chunks)
            require_inside(self._remote, first, last, dataset)
        return chunks

    def _start(self, name: str, layout: Chunked, values: np.ndarray, chunks: list[_Chunk]) -> None:
        """Start fetching and decoding some chunks."""
        large = values.nbytes > _LARGE * _BLOCK_BYTES
        for piece in _joined(chunks):
            self._room.acquire()
            if self._failed:
                finish(self._running)
            self._find_bytes(piece)
            future = self._decoders.submit(self._decode, piece, name, layout, values)
            future.add_done_callback(self._done)
            self._running.append(future)
        if large and chunks:
            self._drop_blocks(min(chunk.start for chunk in chunks), max(chunk.stop for chunk in chunks))

    def _drop_blocks(self, start: int, stop: int) -> None:
        """Evict blocks behind the walk: their chunks are being decoded."""
        self._first = min(self._first, start)
        self._blocks.drop(self._first // _BLOCK_BYTES + 1, stop // _BLOCK_BYTES)

    def _done(self, future: Future[None]) -> None:
        self._failed |= future.cancelled() or future.exception() is not None
        self._room.release()

    def _find_bytes(self, piece: _Piece) -> None:
        missing = piece.start
        for index in range(piece.start // _BLOCK_BYTES, (piece.stop - 1) // _BLOCK_BYTES + 1):
            block = self._blocks.held(index)
            if block is None:
                continue
            self._fetch(piece, missing, index * _BLOCK_BYTES)
            piece.sources.append((index * _BLOCK_BYTES, block))
            missing = (index + 1) * _BLOCK_BYTES
        self._fetch(piece, missing, piece.stop)

    def _fetch(self, piece: _Piece, start: int, stop: int) -> None:
        if start < stop:
            piece.sources.append((start, self._fetchers.submit(self._fetched, start, stop)))

    def _fetched(self, start: int, stop: int) -> memoryview:
        content = _uninitialized(stop - start)
        self._remote.read_into(start, content)
        return content

    def _decode(self, piece: _Piece, name: str, layout: Chunked, values: np.ndarray) -> None:
        piece.wait()
        try:
            self._decode_all(piece, layout, values)
        except NotDecodable:
            # damaged file or transfer error? TCP's checksums miss some errors; deflate's does not
            piece.replace(self._fetched(piece.start, piece.stop))
            try:
                self._decode_all(piece, layout, values)
            except NotDecodable as error:
                raise DamagedRecording(
                    f"{self._remote.name}: {name} cannot be decoded",
                    found=f"{error}, twice, in bytes {piece.start:,} to {piece.stop:,}",
                    remedy="set access to 'download'; if that fails too, report the file to the archive",
                ) from error

    def _decode_all(self, piece: _Piece, layout: Chunked, values: np.ndarray) -> None:
        flat = values.reshape(-1).view(np.uint8)
        for chunk in piece.chunks:
            stored = piece.part(chunk.start, chunk.stop)
            if layout.is_plain and not chunk.filter_mask:
                inflate_rows(stored, layout.chunk_bytes, flat[chunk.offset[0] * layout.row_bytes :])
            else:
                decode_chunk(stored, chunk.filter_mask, chunk.offset, layout, values)


def _joined(chunks: Iterable[_Chunk]) -> Iterable[_Piece]:
    """Group chunks in file order into pieces of neighbors."""
    group: list[_Chunk] = []
    for chunk in sorted(chunks):
        if group and (chunk.start - group[-1].stop > _GAP or chunk.stop - group[0].start > _PIECE):
            yield _Piece(group)
            group = []
        group.append(chunk)
    if group:
        yield _Piece(group)


def finish(futures: list[Future[None]]) -> None:
    """Wait for all; on the first failure cancel pending ones, wait for the rest and raise it."""
    try:
        for future in futures:
            future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()
        raise


def require_inside(remote: RemoteObject, start: int, stop: int, dataset: h5py.Dataset) -> None:
    """Raise `DamagedRecording` when bytes ``start`` to ``stop`` are not inside the file."""
    if not 0 <= start <= stop <= remote.size:
        raise DamagedRecording(
            f"{remote.name}: {dataset.name} reaches beyond the end of the file",
            found=f"{remote.size:,} bytes",
            expected=f"at least {stop:,}",
            remedy="the file in the archive is truncated; report it to the archive",
        )


def _uninitialized(size: int) -> memoryview:
    """Allocate a buffer without zeroing it (zeroing costs as much as a fast network, and blocks all threads)."""
    return np.empty(size, np.uint8).data
