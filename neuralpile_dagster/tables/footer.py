"""Open Parquet files with checksums verified, errors that name the file, and sizes and columns from the footer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError


@dataclass(frozen=True)
class Footer:
    """Sizes of one file; ``group_bytes`` are the compressed bytes of each row group."""

    n_rows: int
    group_bytes: tuple[int, ...]


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


def read_footer(file: Path | str | pa.NativeFile, name: str) -> Footer:
    """Read the number of rows and the compressed bytes of each row group; raises `TableError` naming the file."""
    parquet = open_parquet(file, name)
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    return Footer(
        n_rows=parquet.metadata.num_rows,
        group_bytes=tuple(
            sum(group.column(c).total_compressed_size for c in range(group.num_columns)) for group in groups
        ),
    )


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
