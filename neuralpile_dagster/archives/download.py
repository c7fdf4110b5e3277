"""Whole files of an archive as verified local copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from neuralpile_dagster.archives.cache import DownloadCache
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.archives.opened import LocalFile
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.archives.ranges.remote import RemoteObject, piece_bytes


def download(remote: RemoteObject, path: Path, connections: int) -> None:
    """Append to ``path`` what it lacks of the object; ``path`` may hold the beginning, from an earlier attempt.

    Pieces are fetched ``connections`` at a time and written in order, so a
    broken-off file always is a beginning. Errors as `RemoteObject.read_into`.
    """
    done = path.stat().st_size if path.exists() else 0
    if done > remote.size:
        path.unlink()
        done = 0
    step = piece_bytes(remote.size, connections)
    starts = iter(range(done, remote.size, step))
    running: deque[tuple[bytearray, Future[None]]] = deque()
    with path.open("ab") as target, ThreadPoolExecutor(connections, "download") as pool, remote.waiting():
        try:
            while True:
                while len(running) < connections and (start := next(starts, None)) is not None:
                    piece = bytearray(min(step, remote.size - start))
                    running.append((piece, pool.submit(remote.read_into, start, memoryview(piece))))
                if not running:
                    break
                piece, read = running.popleft()
                read.result()
                target.write(piece)
        finally:
            remote.stop()
            for _, read in running:
                read.cancel()


@contextmanager
def local_copy(
    cache: DownloadCache, file: ArchiveFile, connect: Callable[[], RemoteObject], connections: int
) -> Iterator[LocalFile]:
    """A verified copy of ``file`` in the cache, as an `OpenFile`; it stays in the cache while it is open.

    ``connect`` gives the remote file, anew for each attempt to download it.
    """
    cost = ReadCost()

    def fetch(path: Path) -> None:
        remote = connect()
        try:
            download(remote, path, connections)
        finally:
            cost.add(remote.cost)
            remote.close()

    with cache.hold(file, fetch) as path:
        yield LocalFile(name=file.path, path=path, cost=cost)
