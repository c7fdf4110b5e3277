"""Local files that appear complete or not at all."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuralpile_dagster.errors import DiskFull, StoreError

TEMPORARY_PREFIX = ".writing-"

# whether a process of another machine lives, a lock does not tell on every network file system
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it.

    On any exception the temporary file is removed and ``path`` is as it was;
    what a killed process left, the next writer in the folder removes
    (`temporary_folder`). Raises `StoreError` when the folder cannot be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as folder:
            temporary = folder / f"{TEMPORARY_PREFIX}{path.name}"[:250]
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)


@contextmanager
def temporary_folder(parent: Path, prefix: str = TEMPORARY_PREFIX) -> Iterator[Path]:
    """Yield a new folder in ``parent``, locked while it is in use and removed afterwards.

    First removes what killed processes of this machine left there: folders of
    the same prefix whose lock is free. On file systems without locks
    (``flock``; some network file systems) nothing is removed.
    """
    prefix = f"{prefix}{_MACHINE}-"
    _remove_leftovers(parent, prefix)
    folder, lock = _locked_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock."""
    while True:
        folder = parent / f"{prefix}{uuid.uuid4().hex}"
        folder.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # no locks here: then nobody else gets this one, and takes it for a leftover
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():  # else somebody took it for one before it was locked
                return folder, lock
            os.close(lock)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    with os.scandir(parent) as entries:
        found = [parent / entry.name for entry in entries if entry.name.startswith(prefix)]
    for folder in found:
        with suppress(OSError):  # in use, gone meanwhile, another user's, or no locks here
            _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` into `StoreError` and `DiskFull`."""
    try:
        yield
    except PermissionError as error:
        raise StoreError(
            f"{path} cannot be written",
            found=str(error),
            expected="a folder that this user may write to",
            remedy="change the folder's permissions, or set NEURALPILE_HOME or NEURALPILE_STORE to another one",
        ) from error
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFull(
                f"the disk became full while {path} was written",
                found=f"{free_bytes(path):,} bytes free",
                remedy="free some space and run the same thing again; nothing half-written was left",
            ) from error
        if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError) or error.errno == 30:
            raise StoreError(
                f"{path} cannot be written",
                found=str(error),
                expected="a folder that this user may write to",
                remedy="set NEURALPILE_HOME or NEURALPILE_STORE to a writable folder",
            ) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    with write_aside(path) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Have the operating system write a file or folder to the disk now."""
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
