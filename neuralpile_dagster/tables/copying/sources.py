"""Random access to rows of many Parquet files, with few of them open at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.arrow_rows import COUNTS_COLUMN, Row, counts_matrix
from neuralpile_dagster.tables.copying.encoded import EncodedChunk, read_encoded, read_footer_of_rows
from neuralpile_dagster.tables.copying.footers import MAX_KNOWN_ROWS, Footers, SourceFooter
from neuralpile_dagster.tables.copying.pages import ForeignEncoding
from neuralpile_dagster.tables.footer import MAKE_AGAIN, damaged, open_parquet
from neuralpile_dagster.tables.schemas import COUNTS, PILE_SCHEMA

FileOpener = Callable[[str], pa.NativeFile]

MAX_OPEN = 64
"""Source files open at a time."""


@contextmanager
def damaged_row(name: str, row: int, remedy: str = MAKE_AGAIN) -> Iterator[None]:
    """Turn a `ValueError` about a row's bytes into a `TableError` that names its file."""
    try:
        yield
    except ValueError as error:
        raise TableError(
            f"{name} is damaged: row {row} cannot be read",
            found=str(error),
            remedy=remedy,
        ) from error


class Sources:
    """Random access to rows of many Parquet files; a context manager.

    Parameters
    ----------
    open_file : callable
        Opens a file by its name for random access. Files opened here are
        closed here.
    """

    def __init__(self, open_file: FileOpener) -> None:
        self._open_file = open_file
        self._open: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._known = Footers(MAX_KNOWN_ROWS)

    def encoded(self, name: str, row: int, columns: Sequence[str]) -> list[EncodedChunk]:
        """Read column chunks of one row, checksums verified.

        Raises
        ------
        ForeignEncoding
            The file or the row is not encoded as `RowWriter` does.
        TableError
            The file is damaged, or has no such row or columns.
        """
        with damaged_row(name, row):
            footer = self._footer(name)
            n_rows = sum(footer.group_rows)
            if not 0 <= row < n_rows:
                raise TableError(f"{name} has no row {row}", found=f"{n_rows:,} rows")
            if footer.foreign:
                raise ForeignEncoding(footer.foreign)
            places = footer.rows[row]
            _require_columns(columns, PILE_SCHEMA.names[: len(places)], name)
            return read_encoded(self._file(name), [places[PILE_SCHEMA.names.index(column)] for column in columns])

    def decoded(self, name: str, row: int, columns: Sequence[str]) -> Row:
        """Decode a row for which `encoded` raised `ForeignEncoding`.

        Raises `TableError` when the file is damaged, or the row is not one of spike counts.
        """
        group, offset = _locate(self._footer(name).group_rows, row)
        with damaged(name):
            file = open_parquet(self._file(name), name)
            _require_columns(columns, file.schema_arrow.names, name)
            # row by row: a row group of many rows may not fit into memory
            batches = file.iter_batches(1, row_groups=[group], columns=list(columns), use_threads=False)
            for number, batch in enumerate(batches):
                if number == offset:
                    return _as_row(batch, name)
        raise TableError(f"{name} is damaged: it has fewer rows than its footer says", found=f"no row {row}")

    def _footer(self, name: str) -> SourceFooter:
        return self._known.get(name, lambda: read_footer_of_rows(self._file(name)))

    def _file(self, name: str) -> pa.NativeFile:
        if name not in self._open:
            self._open[name] = self._open_file(name)
            if len(self._open) > MAX_OPEN:
                _, oldest = self._open.popitem(last=False)
                oldest.close()
        self._open.move_to_end(name)
        return self._open[name]

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()


def _locate(group_rows: Sequence[int], row: int) -> tuple[int, int]:
    """The row group that holds a row, and the row's number in it."""
    group = 0
    while row >= group_rows[group]:
        row -= group_rows[group]
        group += 1
    return group, row


def _require_columns(wanted: Sequence[str], found: Sequence[str], name: str) -> None:
    if not set(wanted) <= set(found):
        raise TableError(f"{name} lacks columns", found=", ".join(found), expected=", ".join(wanted))


def _as_row(batch: pa.RecordBatch, name: str) -> Row:
    texts = {column: batch[column][0].as_py() for column in batch.schema.names if column != COUNTS_COLUMN}
    unusual = {column: value for column, value in texts.items() if not isinstance(value, str)}
    if unusual:
        raise TableError(f"{name} has a row without text in a column of ids", found=str(unusual))
    return Row(counts=counts_matrix(batch[COUNTS_COLUMN].cast(COUNTS), name), **texts)
