"""Put encoded rows into a Parquet file, one row group each; encoding and copying them belongs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from neuralpile_dagster.tables.copying.encoded import EncodedChunk, example
from neuralpile_dagster.tables.copying.footer_writer import FooterWriter, PlacedRow
from neuralpile_dagster.tables.copying.thrift import MAGIC

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
