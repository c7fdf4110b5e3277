"""The store: where intermediate results live, addressed by ``/``-separated keys, in a folder of this machine or on S3.

The one place that maps keys to bytes. A key appears complete or not at all; keys that would leave the store are
refused. What every store can do is here, and the store in a folder; the one on S3 is in `s3`. What is in the files
belongs elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from neuralpile_dagster.errors import DocumentError, NewerDocument, StoreError
from neuralpile_dagster.files import (
    CLOCK_STEP_NS,
    TEMPORARY_PREFIX,
    DigestWriter,
    atomic_write,
    explained,
    file_identity,
    require_free,
    sha256_of,
    sha256_once,
)
from neuralpile_dagster.records import AnyModel, Model, StoredFile, document, read_document

MAX_KEY_LENGTH = 600
"""With a prefix of as many as `MAX_PREFIX_LENGTH` characters it stays below the 1,024 bytes that S3 allows."""
MAX_PREFIX_LENGTH = 400
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
"""How operating systems say that a hard link is impossible here, though a copy may be possible."""
_BLOCK = 1 << 22

# longer names of files do not exist on common file systems
_PART = r"[A-Za-z0-9][A-Za-z0-9_.=+-]{0,239}"
_SAFE_KEY = re.compile(rf"{_PART}(?:/{_PART})*")


def check_key(key: str) -> str:
    """Return ``key``, or raise `StoreError` when it could leave the store or upset a file system."""
    if len(key) > MAX_KEY_LENGTH or ".." in key or not _SAFE_KEY.fullmatch(key):
        shown = repr(key) if len(key) <= MAX_KEY_LENGTH else f"{key[:60]!r}... ({len(key):,} characters)"
        raise StoreError(
            f"{shown} is not a valid key of the store",
            expected="parts of at most 240 letters, digits and _.=+- that start with a letter or digit, separated "
            f"by /, without '..', at most {MAX_KEY_LENGTH} characters in all",
        )
    return key


Written = TypeVar("Written")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Store(Protocol):
    """A folder or an S3 prefix.

    All methods raise `StoreError` for what is no key, `StoreUnavailable` when
    the store cannot be reached now.

    Attributes
    ----------
    readers : int
        How many small reads at once pay: several where each is a round trip over a network.
    """

    readers: int

    def uri(self, key: str) -> str:
        """Where a person or another program finds the key."""
        ...

    def path(self, key: str) -> Path | None:
        """Where the key's file lies on this machine; None where it lies elsewhere."""
        ...

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """Yield a local path to write to; on success its content appears under ``key``, at once."""
        ...

    def open(self, key: str) -> pa.NativeFile:
        """Open for random-access reading. Raises `StoreError` when there is no such key."""
        ...

    def read(self, key: str) -> bytes | None:
        """All of a small file, or None when there is no such key."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes under ``key``, or None when there is no such key."""
        ...

    def remember(self, file: StoredFile, written: os.stat_result) -> None:
        """Note that this process just wrote ``file``, where the store can tell later whether anybody has since.

        ``written`` is the state of the local file before it appeared under its key.
        """
        ...

    def remembers(self, file: StoredFile) -> bool:
        """Whether this process wrote ``file`` and nobody has written under its key since; False where not known."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """All complete keys below the folder ``prefix``, sorted as strings."""
        ...

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens when it is not there."""
        ...


class LocalStore:
    """A `Store` in a folder of this machine."""

    readers = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written: dict[str, tuple[str, tuple[int, ...]]] = {}  # by key: sha256, `_identity`

    def path(self, key: str) -> Path:
        """See `Store.path`."""
        return self.root / check_key(key)

    def uri(self, key: str) -> str:
        """The absolute path."""
        return str(self.path(key))

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """See `Store.writing`."""
        return atomic_write(self.path(key))

    def open(self, key: str) -> pa.NativeFile:
        """See `Store.open`."""
        path = self.path(key)
        if not path.is_file():
            raise StoreError(f"{path} is not in the store", remedy="materialize the asset that makes it")
        return pa.OSFile(str(path), "rb")

    def read(self, key: str) -> bytes | None:
        """See `Store.read`."""
        path = self.path(key)
        return path.read_bytes() if path.is_file() else None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        path = self.path(key)
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
            with self.path(key).open("rb") as file:  # opened: only then do network file systems look at the server's
                return os.fstat(file.fileno())
        except OSError:
            return None

    def keys(self, prefix: str) -> Iterator[str]:
        """See `Store.keys`."""
        folder = self.path(prefix)
        found = folder.rglob("*") if folder.is_dir() else ()
        yield from sorted(
            path.relative_to(self.root).as_posix()
            for path in found
            if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX)
        )

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self.path(key).unlink(missing_ok=True)


def open_store(location: str) -> Store:
    """The store at a folder or ``s3://bucket/prefix``; raises `StoreError` when it is neither."""
    if location.startswith("s3://"):
        from neuralpile_dagster.store.s3 import open_s3_store

        return open_s3_store(location)
    scheme = re.match(r"[A-Za-z][\w+.-]*:/+", location)  # the rest may hold a password
    if scheme:
        raise StoreError(
            "NEURALPILE_STORE is invalid",
            found=f"unknown kind of store {scheme[0]}",
            expected="a folder, or s3://bucket/prefix",
        )
    return LocalStore(Path(location).expanduser().absolute())


def put_file(store: Store, key: str, write: Callable[[Path], Written]) -> tuple[StoredFile, Written]:
    """Let ``write`` make a local file and store it under ``key``; give its `StoredFile` and what ``write`` returned."""
    with store.writing(key) as path:
        result = write(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        stored = StoredFile(key=key, size=path.stat().st_size, sha256=digest)
    return stored, result


def put_stream(store: Store, key: str, write: Callable[[DigestWriter], Written]) -> tuple[StoredFile, Written]:
    """Store under ``key`` what ``write`` writes to a stream; the digest is that of the bytes as they are written."""
    with store.writing(key) as path, DigestWriter(path) as stream:
        result = write(stream)
        stored = StoredFile(key=key, size=stream.tell(), sha256=stream.hexdigest())
        stream.close()  # before it is renamed or sent
        written = path.stat()
    store.remember(stored, written)
    return stored, result


def digest_of(store: Store, file: StoredFile) -> str:
    """Return the sha256 (hex) of the bytes under a stored file's key.

    They are read, unless this process wrote them and the store knows that they are the same file ever since: then
    the digest is the one that was made while they were written.
    """
    if store.remembers(file):
        return file.sha256
    with store.open(file.key) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_record(store: Store, key: str, record: Model) -> None:
    """Store a record as JSON; a document that says the same already, in whichever form, is left as it is.

    Raises `NewerDocument` instead of replacing what a newer version made.
    """
    if _says(store, key, record):
        return
    with store.writing(key) as path:
        path.write_text(document(record))


def read_record(store: Store, key: str, kind: type[AnyModel]) -> AnyModel | None:
    """The record under ``key``, or None when there is none; raises `DocumentError` when it is no such record."""
    text = store.read(key)
    return None if text is None else read_document(text, kind, store.uri(key))


def _says(store: Store, key: str, record: Model) -> bool:
    try:
        return read_record(store, key, type(record)) == record
    except NewerDocument:
        raise
    except DocumentError:
        return False


def is_intact(store: Store, file: StoredFile) -> bool:
    """Whether the file is there with its recorded size (its digest is an asset check's business)."""
    return store.size(file.key) == file.size


def map_items(store: Store, look: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply ``look`` to every item, in parallel on S3; results keep the order.

    One after the other, the records of 2,000 sessions would take minutes there.
    """
    if store.readers == 1:
        return [look(item) for item in items]
    with ThreadPoolExecutor(store.readers, "store") as pool:
        return list(pool.map(look, items))


def fetch(store: Store, file: StoredFile, target: Path) -> None:
    """Make ``target`` the stored file; nothing is done when it is that file already.

    Raises `StoreError` when the store's bytes are not those that were recorded,
    `DiskFull` before a copy that does not fit.
    """
    if target.is_file() and target.stat().st_size == file.size and sha256_once(target) == file.sha256:
        return
    with atomic_write(target) as aside:
        if _linked(store, file, aside):
            _require_recorded(store, file, sha256_of(aside))
        else:
            require_free(target, file.size, f"a copy of {file.key}")
            _copy(store, file, aside)


def open_verified(store: Store, file: StoredFile) -> pa.NativeFile:
    """Open a stored file for random access after its digest was compared with the recorded one.

    From S3 it is first copied to the folder for temporary files, so that its bytes cross the network once. The caller
    closes it. Raises `StoreError` when the store's bytes are not those that were recorded.
    """
    if path := store.path(file.key):
        store.open(file.key).close()  # says what is missing
        _require_recorded(store, file, sha256_of(path))
        return pa.OSFile(str(path), "rb")
    folder = Path(tempfile.gettempdir())
    require_free(folder, file.size, f"a copy of {file.key}")
    with explained(folder), tempfile.NamedTemporaryFile() as copy:
        _copy(store, file, Path(copy.name))
        return pa.OSFile(copy.name, "rb")  # readable though its name is gone


def _copy(store: Store, file: StoredFile, target: Path) -> None:
    with store.open(file.key) as source, DigestWriter(target) as copy:
        shutil.copyfileobj(source, copy, _BLOCK)
        _require_recorded(store, file, copy.hexdigest())


def _require_recorded(store: Store, file: StoredFile, found: str) -> None:
    if found != file.sha256:
        raise StoreError(
            f"{store.uri(file.key)} is damaged",
            found=f"sha256 {found}",
            expected=file.sha256,
            remedy="delete it and materialize the asset that makes it",
        )


def _linked(store: Store, file: StoredFile, target: Path) -> bool:
    path = store.path(file.key)
    if path is None:
        return False
    try:
        os.link(path, target)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", remedy="materialize the asset that makes it") from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
