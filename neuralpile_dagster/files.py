"""Local files: atomic writes, locks, digests and free space. What the files contain belongs elsewhere."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from neuralpile_dagster.errors import ConfigurationError, DiskFull, StoreError
from neuralpile_dagster.progress import Progress

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TEMPORARY_PREFIX = ".writing-"
_OURS = f"{TEMPORARY_PREFIX}{'[0-9a-f]' * 32}*"
"""Pattern of `temporary_name`, unlike any name that a person gives; matching files may be removed."""
ENOUGH_FILES = 1024
"""Open files that a process needs: connections, databases, threads; the usual limit of a Linux shell."""
ENOUGH_ADDRESSES = 1_500_000_000
"""Bytes of address space that a process needs for imports and threads; with less, a thread may wait for ever."""
ABANDONED_AFTER_S = 3 * 24 * 3600
"""Age of the last write after which a temporary is from a killed process: writers write every few seconds."""
CLOCK_STEP_NS = 20_000_000
"""Nanoseconds within which two writes may get the same time from the file system (Linux: 1 to 10 ms)."""
_MOST_DIGESTS = 100_000
_DIGESTS: dict[tuple[int, ...], str] = {}
"""sha256 of files that this process has read, by `file_identity`."""


def temporary_name(name: str = "") -> str:
    """Unused name for a temporary file that will become ``name``."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}"[:250]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it.

    On any exception the temporary file is removed and ``path`` is unchanged;
    temporaries of killed processes in the folder are removed after some days.
    Raises `StoreError` when the folder cannot be written.
    """
    temporary = path.parent / temporary_name(path.name)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert `OSError` while writing ``path`` to `StoreError` or `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise too_many_files(error) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk became full while {path} was written",
                found=f"{free_bytes(path):,} bytes free",
                remedy="free some space and run it again; no partial file was left",
            ) from error
        # ENOENT: /proc and others take no new folder
        kinds = (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError, FileNotFoundError)
        if not isinstance(error, kinds) and error.errno != errno.EROFS:
            raise
        denied = "change the folder's permissions, or " if isinstance(error, PermissionError) else ""
        another = "choose a writable folder: with NEURALPILE_HOME or NEURALPILE_STORE, or as the command's output"
        raise StoreError(
            f"{path} cannot be written",
            found=str(error),
            expected="a folder that this user may write to",
            remedy=denied + another,
        ) from error


def too_many_files(error: Exception) -> StoreError:
    """The error for a process that may open no more files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return StoreError(
        "this process may not open another file",
        found=f"{error}; the limit is {limit:,} open files",
        expected=f"at least {ENOUGH_FILES:,}",
        remedy=f"raise the limit and run it again: ulimit -n {ENOUGH_FILES}",
    )


def require_address_space() -> None:
    """Raise `ConfigurationError` when ``ulimit -v`` leaves this process less than `ENOUGH_ADDRESSES`."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ENOUGH_ADDRESSES:
        raise ConfigurationError(
            "this process may not use enough memory",
            found=f"a limit of {limit / 1e9:.2f} GB of address space (ulimit -v)",
            expected=f"at least {ENOUGH_ADDRESSES / 1e9:g} GB",
            remedy="raise the limit and run it again: ulimit -v unlimited",
        )


def resource_error(error: BaseException | None) -> StoreError | None:
    """Our error when this process ran out of memory, files or disk, or its databases (SQLite's) did; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return too_many_files(error)
        if isinstance(error, MemoryError):
            return StoreError(
                "this process ran out of memory",
                found=str(error) or "no free memory",
                remedy="free some memory or raise the limit (ulimit -v) and run it again; what is done is kept",
            )
        if isinstance(error, sqlite3.OperationalError) and any(text in str(error) for text in _SQLITE_RESOURCES):
            return StoreError(
                "Dagster's databases in the home cannot be used",
                found=str(error),
                remedy="check memory (ulimit -v), open files (ulimit -n), free disk and the permissions of the home",
            )
        error = error.__cause__ or error.__context__
    return None


_SQLITE_RESOURCES = ("unable to open", "out of memory", "disk I/O", "is full", "readonly")
"""Parts of SQLite's own texts (sqlite.org/rescode.html) for what the machine lacks; others are defects."""


@lru_cache(maxsize=10_000)  # once per process and folder
def remove_abandoned(folder: Path, pattern: str = _OURS) -> None:
    """Remove this user's temporaries in ``folder`` whose last write is `ABANDONED_AFTER_S` ago."""
    oldest = time.time() - ABANDONED_AFTER_S
    for path in folder.glob(pattern):
        # other processes remove and rename files meanwhile: ignore missing ones, the next process finds the rest
        with suppress(FileNotFoundError):
            if path.lstat().st_uid == os.getuid() and _last_written(path) < oldest:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _last_written(path: Path) -> float:
    """The newest modification time (s since 1970) of a file, or of a folder and all in it."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return max(each.lstat().st_mtime for each in (path, *inside))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds ``path`` (or would)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def require_free(path: Path, needed: int, purpose: str) -> None:
    """Raise `DiskFull` unless ``needed`` bytes (and a tenth more) are free where ``path`` lies."""
    needed += needed // 10
    available = free_bytes(path)
    if available < needed:
        raise DiskFull(
            f"not enough free disk for {purpose} at {path}",
            found=f"{available:,} bytes available",
            expected=f"{needed:,} bytes needed",
            remedy="free some space, or set NEURALPILE_HOME or NEURALPILE_STORE to a larger disk, and run it again",
        )


class DigestWriter(io.BufferedWriter):
    """A new file whose sha256 is that of the bytes as they are written, whatever the disk makes of them.

    Parameters
    ----------
    path : Path
        Created, or emptied.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.path = path
        self._sha256 = hashlib.sha256()

    def write(self, content: ReadableBuffer, /) -> int:
        """Append bytes."""
        self._sha256.update(content)
        return super().write(content)

    def hexdigest(self) -> str:
        """Digest of the bytes written so far (hex)."""
        return self._sha256.hexdigest()


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_identity(state: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or written to, even if its size and time of writing are set as before."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def sha256_once(path: Path) -> str:
    """`sha256_of`, read again only if the file was replaced or written to since this process last read it.

    Publishing and its checks ask several times for the digest of a file of some GB, also by other hard links. Not kept
    is that of a file written to so recently that another write might leave no trace. What a disk itself damages leaves
    no trace either: the process that has read the file does not see it, the next one (a run, a check) reads it again.
    """
    with path.open("rb") as file:  # opened: only then do network file systems look at the server's
        state = os.fstat(file.fileno())
        identity = file_identity(state)
        if identity in _DIGESTS:
            return _DIGESTS[identity]
        settled = state.st_ctime_ns + CLOCK_STEP_NS < time.time_ns()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if settled and file_identity(os.fstat(file.fileno())) == identity:
            if len(_DIGESTS) >= _MOST_DIGESTS:
                _DIGESTS.clear()
            _DIGESTS[identity] = digest
    return digest


@dataclass
class ReadCost:
    """Cost of reading so far: bytes transferred from network or disk, seconds of waiting."""

    bytes_read: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    def add(self, other: ReadCost) -> None:
        """Add another cost to this one."""
        self.bytes_read += other.bytes_read
        self.requests += other.requests
        self.retries += other.retries
        self.seconds += other.seconds


@contextmanager
def locked(path: Path, progress: Progress, waiting_for: str) -> Iterator[None]:
    """Hold the lock of the file ``path``; report it when another process or thread has it, and wait.

    The operating system releases the lock when its holder ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process: {waiting_for}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_lock(path: Path) -> FileLock:
    """A lock that the operating system releases when its holder ends; a soft lock would outlive a killed process."""
    return FileLock(path, fallback_to_soft=False)
