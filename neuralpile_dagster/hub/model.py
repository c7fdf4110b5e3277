"""What a hub is: a place that holds published datasets, each a folder of files with a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from neuralpile_dagster.progress import Progress


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a published dataset: path inside the repository, bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What publishing did.

    ``changed`` is false when the repository already held exactly these files;
    ``bytes_sent`` counts the bytes of file content that had to be copied or uploaded.
    ``url`` is where a person looks at it.
    """

    repository: str
    version: str
    url: str
    changed: bool
    files: tuple[RepositoryFile, ...]
    bytes_sent: int
    seconds: float


class Hub(Protocol):
    """Where datasets are published. Implementations: `local.LocalHub`, `huggingface.HuggingFaceHub`."""

    def publish(self, name: str, folder: Path, progress: Progress = print) -> Publication:
        """Make repository ``<namespace>/<name>`` hold exactly the files under ``folder``.

        Atomic for readers: they see the old version or the new one. Safe to call
        again after any failure. Raises `HubError`, `HubUnavailable`, `HubConflict`.
        """
        ...

    def files(self, name: str) -> tuple[RepositoryFile, ...]:
        """The files of the repository's current version, in path order; empty when there is none."""
        ...

    def open(self, name: str, path: str) -> AbstractContextManager[BinaryIO]:
        """Open one file of the current version for seekable reading."""
        ...

    def repositories(self) -> Iterator[str]:
        """Names of the namespace's repositories."""
        ...


class LoadableHub(Hub, Protocol):
    """A hub whose repositories `datasets.load_dataset` finds."""

    def path(self, name: str) -> Path | str:
        """What to give to `datasets.load_dataset`."""
        ...
