"""The store in a folder of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import CLOCK_STEP_NS, TEMPORARY_PREFIX, atomic_write, file_identity
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store.model import check_key


class LocalStore:
    """A `Store` in a folder of this machine."""

    readers = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written: dict[str, tuple[str, tuple[int, ...]]] = {}  # by key: sha256, `_identity`

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def uri(self, key: str) -> str:
        """The absolute path."""
        return str(self._path(key))

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """See `Store.writing`."""
        return atomic_write(self._path(key))

    def open(self, key: str) -> pa.NativeFile:
        """See `Store.open`."""
        path = self._path(key)
        if not path.is_file():
            raise StoreError(f"{path} is not in the store", remedy="materialize the asset that makes it")
        return pa.OSFile(str(path), "rb")

    def read(self, key: str) -> bytes | None:
        """See `Store.read`."""
        path = self._path(key)
        return path.read_bytes() if path.is_file() else None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def remember(self, file: StoredFile, written: os.stat_result) -> None:
        """See `Store.remember`; not where another write so soon would leave no trace."""
        state = self._state(file.key)
        moved = state and (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        ours = written.st_dev, written.st_ino, file.size, written.st_mtime_ns
        if state and moved == ours and state.st_mtime_ns + CLOCK_STEP_NS < time.time_ns():
            self._written[file.key] = file.sha256, file_identity(state)

    def remembers(self, file: StoredFile) -> bool:
        """See `Store.remembers`."""
        if file.key not in self._written:
            return False
        state = self._state(file.key)
        return state is not None and self._written[file.key] == (file.sha256, file_identity(state))

    def _state(self, key: str) -> os.stat_result | None:
        try:
            with self._path(key).open("rb") as file:  # opened: only then do network file systems look at the server's
                return os.fstat(file.fileno())
        except OSError:
            return None

    def keys(self, prefix: str) -> Iterator[str]:
        """See `Store.keys`."""
        folder = self._path(prefix)
        found = folder.rglob("*") if folder.is_dir() else ()
        yield from sorted(
            path.relative_to(self.root).as_posix()
            for path in found
            if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX)
        )

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._path(key).unlink(missing_ok=True)
