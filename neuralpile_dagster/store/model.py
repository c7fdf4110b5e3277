"""What a store is: keys, and the operations on them that every store has."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from neuralpile_dagster.errors import DocumentError, NewerDocument, StoreError
from neuralpile_dagster.files import DigestWriter
from neuralpile_dagster.records import AnyModel, Model, StoredFile, document, read_document

MAX_KEY_LENGTH = 600
"""With a prefix of as many as `MAX_PREFIX_LENGTH` characters it stays below the 1,024 bytes that S3 allows."""
MAX_PREFIX_LENGTH = 400

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


Written = TypeVar("Written")
Item = TypeVar("Item")
Result = TypeVar("Result")


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
