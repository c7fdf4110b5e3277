"""Where a published dataset is read from: a folder, the Hugging Face Hub, or S3, at one version of it.

Lists the files of that version and opens them for reading by ranges. What is in the files belongs to `pile`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.net.range_file import RangeFile

if TYPE_CHECKING:
    from neuralpile_dagster.hub.huggingface.read import PinnedRepository
    from neuralpile_dagster.store.s3 import S3Store

FOLDERS = (
    "data",
    "intervals",
    "segments",
    "sessions",
    "splits",
    "token_counts",
    "unit_metrics",
    "units",
)
"""Folders of a repository that are looked at; each but ``data`` is a config of one file."""
_VERSIONS = ".versions"
"""Where a local hub keeps what its links point to."""
_REPOSITORY = re.compile(r"(hf://datasets/)?(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]+))?")


class Repository(Protocol):
    """One version of a published dataset.

    Attributes
    ----------
    name : str
        Name without owner: the ``source_dataset`` of a component's rows.
    place : str
        Where a person finds it.
    revision : str or None
        Commit on the Hugging Face Hub, version in a local hub; None where there are no versions.
    paths : frozenset of str
        Its Parquet files.
    is_remote : bool
        Whether reading costs a round trip over a network.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def place(self) -> str: ...  # noqa: D102

    @property
    def revision(self) -> str | None: ...  # noqa: D102

    @property
    def paths(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def is_remote(self) -> bool: ...  # noqa: D102

    def has(self, path: str) -> bool:
        """Whether there is such a file, listed in ``paths`` or not."""
        ...

    def open(self, path: str, *, whole: bool = False) -> RangeFile:
        """Open a file by ranges; ``whole``: much of it will be read, so a cache may fetch all of it."""
        ...


def open_repository(source: str | Path, revision: str | None = None, cache: bool = False) -> Repository:
    """Find a published dataset; see `pile.Pile.open`."""
    text = str(source)
    if text.startswith("s3://"):
        if revision is not None:
            raise HubError(f"{text} has no revisions", found=revision, remedy="leave the revision out")
        return _Bucket(text.rstrip("/"))
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _Folder(folder, revision)
    found = _REPOSITORY.fullmatch(text)
    if isinstance(source, Path) or folder.is_file() or not found:
        raise HubError(
            f"{text} is not a published dataset",
            found="a file" if folder.is_file() else "no such folder",
            expected="a folder, owner/name on the Hugging Face Hub, or s3://bucket/prefix",
            remedy="give the folder of the dataset, in which README.md is" if folder.is_file() else "",
        )
    return _OnTheHub(found["name"], revision or found["revision"], cache)


class _LocalFile(RangeFile):
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        super().__init__(os.fstat(self._descriptor).st_size)

    def fill(self, start: int, target: memoryview) -> int:
        # pread: processes that a fork made share the descriptor, and its position
        found = os.pread(self._descriptor, len(target), start)
        if not found:
            raise OSError(f"the file ends before byte {start:,}")
        target[: len(found)] = found
        return len(found)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Folder:
    """A folder; of a local hub, the version that is current now."""

    is_remote = False

    def __init__(self, folder: Path, revision: str | None) -> None:
        self.place, self.name = str(folder), folder.absolute().name
        self._folder = folder.resolve()
        self.revision = self._folder.name if self._folder.parent.parent.name == _VERSIONS else None
        if revision is not None and revision != self.revision:
            raise HubError(
                f"{folder} is not at revision {revision}",
                found=f"version {self.revision}" if self.revision else "a folder without versions",
                expected="the current version, the one that a local hub keeps",
            )
        found = (path for name in FOLDERS for path in (self._folder / name).glob("*.parquet"))
        self.paths = frozenset(path.relative_to(self._folder).as_posix() for path in found)

    def has(self, path: str) -> bool:
        return (self._folder / path).is_file()

    def open(self, path: str, *, whole: bool = False) -> RangeFile:
        try:
            return _LocalFile(self._folder / path)
        except FileNotFoundError as error:
            raise HubError(
                f"{self.place}/{path} is missing",
                found="no such file, or the folder was replaced or removed while it was read",
                remedy="open the pile again; to keep a version while others are published, read a copy of the folder",
            ) from error


@dataclass(frozen=True)
class _OnTheHub:
    """A repository of the Hugging Face Hub at one commit."""

    full_name: str
    asked: str | None
    cache: bool
    is_remote = True

    @cached_property
    def _pinned(self) -> PinnedRepository:
        from neuralpile_dagster.hub.huggingface import HuggingFaceHub

        return HuggingFaceHub.from_environment(self.full_name.partition("/")[0]).pin(self.full_name, self.asked)

    @property
    def name(self) -> str:
        return self.full_name.partition("/")[2]

    @property
    def place(self) -> str:
        return f"hf://datasets/{self.full_name}@{self.revision}"

    @property
    def revision(self) -> str:
        return self._pinned.commit

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(path for path in self._pinned.sizes if _is_read(path))

    def has(self, path: str) -> bool:
        return path in self._pinned.sizes

    def open(self, path: str, *, whole: bool = False) -> RangeFile:
        if path not in self._pinned.sizes:
            raise HubError(f"{self.place}/{path} is missing", found="no such file in this repository")
        return _LocalFile(self._pinned.download(path)) if self.cache and whole else self._pinned.open(path)


class _Bucket:
    """A copy of a published folder on S3."""

    is_remote = True
    revision = None

    def __init__(self, location: str) -> None:
        self.place, self.name = location, location.rpartition("/")[2]
        self._stores: dict[int, S3Store] = {}
        paths = [key for name in FOLDERS for key in self._store.keys(name)]
        self.paths = frozenset(filter(_is_read, paths))

    @property
    def _store(self) -> S3Store:
        # one for each process: two must not talk over one connection
        from neuralpile_dagster.store.s3 import open_s3_store

        if os.getpid() not in self._stores:
            self._stores = {os.getpid(): open_s3_store(self.place, what=self.place)}
        return self._stores[os.getpid()]

    def has(self, path: str) -> bool:
        return self._store.size(path) is not None

    def open(self, path: str, *, whole: bool = False) -> RangeFile:
        return self._store.open_ranges(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}}


def _is_read(path: str) -> bool:
    return path.endswith(".parquet") and path.count("/") == 1 and path.startswith(tuple(f"{name}/" for name in FOLDERS))
