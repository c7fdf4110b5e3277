"""The counts of a session written as rows, segment by segment, with the numbers about them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from neuralpile_dagster.binning.source import CountSource, Segment, plan_segments
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.files import require_free
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.records import ClockRecord, CountsStats, RowRecord
from neuralpile_dagster.settings import ProcessSettings
from neuralpile_dagster.tables.rows import Row

if TYPE_CHECKING:
    from neuralpile_dagster.binning.measures import CountsMeasure

_BYTES_PER_TOKEN = 0.3
"""Free disk needed while rows are written: ~0.1 bytes per token (docs/performance.md), 0.28 at a spike per token."""
LOG_EVERY_S = 10.0
"""Interval of progress lines; most sessions are done before the first."""


@dataclass(frozen=True)
class WrittenRows:
    """What was written.

    Attributes
    ----------
    stats : CountsStats
        Numbers about the counts.
    rows : tuple of RowRecord
    unit_totals : numpy.ndarray, int64, shape (n_units,)
        Spikes kept, per unit.
    notes : tuple of str
        What was left of the recording (`Recording.notes`); empty where its record holds them.
    """

    stats: CountsStats
    rows: tuple[RowRecord, ...]
    unit_totals: np.ndarray
    notes: tuple[str, ...] = ()


def require_room_for_rows(path: Path, source: CountSource, name: str) -> None:
    """Raise `DiskFull` when there is too little space where ``path`` lies for the rows of a session."""
    require_free(path, int(source.n_units * source.n_bins * _BYTES_PER_TOKEN), f"the spike counts of {name}")


def write_session_rows(
    stream: BinaryIO,
    source: CountSource,
    clock: ClockRecord,
    *,
    subject_id: str,
    session_id: str,
    max_tokens: int,
    name: str,
    progress: Progress = silent,
) -> WrittenRows:
    """Write a session's counts as rows of `ROW_SCHEMA`, one per segment.

    Memory: ``source``, and per thread (``NEURALPILE_THREADS``) up to 4 bytes per token of a segment.

    Parameters
    ----------
    stream : binary file
        Empty and open for writing; the caller closes it.
    source : CountSource
        From `count_source`; all its bins are taken.
    clock : ClockRecord
        From `binning.clock.measure_clock`, for the statistics.
    subject_id, session_id : str
    max_tokens : int
        Nominal tokens per segment.
    name : str
        What errors call the recording.
    progress : callable
        Called with a line every `LOG_EVERY_S`.
    """
    from neuralpile_dagster.binning.measures import CountsMeasure  # numba: not for those who only compare hashes
    from neuralpile_dagster.tables.rows import write_rows_to

    segments = plan_segments(source.n_units, source.n_bins, max_tokens)
    threads = ProcessSettings.from_environment().threads
    measure = CountsMeasure(source.n_units, source.n_bins, source.bin_width_s, threads)
    rows = _rows(source, _report_progress(segments, name, progress), measure, subject_id, session_id)
    row_bytes = write_rows_to(stream, rows, threads=threads)
    stats = measure.stats(source.spikes_read, clock=clock, **source.lost())
    _require_conserved(stats, name)
    return WrittenRows(
        stats=stats,
        rows=tuple(
            RowRecord(segment_id=segment.id, n_bins=segment.n_bins, bytes=size)
            for segment, size in zip(segments, row_bytes, strict=True)
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


def _report_progress(segments: tuple[Segment, ...], name: str, progress: Progress) -> Iterator[Segment]:
    """Yield the segments and report progress in between."""
    said = time.monotonic()
    for number, segment in enumerate(segments):
        if time.monotonic() - said >= LOG_EVERY_S:
            progress(f"{name}: {number:,} of {plural(len(segments), 'segment')}")
            said = time.monotonic()
        yield segment


def _require_conserved(stats: CountsStats, name: str) -> None:
    """Require that every spike read is in the counts, summed from the counts themselves, or in one of the losses."""
    if stats.unaccounted:
        raise NeuralPileError(
            f"{name}: spikes went missing while binning",
            found=f"{stats.unaccounted:,} of {stats.spikes_read:,} spikes unaccounted for",
            expected="every spike kept or counted as lost",
            remedy="this is a defect of neuralpile-dagster; please report it with the recording's name",
        )
