"""Copy rows from Parquet files into a new one without decoding them. Which rows to copy is decided elsewhere.

Sources are read at random places, few of them open at a time (`Sources`). The
column chunks go into the new file byte for byte, one row group for each row
(`RowFile`, which `tables.rows` writes with too); only the footer and the page
index are made anew. Rows that are not encoded as `RowWriter` does are decoded
and encoded (`encoded`), and counted with the reason.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.tables.arrow_rows import COUNTS_COLUMN, Row, counts_matrix
from neuralpile_dagster.tables.copying.encoded import (
    SOURCE_COLUMN,
    EncodedChunk,
    ForeignEncoding,
    encode_row,
    encode_source,
    read_encoded,
)
from neuralpile_dagster.tables.copying.footers import (
    MAGIC,
    MAX_KNOWN_ROWS,
    Footers,
    FooterWriter,
    PlacedRow,
    SourceFooter,
    read_source_footer,
)
from neuralpile_dagster.tables.footer import MAKE_AGAIN, damaged, open_parquet
from neuralpile_dagster.tables.schemas import COUNTS, PILE_SCHEMA

FileOpener = Callable[[str], pa.NativeFile]

MAX_OPEN = 64
"""Source files open at a time."""
_CUT = bytes.fromhex(
    "3957a3488c770d4af48ba33c776a0306934ee35c3eeb992c5b9dc47ef218765a"
    "54e38c95305ece90d74db4b45cd9ec94248570634ccbd5bb8468d01bf4129e66"
)
"""64 bytes after which Xet (hf_xet 1.8) cuts a file into chunks: the window of its rolling hash, found by searching
random bytes for a cut."""
_GAPS = (bytes(8192) + _CUT, _CUT, b"")
"""Padding before a row's counts, before the column after them, and before the others.

Parquet allows bytes between column chunks. With these, Xet cuts exactly where
the counts begin and end, so that a row of the pile is the chunks that its
component already uploaded to the Hub (`bench.publish`: 0.4% of the pile is sent,
without them 16%). Xet cuts no chunk below 8 KiB, hence the zeros. Were its
cutting to change, more data would be uploaded and nothing would break.
"""


class RowRef(NamedTuple):
    """A row to copy.

    Attributes
    ----------
    file : str
        Name of its file, as ``open_file`` understands it.
    row_group : int
        Number of the row in the file, from 0. In our files every row is a row group.
    source_dataset : str or None
        The value of that column in the new file; None copies the source's.
        Only for files of `PILE_SCHEMA`.
    """

    file: str
    row_group: int
    source_dataset: str | None = None


@dataclass(frozen=True)
class CopyReport:
    """What `copy_rows` wrote: rows, bytes of the file, and rows that had to be decoded, by reason."""

    rows: int
    bytes: int
    reasons: dict[str, int]

    @property
    def decoded_rows(self) -> int:
        """Rows that were decoded and encoded again."""
        return sum(self.reasons.values())


def copy_rows(rows: Iterable[RowRef], open_file: FileOpener, path: Path, schema: pa.Schema) -> CopyReport:
    """Write the rows, in the order given, to a new file: one row group each.

    The same rows give the same bytes, wherever they are copied from. ``path``
    appears complete or not at all. Memory: one encoded row, a cache of the
    sources' footers (bounded), and ~1 kB for each row written.

    Parameters
    ----------
    rows : iterable of RowRef
    open_file : callable of str
        Opens a source for random access, e.g. ``store.open``; files are closed here.
    path : Path
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.

    Raises
    ------
    TableError
        A source is damaged (every page's checksum is verified), or has no such row; names the file.
    """
    reasons: Counter[str] = Counter()
    with atomic_write(path) as aside, aside.open("wb") as stream, Sources(open_file) as sources:
        file = RowFile(stream, schema)
        for row in rows:
            file.add(_encoded(sources, row, schema, reasons))
        written = len(file.finish())
        size = stream.tell()
    return CopyReport(rows=written, bytes=size, reasons=dict(sorted(reasons.items())))


def _encoded(sources: Sources, row: RowRef, schema: pa.Schema, reasons: Counter[str]) -> list[EncodedChunk]:
    added = row.source_dataset is not None
    if added and SOURCE_COLUMN not in schema.names:
        raise TableError(f"{row.file}: a {SOURCE_COLUMN} is given for a file without that column")
    copied = [name for name in schema.names if not (added and name == SOURCE_COLUMN)]
    try:
        chunks = sources.encoded(row.file, row.row_group, copied)
    except ForeignEncoding as foreign:
        reasons[str(foreign)] += 1
        decoded = sources.decoded(row.file, row.row_group, copied)
        chunks = encode_row(decoded, pa.schema([schema.field(name) for name in copied]))
    return chunks if row.source_dataset is None else [*chunks, encode_source(row.source_dataset)]


class RowFile:
    """A file of rows in the making. The same rows give the same bytes; ~1 kB is held for each.

    Parameters
    ----------
    stream : binary file
        Empty and open for writing; the caller closes it.
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        self._footer = FooterWriter(schema)
        self._placed: list[PlacedRow] = []
        stream.write(MAGIC)

    def add(self, chunks: Sequence[EncodedChunk]) -> None:
        """Append a row: its column chunks, in the order of the schema."""
        starts = []
        for number, chunk in enumerate(chunks):
            self._stream.write(_GAPS[min(number, len(_GAPS) - 1)])
            starts.append(self._stream.tell())
            self._stream.write(chunk.data)
        self._placed.append(PlacedRow(tuple(starts), tuple((chunk.facts, chunk.statistics) for chunk in chunks)))

    def finish(self) -> tuple[int, ...]:
        """Write page index and footer; returns the compressed bytes of each row."""
        self._footer.write(self._placed, self._stream)
        return tuple(sum(facts.compressed for facts, _ in row.chunks) for row in self._placed)


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
        ends = np.cumsum(self._footer(name).group_rows)
        group = int(np.searchsorted(ends, row, side="right"))
        offset = row - int(ends[group - 1]) if group else row
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
        return self._known.get(name, lambda: read_source_footer(self._file(name)))

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

    def __exit__(self, *error: object) -> None:
        while self._open:
            self._open.popitem()[1].close()


def _require_columns(wanted: Sequence[str], found: Sequence[str], name: str) -> None:
    if not set(wanted) <= set(found):
        raise TableError(f"{name} lacks columns", found=", ".join(found), expected=", ".join(wanted))


def _as_row(batch: pa.RecordBatch, name: str) -> Row:
    texts = {column: batch[column][0].as_py() for column in batch.schema.names if column != COUNTS_COLUMN}
    unusual = {column: value for column, value in texts.items() if not isinstance(value, str)}
    if unusual:
        raise TableError(f"{name} has a row without text in a column of ids", found=str(unusual))
    return Row(counts=counts_matrix(batch[COUNTS_COLUMN].cast(COUNTS), name), **texts)
