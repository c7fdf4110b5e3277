"""The store: where intermediate results live, addressed by ``/``-separated keys.

The one place that maps keys to bytes. A key appears complete or not at all;
keys that would leave the store are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from neuralpile_dagster.archives.model import Model
from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import TEMPORARY_PREFIX, write_aside
from neuralpile_dagster.records import StoredFile

_SAFE_KEY = re.compile(r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.=+-]{0,240}(/[A-Za-z0-9][A-Za-z0-9_.=+-]{0,240})*$")
AnyModel = TypeVar("AnyModel", bound=Model)
Written = TypeVar("Written")


def check_key(key: str) -> str:
    """Return ``key``, or raise `StoreError` when it could leave the store or upset a file system."""
    if not _SAFE_KEY.match(key) or "\n" in key:
        raise StoreError(
            f"{key!r} is not a key of the store",
            expected="parts of letters, digits and _.=+- separated by /, without '..'",
        )
    return key


class Store(Protocol):
    """A folder or an S3 prefix."""

    def uri(self, key: str) -> str:
        """Where a person or another program finds the key."""
        ...

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """Yield a local path to write to; on success its content appears under ``key``, at once."""
        ...

    def open(self, key: str) -> pa.NativeFile:
        """Open for random-access reading. Raises `StoreError` when there is no such key."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes under ``key``, or None when there is no such key."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """All complete keys below the folder ``prefix``, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens when it is not there."""
        ...


class LocalStore:
    """A `Store` in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def uri(self, key: str) -> str:
        """The absolute path."""
        return str(self._path(key))

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """See `Store.writing`."""
        return write_aside(self._path(key))

    def open(self, key: str) -> pa.NativeFile:
        """See `Store.open`."""
        path = self._path(key)
        if not path.is_file():
            raise StoreError(f"{path} is not in the store", remedy="materialize the asset that makes it")
        return pa.OSFile(str(path), "rb")

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def keys(self, prefix: str) -> Iterator[str]:
        """See `Store.keys`."""
        folder = self._path(prefix)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX):
                yield path.relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._path(key).unlink(missing_ok=True)


def open_store(location: str) -> Store:
    """The store at a folder or ``s3://bucket/prefix``."""
    if location.startswith("s3://"):
        raise StoreError(f"{location}: stores on S3 are not available yet", remedy="set NEURALPILE_STORE to a folder")
    return LocalStore(Path(location).expanduser().absolute())


def put_file(store: Store, key: str, write: Callable[[Path], Written]) -> tuple[StoredFile, Written]:
    """Let ``write`` make a local file and store it under ``key``; give its `StoredFile` and what ``write`` returned."""
    with store.writing(key) as path:
        result = write(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        stored = StoredFile(key=key, size=path.stat().st_size, sha256=digest)
    return stored, result


def write_record(store: Store, key: str, record: Model) -> None:
    """Store a record as JSON."""
    with store.writing(key) as path:
        path.write_text(record.model_dump_json(indent=1) + "\n")


def read_record(store: Store, key: str, kind: type[AnyModel]) -> AnyModel | None:
    """The record under ``key``, or None when there is none or it is of an older form."""
    if store.size(key) is None:
        return None
    with store.open(key) as file:
        text = file.read()
    try:
        return kind.model_validate_json(text)
    except ValueError as error:
        raise StoreError(
            f"{store.uri(key)} is not a {kind.__name__}",
            found=str(error).splitlines()[0],
            remedy="delete that file and materialize the asset that makes it",
        ) from error


def is_intact(store: Store, file: StoredFile) -> bool:
    """Whether the file is there with its recorded size (its digest is an asset check's business)."""
    return store.size(file.key) == file.size
