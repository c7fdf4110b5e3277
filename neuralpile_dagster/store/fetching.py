"""Files of the store as files of a folder: links where both lie on one disk, verified copies elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import require_free, sha256_of, write_aside
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
    if target.is_file() and target.stat().st_size == file.size and sha256_of(target) == file.sha256:
        return
    with write_aside(target) as aside:
        if not _linked(store, file, aside):
            require_free(target, file.size, f"a copy of {file.key}")
            with store.open(file.key) as source, aside.open("wb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)
        found = sha256_of(aside)
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
        raise StoreError(f"{store.uri(file.key)} is gone", remedy="materialize the asset that makes it") from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
