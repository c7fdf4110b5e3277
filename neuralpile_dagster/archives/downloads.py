"""A bounded folder of verified downloads, shared by all processes of this machine.

Layout: ``<folder>/<algorithm>-<digest>/<base name>``, beside it ``.partial``
while it is not complete, and ``.size``, the bytes it will have. ``<folder>/.locks``
holds one empty file per entry: locked shared while the copy is open, locked
exclusively while it is made or removed; its time is that of the last use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DigestMismatch
from neuralpile_dagster.files import ReadCost, explained, require_free, sync
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.net.ranges import NoRanges, RemoteObject, piece_bytes
from neuralpile_dagster.settings import DEFAULT_CACHE_BYTES

_TRIES = 2  # a damaged transfer is likely to be right the second time; a damaged object never
_LOOK_AGAIN_S = 0.05
_UNSAFE = re.compile(r"[^A-Za-z0-9_.=+-]")


@dataclass(frozen=True)
class _Entry:
    """Where one copy is, and what it must be."""

    folder: Path
    lock: Path
    file: ArchiveFile
    algorithm: str
    digest: str

    @property
    def path(self) -> Path:
        name = _UNSAFE.sub("_", PurePosixPath(self.file.path).name)[-100:].lstrip(".")
        return self.folder / (name or "file")

    @property
    def partial(self) -> Path:
        return self.folder / ".partial"


class DownloadCache:
    """Holds at most ``max_bytes``; what was used longest ago goes first, what is open never."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._verified: set[tuple[Path, int, int, int]] = set()

    @contextmanager
    def hold(self, file: ArchiveFile, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """Yield the path of a complete copy with the listed size and digest.

        Parameters
        ----------
        file : ArchiveFile
        fetch : callable
            Makes the file at the given path complete; what is there already is its beginning.

        Raises
        ------
        DigestMismatch
            What the archive sends is not what it lists; nothing of it is kept.
        ArchiveError
            No digest is listed, or the file is larger than the cache.
        ArchiveUnavailable
            There is no room because everything in the cache is open.
        DiskFull
        """
        algorithm, digest = listed_digest(file)
        name = f"{algorithm}-{digest}"
        entry = _Entry(self.folder / name, self._locks / name, file, algorithm, digest)
        while True:
            with _locked(entry.lock, fcntl.LOCK_SH):
                if self._is_good(entry):
                    os.utime(entry.lock)
                    yield entry.path
                    return
            try:
                with _locked(entry.lock, fcntl.LOCK_EX | fcntl.LOCK_NB), explained(entry.path):
                    self._make(entry, fetch)
            except BlockingIOError:
                # another one made it meanwhile and has it open, perhaps for long: look again rather than wait for it
                time.sleep(_LOOK_AGAIN_S)

    @property
    def _locks(self) -> Path:
        return self.folder / ".locks"

    def _is_good(self, entry: _Entry) -> bool:
        """Whether a complete copy is there; looked into once per process."""
        if not entry.path.is_file():
            return False
        status = entry.path.stat()
        mark = (entry.path, status.st_size, status.st_mtime_ns, status.st_ino)
        if mark in self._verified:
            return True
        if status.st_size != entry.file.size or digest_of(entry.path, entry.algorithm) != entry.digest:
            return False
        self._verified.add(mark)
        return True

    def _make(self, entry: _Entry, fetch: Callable[[Path], None]) -> None:
        if self._is_good(entry):
            return  # another process was faster
        entry.path.unlink(missing_ok=True)
        self._make_room(entry)
        found = ""
        for _ in range(_TRIES):
            fetch(entry.partial)
            found = _wrong(entry)
            if not found:
                sync(entry.partial)
                entry.partial.replace(entry.path)
                return
            entry.partial.unlink()
        shutil.rmtree(entry.folder)
        raise DigestMismatch(
            f"{entry.file.path} does not match the archive's listing after {_TRIES} downloads",
            found=found,
            expected=f"{entry.file.size:,} bytes with {entry.algorithm} {entry.digest}",
            remedy="nothing was kept; materialize the dataset's manifest again, then this session",
        )

    def _make_room(self, entry: _Entry) -> None:
        """Reserve the file's size, removing other entries if need be."""
        size = entry.file.size
        if size > self.max_bytes:
            raise ArchiveError(
                f"{entry.file.path} is larger than the download cache",
                found=f"{size:,} bytes",
                expected=f"at most NEURALPILE_CACHE_BYTES = {self.max_bytes:,}",
                remedy="raise NEURALPILE_CACHE_BYTES, or set access to 'ranges'",
            )
        with _locked(self._locks / "all", fcntl.LOCK_EX):
            entry.folder.mkdir(parents=True, exist_ok=True)
            (entry.folder / ".size").write_text(str(size))
            for other in sorted(self._others(entry), key=_last_use):
                if self._used() <= self.max_bytes:
                    break
                self._evict(other)
            if self._used() > self.max_bytes:
                shutil.rmtree(entry.folder)
                raise ArchiveUnavailable(
                    f"the download cache has no room for {entry.file.path}",
                    found=f"{self._used():,} bytes, all of them in use",
                    expected=f"at most NEURALPILE_CACHE_BYTES = {self.max_bytes:,} with this file of {size:,}",
                    remedy="raise NEURALPILE_CACHE_BYTES, or run fewer steps at once",
                )
        there = entry.partial.stat().st_size if entry.partial.exists() else 0
        require_free(entry.folder, size - there, f"downloading {entry.file.path}")

    def _others(self, entry: _Entry) -> Iterator[Path]:
        for folder in self.folder.iterdir():
            if folder not in (self._locks, entry.folder) and folder.is_dir():
                yield self._locks / folder.name

    def _evict(self, lock: Path) -> None:
        # FileNotFoundError: whoever found that it is damaged has just removed it
        with suppress(BlockingIOError, FileNotFoundError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(self.folder / lock.name)

    def _used(self) -> int:
        used = 0
        for size in self.folder.glob("*/.size"):
            with suppress(FileNotFoundError):
                used += int(size.read_text() or 0)
        return used


def _last_use(lock: Path) -> float:
    return lock.stat().st_mtime if lock.exists() else 0.0


def _wrong(entry: _Entry) -> str:
    """What is wrong with the downloaded file; empty when nothing is."""
    size = entry.partial.stat().st_size
    if size != entry.file.size:
        return f"{size:,} bytes"
    digest = digest_of(entry.partial, entry.algorithm)
    return "" if digest == entry.digest else f"{entry.algorithm} {digest}"


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock on a file; works between threads and processes. Raises `BlockingIOError` for LOCK_NB."""
    # not filelock: its shared locks are an SQLite file's (`ReadWriteLock`), which a cache on a network disk and caches
    # in use by an older version would not share
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def download(remote: RemoteObject, path: Path, connections: int) -> None:
    """Append to ``path`` what it lacks of the object; ``path`` may hold the beginning, from an earlier attempt.

    Pieces are fetched ``connections`` at a time and written in order, so a
    broken-off file always is a beginning. Errors as `RemoteObject.read_into`.
    """
    done = path.stat().st_size if path.exists() else 0
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
            remote.stop()  # reads that run or wait for a thread fail soon


@contextmanager
def local_copy(
    cache: DownloadCache, file: ArchiveFile, connect: Callable[[], RemoteObject], connections: int
) -> Iterator[LocalFile]:
    """A verified copy of ``file`` in the cache, as an `OpenFile`; it stays in the cache while it is open.

    ``connect`` gives the remote file, anew for each attempt to download it.
    """
    cost = ReadCost()

    @contextmanager
    def connected() -> Iterator[RemoteObject]:
        remote = connect()
        try:
            yield remote
        finally:
            cost.add(remote.cost)
            remote.close()

    def fetch(path: Path) -> None:
        try:
            with connected() as remote:
                download(remote, path, connections)
        except NoRanges:
            with connected() as remote:
                remote.save_whole(path)

    with cache.hold(file, fetch) as path:
        yield LocalFile(name=file.path, path=path, cost=cost)


KNOWN = ("sha256", "dandi-etag", "md5")  # the first that is listed is verified
_HEX = re.compile(r"[0-9a-f]{32,128}(-\d{1,5})?")


def listed_digest(file: ArchiveFile) -> tuple[str, str]:
    """Algorithm and value of the digest that a copy of ``file`` must have; raises `ArchiveError` without one."""
    for algorithm in KNOWN:
        value = file.digests.get(algorithm, "").lower()
        if _HEX.fullmatch(value):
            return algorithm, value
    raise ArchiveError(
        f"{file.path} cannot be verified, so it is not downloaded",
        found=f"digests {file.digests}",
        expected=f"one of {', '.join(KNOWN)}",
        remedy="materialize the dataset's manifest again (archives compute digests some time after an upload), "
        "or set access to 'ranges'",
    )


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a local file, in hex.

    ``dandi-etag`` is the S3 multipart ETag (md5 of the parts' md5s, ``-`` and
    their number) with DANDI's own rule for the size of parts.
    """
    if algorithm == "dandi-etag":
        from dandischema.digests.dandietag import DandiETag

        etag: str = DandiETag.from_file(path).as_str()
        return etag
    with path.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
