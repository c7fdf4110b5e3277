"""The ``preview`` config: the beginnings of a few sessions, small enough for a web page to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralpile_dagster.files import write_aside
from neuralpile_dagster.hub.configs import config_path
from neuralpile_dagster.hub.metadata import Config, Split, row_arrow_bytes
from neuralpile_dagster.records import ComponentSession
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.rows import RowReader, RowWriter
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA

MAX_ROWS = 8
MAX_BINS = 500
"""10 s at 20 ms: a raster that fits a screen."""
MAX_TOKENS = 200_000
"""The Hub's viewer refuses rows above ~2 MB and sends them as JSON, two to four characters a token."""


def preview_bins(n_units: int, n_bins: int) -> int:
    """How many bins of a segment a preview row holds; at least one."""
    return min(n_bins, MAX_BINS, max(1, MAX_TOKENS // n_units))


def write_preview(
    folder: Path, store: Store, sessions: Sequence[ComponentSession], sources: Sequence[str] | None = None
) -> Config:
    """Write the first bins of the first segment of the first sessions, as rows of the repository's own schema.

    ``sources`` are the sessions' ``source_dataset``s, for a pile. One decoded
    segment at a time is in memory.
    """
    schema = ROW_SCHEMA if sources is None else PILE_SCHEMA
    path = folder / config_path("preview")
    size = 0
    chosen = sessions[:MAX_ROWS]
    with write_aside(path) as aside, RowWriter(aside, schema) as writer:
        for number, session in enumerate(chosen):
            source = None if sources is None else sources[number]
            size += _write_row(writer, store, session, source)
    return Config("preview", schema, {"train": Split(config_path("preview"), len(chosen), size)}, path.stat().st_size)


def _write_row(writer: RowWriter, store: Store, session: ComponentSession, source: str | None) -> int:
    with store.open(session.counts.key) as file, RowReader(file, session.counts.key) as reader:
        row = reader.row(0)
    counts = row.counts[:, : preview_bins(*row.counts.shape)]
    writer.write(counts, row.subject_id, row.session_id, row.segment_id, source)
    texts = [row.subject_id, row.session_id, row.segment_id, *([] if source is None else [source])]
    return row_arrow_bytes(counts.shape[0], counts.size, texts)
