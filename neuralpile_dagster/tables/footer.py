"""Open Parquet files with checksums verified, errors that name the file, and columns as expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError

MAKE_AGAIN = "delete it and materialize the asset that makes it"
GET_AGAIN = "get the file again: download or copy it anew; in a local hub of yours, publish again, which repairs it"
"""Remedies for a damaged file: of the store, and of a published repository."""


@contextmanager
def damaged(name: str, remedy: str = MAKE_AGAIN) -> Iterator[None]:
    """Turn pyarrow's errors about a file's content into a `TableError` that names the file."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowSerializationError, OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the content
        raise TableError(
            f"{name} is damaged, or is not the expected Parquet file",
            found=str(error).splitlines()[0],
            remedy=remedy,
        ) from error


def open_parquet(
    file: Path | str | pa.NativeFile, name: str, pre_buffer: bool = True, remedy: str = MAKE_AGAIN
) -> pq.ParquetFile:
    """Open for reading with page checksums verified; raises `TableError` when it is not Parquet.

    Without ``pre_buffer`` nothing is read ahead, by no thread of pyarrow's.
    """
    with damaged(name, remedy):
        return pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=pre_buffer)


def require_schema(found: pa.Schema, expected: pa.Schema, name: str, optional: Sequence[str] = ()) -> None:
    """Raise `TableError` unless the columns are those expected, in order, and then any of ``optional`` (text)."""
    wanted = list(zip(expected.names, expected.types, strict=True))
    columns = list(zip(found.names, found.types, strict=True))
    extra = columns[len(wanted) :]
    if columns[: len(wanted)] != wanted or any(n not in optional or t != pa.string() for n, t in extra):
        raise TableError(
            f"{name} has other columns than expected",
            found=", ".join(f"{n}: {t}" for n, t in columns),
            expected=", ".join(f"{n}: {t}" for n, t in wanted),
        )


def read_table(file: Path | str | pa.NativeFile, schema: pa.Schema, name: str) -> pa.Table:
    """Read a whole table; raises `TableError` naming it when it is damaged or has other columns."""
    parquet = open_parquet(file, name)
    require_schema(parquet.schema_arrow, schema, name)
    with damaged(name):
        return parquet.read()
