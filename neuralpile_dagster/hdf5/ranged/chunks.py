"""Read a chunked dataset: walk its index and, at the same time, fetch and decode the chunks it lists."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, Future
from threading import BoundedSemaphore
from typing import NamedTuple

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording
from neuralpile_dagster.hdf5.ranged.blocks import Blocks, uninitialized
from neuralpile_dagster.hdf5.ranged.decode import NotDecodable, decode_chunk, inflate_rows
from neuralpile_dagster.hdf5.ranged.layout import Chunked
from neuralpile_dagster.net.ranges import RemoteObject

_PIECE = 1 << 20  # bytes fetched at a time; held until they are decoded
_GAP = 1 << 16  # bytes between two chunks up to which both are fetched with one request
_WINDOW = 512  # chunks sorted by file offset before neighbors are joined
_LARGE = 16  # blocks; of datasets above this, blocks are dropped once they are decoded


class Chunk(NamedTuple):
    """One stored chunk: bytes ``start`` to ``stop`` of the file, filter mask, index of its first value."""

    start: int
    stop: int
    filter_mask: int
    offset: tuple[int, ...]


class Piece:
    """Neighboring chunks and the source of their bytes: a request of their own, or cached blocks."""

    def __init__(self, chunks: list[Chunk]) -> None:
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
    ) -> list[Chunk]:
        """Chunks to read, marked in ``seen``; converted at once, because single calls would slow down the decoders."""
        if not found:
            return []
        offsets = np.array([info.chunk_offset for info in found], np.uint64)
        # HDF5 never reads chunks outside the shape
        wanted: np.ndarray = np.all(offsets < np.array(layout.shape, np.uint64), axis=1)
        seen[tuple((offsets[wanted].astype(np.int64) // layout.chunk_shape).T)] = True
        chunks = [
            Chunk(info.byte_offset, info.byte_offset + info.size, info.filter_mask, info.chunk_offset)
            for info, inside in zip(found, wanted.tolist(), strict=True)
            if inside
        ]
        if chunks:
            first, last = min(chunk.start for chunk in chunks), max(chunk.stop for chunk in chunks)
            require_inside(self._remote, first, last, dataset)
        return chunks

    def _start(self, name: str, layout: Chunked, values: np.ndarray, chunks: list[Chunk]) -> None:
        """Start fetching and decoding some chunks."""
        large = values.nbytes > _LARGE * self._blocks.block_bytes
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
        size = self._blocks.block_bytes
        self._first = min(self._first, start)
        self._blocks.drop(self._first // size + 1, stop // size)

    def _done(self, future: Future[None]) -> None:
        self._failed |= future.cancelled() or future.exception() is not None
        self._room.release()

    def _find_bytes(self, piece: Piece) -> None:
        size = self._blocks.block_bytes
        missing = piece.start
        for index in range(piece.start // size, (piece.stop - 1) // size + 1):
            block = self._blocks.held(index)
            if block is None:
                continue
            self._fetch(piece, missing, index * size)
            piece.sources.append((index * size, block))
            missing = (index + 1) * size
        self._fetch(piece, missing, piece.stop)

    def _fetch(self, piece: Piece, start: int, stop: int) -> None:
        if start < stop:
            piece.sources.append((start, self._fetchers.submit(self._fetched, start, stop)))

    def _fetched(self, start: int, stop: int) -> memoryview:
        content = uninitialized(stop - start)
        self._remote.read_into(start, content)
        return content

    def _decode(self, piece: Piece, name: str, layout: Chunked, values: np.ndarray) -> None:
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

    def _decode_all(self, piece: Piece, layout: Chunked, values: np.ndarray) -> None:
        flat = values.reshape(-1).view(np.uint8)
        for chunk in piece.chunks:
            stored = piece.part(chunk.start, chunk.stop)
            if layout.is_plain and not chunk.filter_mask:
                inflate_rows(stored, layout.chunk_bytes, flat[chunk.offset[0] * layout.row_bytes :])
            else:
                decode_chunk(stored, chunk.filter_mask, chunk.offset, layout, values)


def _joined(chunks: Iterable[Chunk]) -> Iterable[Piece]:
    """Group chunks in file order into pieces of neighbors."""
    group: list[Chunk] = []
    for chunk in sorted(chunks):
        if group and (chunk.start - group[-1].stop > _GAP or chunk.stop - group[0].start > _PIECE):
            yield Piece(group)
            group = []
        group.append(chunk)
    if group:
        yield Piece(group)


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
