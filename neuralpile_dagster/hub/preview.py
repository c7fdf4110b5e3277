"""The ``preview`` config: the beginnings of a few sessions, small enough for a web page to show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.files import write_aside
from neuralpile_dagster.hub.configs import config_path
from neuralpile_dagster.hub.metadata import Config, Split, row_arrow_bytes
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.rows import Row, RowReader, RowWriter

MAX_ROWS = 8
MAX_BINS = 500
"""10 s at 20 ms: a raster that fits a screen."""
MAX_TOKENS = 200_000
"""The Hub's viewer refuses rows above ~2 MB and sends them as JSON, two to four characters a token."""


def preview_bins(n_units: int, n_bins: int) -> int:
    """How many bins of a segment a preview row holds; at least one."""
    return min(n_bins, MAX_BINS, max(1, MAX_TOKENS // n_units))


def write_preview(folder: Path, rows: Iterable[Row], schema: pa.Schema) -> Config:
    """Write the first bins of each row; no more rows are taken than fit a preview, one at a time.

    ``schema`` is that of the repository: `ROW_SCHEMA` or `PILE_SCHEMA`.
    """
    path = folder / config_path("preview")
    size = written = 0
    with write_aside(path) as aside, RowWriter(aside, schema) as writer:
        for row in islice(rows, MAX_ROWS):
            n_units, n_bins = row.counts.shape
            counts = row.counts[:, : preview_bins(n_units, n_bins)]
            writer.write(counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset)
            texts = [row.subject_id, row.session_id, row.segment_id, row.source_dataset]
            size += row_arrow_bytes(n_units, counts.shape[1], [text for text in texts if text is not None])
            written += 1
    return Config("preview", schema, {"train": Split(config_path("preview"), written, size)}, path.stat().st_size)


def first_rows(store: Store, keys: Iterable[str]) -> Iterator[Row]:
    """The first row of each file."""
    for key in keys:
        with store.open(key) as file, RowReader(file, key) as reader:
            yield reader.row(0)
