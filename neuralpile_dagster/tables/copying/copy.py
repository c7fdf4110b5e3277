"""Copy rows from Parquet files into a new one without decoding them. Which rows to copy is decided elsewhere.

The column chunks go into the new file byte for byte, one row group for each
row (`RowFile`, which `tables.rows` writes with too); only the footer and the
page index are made anew. Rows that are not encoded as `RowWriter` does are
decoded and encoded (`encoded`), and counted with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.tables.copying.encoded import SOURCE_COLUMN, EncodedChunk, encode_row, encode_source, example
from neuralpile_dagster.tables.copying.footers import MAGIC, FooterWriter, PlacedRow
from neuralpile_dagster.tables.copying.pages import ForeignEncoding
from neuralpile_dagster.tables.copying.sources import FileOpener, Sources

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
        self._footer = FooterWriter(example(schema))
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
