"""Where what is published is read from: a folder, the Hugging Face Hub, or S3, at one version of it.

Lists the files of that version and opens them for reading by ranges, and opens the tokenizer of a dataset of tokens,
two small files. What is in the other files belongs to `pile`, what a tokenizer does to `motifs`, which is imported only
when one is opened: it needs numba.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuralpile_dagster.errors import ConfigurationError, DocumentError, HubError, TableError
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.tables.footer import GET_AGAIN

if TYPE_CHECKING:
    from neuralpile_dagster.motifs.tokens import Tokenizer
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

    name: str
    place: str
    revision: str | None
    paths: frozenset[str]
    is_remote: bool

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
            remedy="give the folder of the dataset, in which README.md is" if folder.is_file() else _local_names(text),
        )
    return _OnTheHub(found["name"], revision or found["revision"], cache)


def _local_names(asked: str) -> str:
    """What this machine's local hub holds, or the folder of what was asked for; empty where it has neither."""
    from neuralpile_dagster.hub.local import LocalHub

    try:
        settings = Settings.from_environment()
        hub = LocalHub(settings.home / "hub", settings.namespace)
        names = list(hub.repositories())
    except (ConfigurationError, HubError, OSError, RuntimeError):  # which are not what is wrong here
        return ""  # (RuntimeError: who has no home)
    if asked in names:
        return f"give the folder of it: {hub.path(asked)}"
    return f"choose one of {hub.root / hub.namespace}: {', '.join(names)}" if names else ""


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

    def require_published(self, path: str, content: bytes) -> None:
        """Raise `DocumentError` where a local hub lists another digest of a file; a copy of its folder has no list."""
        from neuralpile_dagster.hub.local import listing

        try:
            stated = {file.path: file.sha256 for file in listing(self._folder)} if self.revision else {}
        except FileNotFoundError:
            return
        found = hashlib.sha256(content).hexdigest()
        if stated.get(path, found) != found:
            raise DocumentError(
                f"{self.place}/{path} is damaged", found=f"sha256 {found}", expected=stated[path], remedy=GET_AGAIN
            )


class _OnTheHub:
    """A repository of the Hugging Face Hub at one commit."""

    is_remote = True

    def __init__(self, full_name: str, revision: str | None, cache: bool) -> None:
        from neuralpile_dagster.hub.huggingface import HuggingFaceHub

        owner, _, self.name = full_name.partition("/")
        self._pinned = HuggingFaceHub.from_environment(owner).pin(full_name, revision)
        self._cache = cache
        self.revision: str | None = self._pinned.commit
        self.place = f"hf://datasets/{full_name}@{self.revision}"
        self.paths = frozenset(filter(_is_read, self._pinned.sizes))

    def has(self, path: str) -> bool:
        return path in self._pinned.sizes

    def open(self, path: str, *, whole: bool = False) -> RangeFile:
        if path not in self._pinned.sizes:
            raise HubError(f"{self.place}/{path} is missing", found="no such file in this repository")
        return _LocalFile(self._pinned.download(path)) if self._cache and whole else self._pinned.open(path)


class _Bucket:
    """A copy of a published folder on S3."""

    is_remote = True
    revision: str | None = None

    def __init__(self, location: str) -> None:
        self.place, self.name = location, location.rpartition("/")[2]
        self._stores: dict[int, S3Store] = {}
        self.paths = frozenset(key for name in FOLDERS for key in self._store.keys(name) if _is_read(key))

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
    folder, _, name = path.partition("/")
    return folder in FOLDERS and "/" not in name and name.endswith(".parquet")


def read(file: RangeFile, start: int, length: int, name: str) -> bytearray:
    """Bytes of an opened file, all of them; raises `TableError` with its ``name`` where it ends before."""
    content, done = bytearray(length), 0
    while done < length:
        try:
            done += file.fill(start + done, memoryview(content)[done:])
        except OSError as error:
            raise TableError(f"{name} cannot be read", found=str(error)) from error
    return content


def open_tokenizer(source: str | Path, revision: str | None = None) -> Tokenizer:
    """Open the tokenizer that a dataset of tokens was made with; reads two small files.

    Parameters
    ----------
    source : str or Path
        A folder of a local hub or a copy of one, ``owner/name`` on the Hugging Face Hub (HF_TOKEN and HF_ENDPOINT are
        heeded), or ``s3://bucket/prefix`` (``AWS_*`` are heeded).
    revision : str, optional
        Branch, tag or commit on the Hugging Face Hub, main when not given.

    Returns
    -------
    neuralpile_dagster.motifs.Tokenizer

    Raises
    ------
    HubError, StoreError
        There is no such dataset, or it has no tokenizer.
    DocumentError, TableError
        The files are damaged, or of a newer version.
    TransientError
        The hub or S3 cannot be reached now.
    """
    from neuralpile_dagster.motifs.records import TOKENIZER_FILE, VOCABULARY_FILE
    from neuralpile_dagster.motifs.tokens import Tokenizer
    from neuralpile_dagster.motifs.vocabulary import parse_files

    if Path(source).expanduser().is_file():
        raise _no_tokenizer(str(source), "a file")
    repository = open_repository(source, revision)
    if not repository.has(TOKENIZER_FILE):
        raise _no_tokenizer(repository.place, f"no {TOKENIZER_FILE}")
    contents = []
    for path in (TOKENIZER_FILE, VOCABULARY_FILE):
        with repository.open(path, whole=True) as file:
            contents.append(file.readall())
        if isinstance(repository, _Folder):
            repository.require_published(path, contents[-1])
    return Tokenizer(parse_files(repository.place, *contents))


def _no_tokenizer(place: str, found: str) -> HubError:
    return HubError(
        f"{place} is no tokenized pile",
        found=found,
        expected="a folder or repository with tokenizer.json and vocabulary.parquet",
        remedy="name that of a pile's tokens, <pile>-1x15-32k or with another shape or size",
    )
