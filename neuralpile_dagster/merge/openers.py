"""Rows of a pile from the store's session files, from repositories of a hub, or from both."""

from __future__ import annotations

import io
from contextlib import ExitStack

import pyarrow as pa

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.merge.sources import PileSource, SourceFile, source_from_parquet
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.copy_sources import OpenFile

_HUB = "hub:"  # no key of a store holds a colon
_ROWS = "data/"  # the folder of a repository's rows; its other Parquet files are other tables


class _Held(io.RawIOBase):
    """A file of a hub that leaves its ``with`` when it is closed."""

    def __init__(self, hub: Hub, repository: str, path: str) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(hub.open(repository, path))
            self._stack = stack.pop_all()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._stack.close()
        super().close()


def source_from_hub(hub: Hub, repository: str) -> PileSource:
    """A component as it is published: its ``data/*.parquet`` in path order; to be opened with `opener`.

    Raises `MergeError` when the repository has no such files, `TableError` when
    they are not of the row schema.
    """
    files = [
        SourceFile(name=f"{_HUB}{repository}:{file.path}", size=file.size, sha256=file.sha256)
        for file in hub.files(repository)
        if file.path.startswith(_ROWS) and file.path.endswith(".parquet")
    ]
    if not files:
        raise MergeError(
            f"{repository} cannot be merged",
            found="no such repository on the hub, or no data/*.parquet in it",
            remedy="publish it, or correct the list of components and extra repositories",
        )
    return source_from_parquet(repository, files, lambda name: _open_from_hub(hub, name))


def opener(store: Store, hub: Hub | None = None) -> OpenFile:
    """Opens the files of all kinds of `PileSource`: keys of the store, and what `source_from_hub` names."""

    def open_file(name: str) -> pa.NativeFile:
        if not name.startswith(_HUB):
            return store.open(name)
        if hub is None:
            raise MergeError(f"{name} is on a hub, and none was given")
        return _open_from_hub(hub, name)

    return open_file


def _open_from_hub(hub: Hub, name: str) -> pa.NativeFile:
    repository, _, path = name.removeprefix(_HUB).partition(":")
    return pa.PythonFile(_Held(hub, repository, path), mode="r")
