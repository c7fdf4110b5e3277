"""The annotations of a session of NWB files: its intervals, row by row, and what is stated of each of its units.

Tables of intervals (trials, epochs, stimulus presentations, invalid times) lie under ``/intervals``, and in
``/processing/*`` where their type says ``TimeIntervals``. Their columns of numbers or text are read, one at a time;
which bins an interval spans depends on the counts and belongs in `publish`.

Of a unit there is what the units table states in one number or text, and where the unit's peak electrode lies. Columns
of several values per unit (waveforms, amplitudes) are never opened beyond their shape. Labels that every recording has
(area, probe, quality) belong in `labels`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording, RecordingError
from neuralpile_dagster.hdf5.careful import child_paths, find, read_array
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import read_attribute, text_of
from neuralpile_dagster.recordings.nwb.labels import BY_PEAK, BY_REGION, electrode_rows
from neuralpile_dagster.recordings.nwb.table import Column, Table, open_table

INTERVALS, PROCESSING = "/intervals", "/processing"
START, STOP = "start_time", "stop_time"
MAX_TABLES = 60  # of a session; the largest number seen is 22
MAX_INTERVALS = 2_000_000  # rows of a session; a session of visual coding has some 70,000
MAX_COLUMNS = 100  # of one table
MAX_PER_ROW = 64  # values of one row of a ragged column
MAX_TEXT_BYTES = 1_000  # of one value
MAX_LOOKS = 1_000  # objects of /processing that are looked at

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
class IntervalTable:
    """One table of intervals.

    Attributes
    ----------
    name : str
        ``trials`` for ``/intervals/trials``, ``behavior/laps`` for ``/processing/behavior/laps``.
    start_time, stop_time : numpy.ndarray, float64, shape (n_rows,)
        Seconds of the session's clock, in the file's order; may be NaN.
    columns : dict of str to Column
        All other columns that are read.
    """

    name: str
    start_time: np.ndarray
    stop_time: np.ndarray
    columns: dict[str, Column]


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


@dataclass
class Annotations:
    """A session's open files; valid inside the ``with`` of `open_annotations`.

    Attributes
    ----------
    files : sequence of (OpenFile, h5py.File)
        In the order in which their units are stacked.
    notes : list of str
        What the files hold and is not used; gains lines while they are read.
    units : str
        Path of the units table in each file.
    """

    files: Sequence[tuple[OpenFile, h5py.File]]
    notes: list[str] = field(default_factory=list)
    units: str = "/units"

    def intervals(self) -> Iterator[IntervalTable]:
        """Read the tables of intervals, one after the other; memory is that of one table.

        A table that several files hold with the same contents is read once; one of other contents has the file's name
        behind its own.

        Raises
        ------
        DamagedRecording
            A table lacks its times, or cannot be read.
        RecordingError
            There are more tables, rows, columns or text than any session has.
        """
        known: dict[str, str] = {}
        n_rows = 0
        for opened, file in self.files:
            for name, path in _interval_paths(file, opened.name):
                table = open_table(opened, file, path, MAX_INTERVALS)
                if table is None:
                    self.notes.append(f"{opened.name}: {path} is not used: it has no column id")
                    continue
                found = _read_table(table, name)
                self.notes.extend(f"{opened.name}: {note}" for note in table.notes)
                digest = _digest_of(found)
                if known.get(name) == digest:
                    continue
                if name in known:
                    name = f"{name} ({PurePosixPath(opened.name).name})"
                known[name] = digest
                n_rows += table.n_rows
                _require_at_most(len(known), MAX_TABLES, f"{opened.name} has too many tables of intervals")
                _require_at_most(n_rows, MAX_INTERVALS, f"{opened.name} has too many intervals")
                yield replace(found, name=name)

    def unit_metrics(self) -> Iterator[tuple[int, Metric]]:
        """What each file's units table states, with the row in ``spike_counts`` of the file's first unit.

        Units of one file come after units of the other, as readers stack them.
        """
        first_row = 0
        for opened, file in self.files:
            table = open_table(opened, file, self.units)
            if table is None:
                self.notes.append(f"{opened.name} has no units table")
                continue
            yield from ((first_row, metric) for metric in _read_unit_metrics(table))
            self.notes.extend(f"{opened.name}: {note}" for note in table.notes)
            first_row += table.n_rows


@contextmanager
def open_annotations(files: Sequence[OpenFile], units: str = "/units") -> Iterator[Annotations]:
    """Open a session's NWB files, in the order in which its recording is read; ``units`` is their units table."""
    with ExitStack() as stack:
        yield Annotations([(opened, stack.enter_context(opened.hdf5())) for opened in files], units=units)


def _interval_paths(file: h5py.File, name: str) -> Iterator[tuple[str, str]]:
    """Name and path of every table of intervals."""
    for path in sorted(child_paths(file, INTERVALS, name).values()):
        if isinstance(find(file, path, name), h5py.Group):
            yield PurePosixPath(path).name, path
    modules = sorted(child_paths(file, PROCESSING, name).values())
    inside = [path for module in modules for path in sorted(child_paths(file, module, name).values())]
    for path in inside[:MAX_LOOKS]:
        group = find(file, path, name)
        if isinstance(group, h5py.Group) and text_of(read_attribute(group, "neurodata_type", name)) == "TimeIntervals":
            yield str(PurePosixPath(path).relative_to(PROCESSING)), path


def _read_table(table: Table, name: str) -> IntervalTable:
    names = [column for column in table.columns() if column not in ("id", START, STOP)]
    _require_at_most(len(names), MAX_COLUMNS, f"{table.opened.name}: {table.path} has too many columns")
    columns = {column: values for column in names if (values := table.values(column, MAX_PER_ROW)) is not None}
    for column, values in columns.items():
        _require_short(values.values, f"{table.opened.name}: {table.path}/{column}")
    return IntervalTable(name, _times(table, START), _times(table, STOP), columns)


def _times(table: Table, column: str) -> np.ndarray:
    dataset = table.dataset(column)
    n_found = 0
    if dataset is not None:
        times = read_array(table.opened, dataset, kinds="fiu", max_values=MAX_INTERVALS)
        if (n_found := len(times)) == table.n_rows:
            return times.astype(np.float64, copy=False)
    elif not table.n_rows:
        return np.empty(0)
    raise DamagedRecording(
        f"{table.opened.name}: {table.path} is damaged",
        found=f"{n_found:,} values in {column} for {table.n_rows:,} rows",
        expected="a start and a stop time for each row",
        remedy="report the file to its archive; spike counts do not depend on this",
    )


def _require_short(values: np.ndarray, what: str) -> None:
    """Raise `RecordingError` when a text is longer than `MAX_TEXT_BYTES`.

    ``values`` are those of a column: of any dtype, texts if object, shape (n_values,).
    """
    if values.dtype.kind == "O" and len(values):
        _require_at_most(
            max(len(text.encode()) for text in values), MAX_TEXT_BYTES, f"{what} holds text that is too long"
        )


def _require_at_most(found: int, most: int, what: str) -> None:
    """Raise `RecordingError`, saying ``what`` is wrong, when a number is above its bound."""
    if found > most:
        raise RecordingError(
            what, found=f"{found:,}", expected=f"at most {most:,}", remedy="spike counts do not depend on this"
        )


def _digest_of(table: IntervalTable) -> str:
    digest = hashlib.sha256(table.start_time.tobytes() + table.stop_time.tobytes())
    for name, column in table.columns.items():
        values = column.values
        content = repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
        digest.update(b"\0".join([name.encode(), content, b"" if column.ends is None else column.ends.tobytes()]))
    return digest.hexdigest()


def _read_unit_metrics(table: Table) -> Iterator[Metric]:
    """Read what the table states of each unit, column by column, then of its peak electrode.

    The peak electrode is that of ``peak_channel_id``, else the first of ``electrodes``, else the number in
    ``max_channel`` or ``ch``. The table's notes gain what is not used.

    Raises
    ------
    RecordingError
        There are more columns or longer texts than any units table has.
    """
    names = [column for column in table.columns() if column not in _READ_ELSEWHERE]
    _require_at_most(len(names), MAX_COLUMNS, f"{table.opened.name}: {table.path} has too many columns")
    for name in names:
        column = table.values(name)
        if column is not None:
            _require_short(column.values, f"{table.opened.name}: {table.path}/{name}")
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
        yield Metric(PEAK_ID, _at_peak(ids, peaks))
    for name in _NUMBERS:
        if (numbers := electrodes.numbers(name)) is not None:
            yield Metric(f"{PEAK}{name}", _at_peak(numbers, peaks))
    for name in _TEXTS:
        if (labels := electrodes.labels(name)) is not None:
            yield Metric(f"{PEAK}{name}", None, [labels[row] if row >= 0 else None for row in peaks.tolist()])
    frame = _frame(electrodes)
    yield Metric(PEAK_NOTE, None, [f"{note}{frame}" if note else None for note in notes])


def _at_peak(values: np.ndarray, peaks: np.ndarray) -> np.ndarray:
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
