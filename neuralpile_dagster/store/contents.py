"""What every writer and reader of a store does: files with their digests, records as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from neuralpile_dagster.records import Model
from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store.model import Store

AnyModel = TypeVar("AnyModel", bound=Model)
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


def write_record(store: Store, key: str, record: Model) -> None:
    """Store a record as JSON."""
    with store.writing(key) as path:
        path.write_text(record.model_dump_json(indent=1) + "\n")


def read_record(store: Store, key: str, kind: type[AnyModel]) -> AnyModel | None:
    """The record under ``key``, or None when there is none; raises `StoreError` when it is no such record."""
    text = store.read(key)
    if text is None:
        return None
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


def of_each(store: Store, look: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What ``look``, which reads small things in the store, gives for each item, in their order.

    On S3 several are read at once: one after the other, the records of 2,000 sessions take minutes.
    """
    if store.readers == 1:
        return [look(item) for item in items]
    with ThreadPoolExecutor(store.readers, "store") as pool:
        return list(pool.map(look, items))
