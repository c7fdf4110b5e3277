"""What an NWB units table states of each unit in one number or text, and where the unit's peak electrode lies.

Columns of several values per unit (waveforms, amplitudes) are never opened beyond their shape. Labels that every
recording has (area, probe, quality) belong in `labels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.hdf5.text import read_attribute, text_of
from neuralpile_dagster.recordings.nwb.electrodes import BY_PEAK, BY_REGION, electrode_rows
from neuralpile_dagster.recordings.nwb.intervals import MAX_COLUMNS, require_at_most, require_short
from neuralpile_dagster.recordings.nwb.table import Table

PEAK = "electrodes."
"""Begins the names of what is stated of a unit's peak electrode: ``electrodes.x``, ..."""
PEAK_ID, PEAK_NOTE = f"{PEAK}id", f"{PEAK}note"
COORDINATES = ("x", "y", "z")
_NUMBERS = (*COORDINATES, "rel_x", "rel_y")
_TEXTS = ("location", "group_name")
_CHANNELS = ("max_channel", "ch")  # a channel's number, where units refer to no electrode
_WAYS = {BY_PEAK: "units.peak_channel_id -> electrodes.id", BY_REGION: "the first of units.electrodes"}
_READ_ELSEWHERE = frozenset({"id", "spike_times", "obs_intervals", "electrodes", "electrode_group"})
_LARGEST_EXACT = 1 << 53  # whole numbers above it are not exact as float64
_NOTE_CHARACTERS = 200


@dataclass(frozen=True)
class Metric:
    """One column: a number or a text per unit.

    Attributes
    ----------
    name : str
    values : numpy.ndarray, float64, shape (n_units,), or None
        NaN where not stated; 0 and 1 for truth values.
    texts : list of str or None
        Of text; also whole numbers that float64 cannot hold.
    """

    name: str
    values: np.ndarray | None
    texts: list[str | None] | None = None


def read_unit_metrics(table: Table) -> Iterator[Metric]:
    """Read what the table states of each unit, column by column, then of its peak electrode.

    The peak electrode is that of ``peak_channel_id``, else the first of ``electrodes``, else the number in
    ``max_channel`` or ``ch``. The table's notes gain what is not used.

    Raises
    ------
    RecordingError
        There are more columns or longer texts than any units table has.
    """
    names = [column for column in table.columns() if column not in _READ_ELSEWHERE]
    require_at_most(len(names), MAX_COLUMNS, f"{table.opened.name}: {table.path} has too many columns")
    for name in names:
        column = table.values(name)
        if column is not None:
            require_short(column.values, f"{table.opened.name}: {table.path}/{name}")
            yield _metric(name, column.values)
    yield from _peak_electrodes(table)


def _metric(name: str, values: np.ndarray) -> Metric:
    if values.dtype.kind == "O":
        return Metric(name, None, values.tolist())
    large = values.dtype.kind in "iu" and len(values) and max(-int(values.min()), int(values.max())) > _LARGEST_EXACT
    return Metric(name, values.astype(np.float64), [str(value) for value in values.tolist()] if large else None)


def _peak_electrodes(units: Table) -> Iterator[Metric]:
    """What is stated of each unit's peak electrode."""
    electrodes, ways = electrode_rows(units)
    peaks, notes = np.full(units.n_rows, -1), [""] * units.n_rows
    for way in (BY_PEAK, BY_REGION):
        for unit, rows in enumerate(ways.get(way, ())):
            if peaks[unit] < 0 and len(rows):
                peaks[unit], notes[unit] = rows[0], _WAYS[way]
    known = peaks >= 0
    if electrodes is None or not known.any():
        yield from _channels(units)
        return
    ids = electrodes.numbers("id")
    if ids is not None:
        yield Metric(PEAK_ID, _taken(ids, peaks))
    for name in _NUMBERS:
        if (numbers := electrodes.numbers(name)) is not None:
            yield Metric(f"{PEAK}{name}", _taken(numbers, peaks))
    for name in _TEXTS:
        if (labels := electrodes.labels(name)) is not None:
            yield Metric(f"{PEAK}{name}", None, [labels[row] if row >= 0 else None for row in peaks.tolist()])
    frame = _frame(electrodes)
    yield Metric(PEAK_NOTE, None, [f"{note}{frame}" if note else None for note in notes])


def _taken(values: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """A column of electrodes for each unit's electrode: float64, shape (n_units,); NaN for units without one."""
    return np.where(peaks >= 0, values.astype(np.float64)[peaks], np.nan)


def _channels(units: Table) -> Iterator[Metric]:
    for name in _CHANNELS:
        numbers = units.numbers(name)
        if numbers is not None:
            yield Metric(PEAK_ID, numbers.astype(np.float64))
            yield Metric(PEAK_NOTE, None, [f"units.{name}, which need not be an id of electrodes"] * units.n_rows)
            return


def _frame(electrodes: Table) -> str:
    """What the file says about its coordinates."""
    x = electrodes.dataset("x")
    said = None if x is None else text_of(read_attribute(x, "description", electrodes.opened.name))
    return f"; x: {' '.join(said.split())[:_NOTE_CHARACTERS]}" if said else ""
