"""Published files as pyarrow reads them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import pyarrow as pa

from neuralpile_dagster.hub.configs import config_path
from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.tables.footer import read_footer


class _Held:
    """An open file together with what it was opened with, so that closing one closes the other."""

    def __init__(self, opened: AbstractContextManager[BinaryIO]) -> None:
        self._opened = opened
        self._file = opened.__enter__()

    def close(self) -> None:
        """Close the file and what it was opened with; again does nothing."""
        if not self._file.closed:
            self._opened.__exit__(None, None, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def open_published(hub: Hub, repository: str, path: str) -> pa.NativeFile:
    """Open a published file for random access; the caller closes it. Raises as `Hub.open` does."""
    return pa.PythonFile(_Held(hub.open(repository, path)), "r")


def published_sessions(hub: Hub, repository: str) -> int:
    """How many sessions a component of ours on a hub holds; 0 when there is none, or it lists no sessions."""
    path = config_path("sessions")
    if path not in {file.path for file in hub.files(repository)}:
        return 0
    return read_footer(open_published(hub, repository, path), f"{repository}/{path}").n_rows
