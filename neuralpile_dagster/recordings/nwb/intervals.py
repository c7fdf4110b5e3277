"""Intervals of an NWB file: trials, epochs, stimulus presentations, invalid times; every table of them, row by row.

Tables lie under ``/intervals``, and in ``/processing/*`` where their type says `TimeIntervals`. Columns of numbers or
text are read, one at a time; which bins an interval spans depends on the counts and belongs in `publish`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording, RecordingError
from neuralpile_dagster.hdf5.careful import child_paths, find, read_array
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import read_attribute, text_of
from neuralpile_dagster.recordings.nwb.table import Column, Table, open_table

INTERVALS, PROCESSING = "/intervals", "/processing"
START, STOP = "start_time", "stop_time"
MAX_TABLES = 60  # of a session; the largest number seen is 22
MAX_INTERVALS = 2_000_000  # rows of a session; a session of visual coding has some 70,000
MAX_COLUMNS = 100  # of one table
MAX_PER_ROW = 64  # values of one row of a ragged column
MAX_TEXT_BYTES = 1_000  # of one value
MAX_LOOKS = 1_000  # objects of /processing that are looked at


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


def read_intervals(files: Sequence[tuple[OpenFile, h5py.File]], notes: list[str]) -> Iterator[IntervalTable]:
    """Read the tables of a session's files, one after the other; memory is that of one table.

    A table that several files hold with the same contents is read once; one of other contents has the file's name
    behind its own.

    Parameters
    ----------
    files : sequence of (OpenFile, h5py.File)
    notes : list of str
        Gains a line for every column that is not used.

    Raises
    ------
    DamagedRecording
        A table lacks its times, or cannot be read.
    RecordingError
        There are more tables, rows, columns or text than any session has.
    """
    known: dict[str, str] = {}
    n_rows = 0
    for opened, file in files:
        for name, path in _paths(file, opened.name):
            table = open_table(opened, file, path, MAX_INTERVALS)
            if table is None:
                notes.append(f"{opened.name}: {path} is not used: it has no column id")
                continue
            found = _read(table, name)
            notes.extend(f"{opened.name}: {note}" for note in table.notes)
            digest = _digest(found)
            if known.get(name) == digest:
                continue
            if name in known:
                name = f"{name} ({PurePosixPath(opened.name).name})"
            known[name] = digest
            n_rows += table.n_rows
            require_at_most(len(known), MAX_TABLES, f"{opened.name} has too many tables of intervals")
            require_at_most(n_rows, MAX_INTERVALS, f"{opened.name} has too many intervals")
            yield IntervalTable(name, found.start_time, found.stop_time, found.columns)


def _paths(file: h5py.File, name: str) -> Iterator[tuple[str, str]]:
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


def _read(table: Table, name: str) -> IntervalTable:
    names = [column for column in table.columns() if column not in ("id", START, STOP)]
    require_at_most(len(names), MAX_COLUMNS, f"{table.opened.name}: {table.path} has too many columns")
    columns = {column: values for column in names if (values := table.values(column, MAX_PER_ROW)) is not None}
    for column, values in columns.items():
        require_short(values.values, f"{table.opened.name}: {table.path}/{column}")
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


def require_short(values: np.ndarray, what: str) -> None:
    """Raise `RecordingError` when a text is longer than `MAX_TEXT_BYTES`.

    ``values`` are those of a column: of any dtype, texts if object, shape (n_values,).
    """
    if values.dtype.kind == "O" and len(values):
        require_at_most(
            max(len(text.encode()) for text in values), MAX_TEXT_BYTES, f"{what} holds text that is too long"
        )


def require_at_most(found: int, most: int, what: str) -> None:
    """Raise `RecordingError`, saying ``what`` is wrong, when a number is above its bound."""
    if found > most:
        raise RecordingError(
            what, found=f"{found:,}", expected=f"at most {most:,}", remedy="spike counts do not depend on this"
        )


def _digest(table: IntervalTable) -> str:
    digest = hashlib.sha256(table.start_time.tobytes() + table.stop_time.tobytes())
    for name, column in table.columns.items():
        values = column.values
        content = repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
        digest.update(b"\0".join([name.encode(), content, b"" if column.ends is None else column.ends.tobytes()]))
    return digest.hexdigest()
