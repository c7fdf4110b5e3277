"""Reader ``units``: spike times of an NWB units table, and the few columns that describe the units.

Only ``spike_times``, its index, ``id`` and small per-unit columns are read;
never amplitudes or waveforms, which are larger than the spikes. Where a file
has no units table, the error says what it has instead: an NWB 1 file, a MATLAB
file, or units elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import h5py
import numpy as np

from neuralpile_dagster.catalog.readers import UnitsOptions
from neuralpile_dagster.errors import DamagedRecording, NoUnits
from neuralpile_dagster.hdf5.careful import (
    MAX_LOOKS,
    child_paths,
    find,
    find_dataset,
    groups_with,
    names_in,
    read_array,
    require_plausible,
    shape_of,
)
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import read_attribute, read_text, text_of
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.recordings.nwb.labels import read_units
from neuralpile_dagster.recordings.nwb.table import (
    MAX_ROWS,
    Table,
    Unusable,
    broken_index_rule,
    first_facts,
    open_table,
    read_facts,
)

MAX_SPIKES = 2_000_000_000  # of one session, 16 GB; the largest session seen has 131 million
_NWB_1 = re.compile(r"^(?:NWB-)?([01](?:\.\w+)*)")


def read_nwb_units(files: Sequence[OpenFile], options: UnitsOptions) -> Recording:
    """Read a session's files, units of one after units of the other.

    Parameters
    ----------
    files : sequence of OpenFile
        The session's NWB files in order; all of them must be readable.
    options : UnitsOptions
        Where each of them has its units table.

    Returns
    -------
    Recording
        `SpikeTrains` with bin rule ``"histogram"``: spike times in seconds as
        stored, cast to float64. Holds one session's spikes, and while several
        files are joined those of one file more.

    Raises
    ------
    NoUnits
        A file has no units table, or no spike times.
    DamagedRecording
        A file cannot be read, or its index is invalid; the message names both.
    """
    with ExitStack() as stack:
        parts = [_find_units(file, stack.enter_context(file.hdf5()), options.table) for file in files]
        n_spikes = sum(part.n_spikes for part in parts)
        if n_spikes > MAX_SPIKES:
            raise DamagedRecording(
                f"{files[0].name} and the files with it claim more spikes than any recording",
                found=f"{n_spikes:,} spikes",
                expected=f"at most {MAX_SPIKES:,}",
            )
        contents = [_read_small(part) for part in parts]
        spike_times = _read_spikes(parts, n_spikes)
    starts = np.cumsum([0] + [part.n_spikes for part in parts[:-1]])
    ends = np.concatenate([content.ends + start for content, start in zip(contents, starts, strict=True)])
    return Recording(
        data=SpikeTrains(spike_times, ends),
        units=tuple(unit for content in contents for unit in content.units),
        facts=first_facts([content.facts for content in contents]),
        notes=tuple(note for content in contents for note in content.notes),
    )


@dataclass(frozen=True)
class _Part:
    """Units of one open file, before their values are read."""

    table: Table
    spike_times: h5py.Dataset
    n_spikes: int


@dataclass(frozen=True)
class _Small:
    """Contents of one file except its spike times."""

    ends: np.ndarray
    units: tuple[Unit, ...]
    facts: SessionFacts
    notes: list[str]


def _find_units(opened: OpenFile, file: h5py.File, path: str) -> _Part:
    name = opened.name
    units = find(file, path, name)
    if not isinstance(units, h5py.Group):
        raise _no_units_table(file, name, path)
    spike_times = find_dataset(file, f"{path}/spike_times", name)
    if spike_times is None:
        raise NoUnits(
            f"{name} has units without spike times",
            found=f"columns {names_in(units, name)}",
            expected=f"a column {path}/spike_times",
            remedy="exclude the file with the dataset's session rule",
        )
    table = open_table(opened, file, path)
    if table is None:
        raise _damaged(name, "the column id is missing")
    (n_spikes,) = shape_of(spike_times, name, n_dims=1, max_values=MAX_SPIKES)
    require_plausible(spike_times, name)
    if table.n_rows == 0:
        raise NoUnits(f"{name} has a units table without units", found=f"0 ids, {n_spikes:,} spike times")
    return _Part(table, spike_times, n_spikes)


def _read_small(part: _Part) -> _Small:
    name = part.table.opened.name
    try:
        index = part.table.ends("spike_times")
    except Unusable as rule:
        raise _damaged(name, str(rule)) from rule
    if index is None:
        raise _damaged(name, "the column spike_times_index is missing")
    broken = broken_index_rule(index, part.n_spikes, part.table.n_rows)
    if broken:
        raise _damaged(name, broken)
    id_dataset = part.table.dataset("id")
    assert id_dataset is not None  # open_table found it
    ids = read_array(part.table.opened, id_dataset, kinds="iu", max_values=MAX_ROWS)
    if ids.max() > np.iinfo(np.int64).max:
        raise _damaged(name, f"the id {ids.max():,} is not a 64-bit number")
    units = read_units(part.table, ids)
    if part.spike_times.dtype.kind in "iu":
        part.table.notes.append(
            f"{part.table.path}/spike_times are whole numbers ({part.spike_times.dtype}), read as seconds"
        )
    notes = [f"{name}: {note}" for note in part.table.notes]
    return _Small(index.astype(np.int64), units, read_facts(part.table.file, name), notes)


def _read_spikes(parts: Sequence[_Part], n_spikes: int) -> np.ndarray:
    """Read spike times of all files as one float64 array (integers are cast); one float64 file is not copied."""
    if len(parts) == 1:
        return _read_part(parts[0]).astype(np.float64, copy=False)
    joined = np.empty(n_spikes, dtype=np.float64)
    start = 0
    for part in parts:
        joined[start : start + part.n_spikes] = _read_part(part)
        start += part.n_spikes
    return joined


def _read_part(part: _Part) -> np.ndarray:
    return read_array(part.table.opened, part.spike_times, kinds="fiu", max_values=MAX_SPIKES)


def _damaged(name: str, rule: str) -> DamagedRecording:
    return DamagedRecording(
        f"{name}: its units table is damaged: {rule}",
        expected="one index entry per unit id, non-decreasing, the last equal to the number of spike times",
        remedy="fetch the file again and compare its digest with the archive's, or exclude it",
    )


def _no_units_table(file: h5py.File, name: str, path: str) -> NoUnits:
    """The error for a file without a units table at ``path``; its remedy fits what the file has instead.

    Parameters
    ----------
    file : h5py.File
    name : str
        The file's, for messages.
    path : str
        Where the table was looked for.
    """
    what = f"{name} has no units table"
    stated = text_of(read_attribute(file, "nwb_version", name)) or read_text(file, "/nwb_version", name) or ""
    old = _NWB_1.match(stated)
    if old:
        return NoUnits(
            what,
            found=f"an NWB {old[1]} file; it keeps spike times under /processing",
            expected="NWB 2, with a group /units",
            remedy="convert the file to NWB 2 with pynwb, or exclude it with the dataset's session rule",
        )
    if not stated and _is_matlab(file, name):
        return NoUnits(
            what,
            found=f"a MATLAB 7.3 file with the variables {names_in(file, name)}",
            expected="an NWB file with a group /units",
            remedy="write its spike times to an NWB file with pynwb or MatNWB, or exclude the file",
        )
    elsewhere = _units_elsewhere(file, name)
    if elsewhere:
        return NoUnits(
            what,
            found=f"spike times in {', '.join(elsewhere)}",
            expected=f"a group {path}",
            remedy=f"state where it is: `reader_options: {{table: {elsewhere[0]}}}` in the dataset's row, "
            f"or `neuralpile bin --table {elsewhere[0]}`",
        )
    return NoUnits(
        what,
        found=names_in(file, name),
        expected=f"a group {path}",
        remedy="exclude the file with the dataset's session rule, or choose another reader",
    )


def _is_matlab(file: h5py.File, name: str) -> bool:
    """Whether MATLAB saved the file: each of its variables states its class."""
    variables = (find(file, path, name) for path in list(child_paths(file, "/", name).values())[:MAX_LOOKS])
    return any(variable is not None and "MATLAB_class" in variable.attrs for variable in variables)


def _units_elsewhere(file: h5py.File, name: str) -> list[str]:
    """Paths of groups that hold ``spike_times``: ``/units``, and where NWB files keep other tables."""
    return list(groups_with(file, "spike_times", ["/units", "/processing", "/analysis", "/scratch"], name))
