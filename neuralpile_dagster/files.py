"""Local files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralpile_dagster.errors import DiskFull, StoreError

TEMPORARY_PREFIX = ".writing-"


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it.

    On any exception the temporary file is removed and ``path`` is as it was.
    Raises `StoreError` when the folder cannot be written.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}"[:250]
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


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
