"""The store in a folder of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import TEMPORARY_PREFIX, atomic_write
from neuralpile_dagster.store.model import check_key


class LocalStore:
    """A `Store` in a folder of this machine."""

    readers = 1

    def __init__(self, root: Path) -> None:
        self.root = root

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
