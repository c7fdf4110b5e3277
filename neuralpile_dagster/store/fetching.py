"""Files of the store as files of a folder: links where both lie on one disk, verified copies elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import atomic_write, explained, require_free, sha256_of, sha256_once
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import LocalStore, Store

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
"""How operating systems say that a hard link is impossible here, though a copy may be possible."""
_BLOCK = 1 << 22


def fetch(store: Store, file: StoredFile, target: Path) -> None:
    """Make ``target`` the stored file; nothing is done when it is that file already.

    Raises `StoreError` when the store's bytes are not those that were recorded,
    `DiskFull` before a copy that does not fit.
    """
    if target.is_file() and target.stat().st_size == file.size and sha256_once(target) == file.sha256:
        return
    with atomic_write(target) as aside:
        if not _linked(store, file, aside):
            require_free(target, file.size, f"a copy of {file.key}")
            with store.open(file.key) as source, aside.open("wb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)
        _require_recorded(store, file, sha256_of(aside))


def open_verified(store: Store, file: StoredFile) -> pa.NativeFile:
    """Open a stored file for random access after its digest was compared with the recorded one.

    From S3 it is first copied to the folder for temporary files, so that its bytes cross the network once. The caller
    closes it. Raises `StoreError` when the store's bytes are not those that were recorded.
    """
    if isinstance(store, LocalStore):
        path = Path(store.uri(file.key))
        store.open(file.key).close()  # says what is missing
        _require_recorded(store, file, sha256_of(path))
        return pa.OSFile(str(path), "rb")
    folder = Path(tempfile.gettempdir())
    require_free(folder, file.size, f"a copy of {file.key}")
    with explained(folder), tempfile.NamedTemporaryFile() as copy:
        digest = hashlib.sha256()
        with store.open(file.key) as source:
            while block := source.read(_BLOCK):
                digest.update(block)
                copy.write(block)
        copy.flush()
        _require_recorded(store, file, digest.hexdigest())
        return pa.OSFile(copy.name, "rb")  # readable though its name is gone


def _require_recorded(store: Store, file: StoredFile, found: str) -> None:
    if found != file.sha256:
        raise StoreError(
            f"{store.uri(file.key)} is damaged",
            found=f"sha256 {found}",
            expected=file.sha256,
            remedy="delete it and materialize the asset that makes it",
        )


def _linked(store: Store, file: StoredFile, target: Path) -> bool:
    if not isinstance(store, LocalStore):
        return False
    try:
        os.link(store.uri(file.key), target)
    except FileNotFoundError as error:
        raise StoreError(f"{store.uri(file.key)} is missing", remedy="materialize the asset that makes it") from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
