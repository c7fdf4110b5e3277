"""Counts -> the rows of their session: cut, measure, encode; a segment or two at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralpile_dagster.binning.segments import Segment, plan_segments
from neuralpile_dagster.binning.source import CountSource
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.files import require_free
from neuralpile_dagster.measures.counts import CountsMeasure
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.records import CountsStats, RowRecord
from neuralpile_dagster.settings import thread_count
from neuralpile_dagster.tables.footer import read_footer
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster.tables.rows_threads import write_rows

_BYTES_PER_TOKEN = 0.3
"""Disk to have free while rows are written: twice ~0.1 bytes per token (docs/performance.md), and a reserve."""
TELL_EVERY_S = 10.0
"""Between lines about how far a session is; most are done before the first."""


@dataclass(frozen=True)
class SessionRows:
    """What was written: numbers about the counts, the rows, and spikes kept per unit (int64)."""

    stats: CountsStats
    rows: tuple[RowRecord, ...]
    unit_totals: np.ndarray


def write_session_rows(
    path: Path,
    source: CountSource,
    *,
    subject_id: str,
    session_id: str,
    max_tokens: int,
    name: str,
    progress: Progress = silent,
) -> SessionRows:
    """Write a session's counts as rows of `ROW_SCHEMA`, one per segment.

    Memory: ``source``, and per thread (``NEURALPILE_THREADS``) ~30 bytes per token of a segment.

    Parameters
    ----------
    path : Path
        Appears complete or not at all; its folder exists.
    source : CountSource
        From `count_source`; all its bins are taken.
    subject_id, session_id : str
    max_tokens : int
        Nominal tokens per segment.
    name : str
        What errors call the recording.
    progress : callable
        Called with a line every `TELL_EVERY_S`.

    Raises
    ------
    DiskFull
        Too little space beside ``path``.
    """
    segments = plan_segments(source.n_units, source.n_bins, max_tokens)
    require_free(path, int(source.n_units * source.n_bins * _BYTES_PER_TOKEN), f"the spike counts of {name}")
    measure = CountsMeasure(source.n_units, source.bin_width_s)
    rows = _rows(source, _told(segments, name, progress), measure, subject_id, session_id)
    write_rows(path, rows, threads=thread_count())
    stats = measure.stats(source.spikes_read, **source.lost())
    _require_conserved(stats, name)
    group_bytes = read_footer(path, name).group_bytes
    return SessionRows(
        stats=stats,
        rows=tuple(
            RowRecord(segment_id=segment.id, n_bins=segment.n_bins, bytes=size)
            for segment, size in zip(segments, group_bytes, strict=True)
        ),
        unit_totals=measure.unit_totals,
    )


def _rows(
    source: CountSource, segments: Iterator[Segment], measure: CountsMeasure, subject_id: str, session_id: str
) -> Iterator[Row]:
    for segment in segments:
        row = Row(source.counts(segment.start, segment.stop), subject_id, session_id, segment.id)
        measure.add(row.counts)
        yield row
        del row  # its memory is free before the next segment is made


def _told(segments: tuple[Segment, ...], name: str, progress: Progress) -> Iterator[Segment]:
    """The segments; says now and then how many were taken."""
    said = time.monotonic()
    for number, segment in enumerate(segments):
        if time.monotonic() - said >= TELL_EVERY_S:
            progress(f"{name}: {number:,} of {len(segments):,} segments")
            said = time.monotonic()
        yield segment


def _require_conserved(stats: CountsStats, name: str) -> None:
    """Every spike read is in the counts, as summed from the counts themselves, or in one of the losses."""
    if stats.unaccounted:
        raise NeuralPileError(
            f"{name}: spikes went missing while binning",
            found=f"{stats.unaccounted:,} of {stats.spikes_read:,} spikes unaccounted for",
            expected="every spike kept or counted as lost",
            remedy="this is a defect of neuralpile-dagster; please report it with the recording's name",
        )
