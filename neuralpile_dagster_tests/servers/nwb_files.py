"""Small real NWB files for tests, written by pynwb (a few tens of milliseconds each).

A file that was written before with the same arguments is copied.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.common import DynamicTableRegion, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile
from pynwb.device import Device
from pynwb.ecephys import ElectrodeGroup
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units

from neuralpile_dagster.archives.synthetic import (
    START_TIME,
    SYNTHETIC,
    flat_columns,
    ragged,
    rewrite,
)

__all__ = ["Electrodes", "poisson_trains", "remove", "rewrite", "save", "write_nwb_without_units", "write_units_nwb"]

_KEPT, _LARGEST_KEPT = 100, 1_000_000
_WRITTEN: OrderedDict[bytes, bytes] = OrderedDict()
"""Contents of the files written last, by digest of the arguments."""


@dataclass(frozen=True)
class Electrodes:
    """An electrodes table: one entry of each per electrode. Groups are made as they are named.

    ``group_locations`` gives a group's own ``location`` ("unknown" where it has none), ``positions`` the coordinates
    x, y and z in micrometers.
    """

    ids: Sequence[int]
    locations: Sequence[str]
    group_names: Sequence[str]
    group_locations: Mapping[str, str] = field(default_factory=dict)
    positions: Sequence[tuple[float, float, float]] = ()


def new_file(
    subject_id: str = "S1",
    *,
    session_id: str = "1",
    sex: str = "U",
    age: str | None = None,
    species: str = "Mus musculus",
    start_time: datetime = START_TIME,
    description: str = SYNTHETIC,
) -> NWBFile:
    """An NWB file in memory without any data; the identifier is fixed by subject and session, so files repeat."""
    subject = Subject(subject_id=subject_id, sex=sex, age=age, species=species, description=SYNTHETIC)
    return NWBFile(
        session_description=description,
        identifier=f"synthetic-{subject_id}-{session_id}",
        session_start_time=start_time,
        session_id=session_id,
        subject=subject,
    )


def save(nwb: NWBFile, path: Path, *, contiguous: bool = True) -> Path:
    """Write the file, contiguous (as Allen's are) or in chunks; make its folder first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb, **({"expandable": []} if contiguous else {}))
    return path


def _add_electrodes(nwb: NWBFile, electrodes: Electrodes) -> dict[str, ElectrodeGroup]:
    """Add an electrodes table; return its groups by name."""
    device = Device(name="synthetic probe", description=SYNTHETIC)
    nwb.add_device(device)
    groups: dict[str, ElectrodeGroup] = {}
    places = [dict(zip("xyz", position, strict=True)) for position in electrodes.positions] or [{}] * len(
        electrodes.ids
    )
    rows = zip(electrodes.ids, electrodes.locations, electrodes.group_names, places, strict=True)
    for number, location, name, position in rows:
        if name not in groups:
            place = electrodes.group_locations.get(name, "unknown")
            groups[name] = ElectrodeGroup(name=name, description=SYNTHETIC, location=place, device=device)
            nwb.add_electrode_group(groups[name])
        nwb.add_electrode(id=int(number), location=location, group=groups[name], **position)
    return groups


def add_units(
    nwb: NWBFile,
    trains: Sequence[np.ndarray],
    *,
    unit_ids: Sequence[int] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    electrodes: Electrodes | None = None,
    unit_electrodes: Sequence[Sequence[int]] | None = None,
    unit_groups: Sequence[str] | None = None,
    obs_intervals: Sequence[np.ndarray] | None = None,
) -> None:
    """Add a units table.

    Parameters
    ----------
    trains : sequence of numpy.ndarray, float, shape (n_spikes,)
        Spike times of each unit, seconds; stored as float64.
    unit_ids : sequence of int, optional
        By default 0, 1, 2, ...
    columns : mapping
        Further columns: one value per unit, or one float array per unit (stored as a ragged column).
    electrodes : Electrodes, optional
        The file's electrodes table.
    unit_electrodes : sequence of sequences of int, optional
        Rows (not ids) of the electrodes table per unit: the column ``electrodes``.
    unit_groups : sequence of str, optional
        Name of each unit's electrode group: the column ``electrode_group``.
    obs_intervals : sequence of numpy.ndarray, float64, shape (n_intervals, 2), optional
        Start and stop of observation, seconds, per unit.
    """
    groups = _add_electrodes(nwb, electrodes) if electrodes else {}
    more: list[VectorData] = []
    if unit_electrodes is not None:
        rows, index = ragged("electrodes", unit_electrodes, np.empty(0, np.int64))
        region = DynamicTableRegion(
            name="electrodes", description=rows.description, data=rows.data, table=nwb.electrodes
        )
        more += [region, VectorIndex(name="electrodes_index", target=region, data=index.data)]
    if unit_groups is not None:
        named = [groups[name] for name in unit_groups]
        more.append(VectorData(name="electrode_group", description="synthetic electrode_group", data=named))
    if obs_intervals is not None:
        more += ragged("obs_intervals", obs_intervals, np.empty((0, 2)))
    written = [*ragged("spike_times", trains, np.empty(0)), *flat_columns(columns or {}), *more]
    ids = list(range(len(trains))) if unit_ids is None else list(unit_ids)
    nwb.units = Units(name="units", description="synthetic units", columns=written, id=ids)


def add_intervals(
    nwb: NWBFile,
    name: str,
    start_time: Sequence[float],
    stop_time: Sequence[float],
    columns: Mapping[str, Sequence[Any]] | None = None,
    module: str | None = None,
) -> None:
    """Add a table of intervals: ``trials``, ``epochs``, ``invalid_times`` or one of another name.

    Parameters
    ----------
    start_time, stop_time : sequence of float
        Seconds.
    columns : mapping, optional
        As of `add_units`.
    module : str, optional
        Name of the processing module that gets it.
    """
    times = {"start_time": list(start_time), "stop_time": list(stop_time)}
    written = [*flat_columns(times), *flat_columns(columns or {})]
    table = TimeIntervals(name=name, description=SYNTHETIC, columns=written, id=list(range(len(start_time))))
    if module is not None:
        nwb.create_processing_module(module, SYNTHETIC).add(table)
    elif name in ("trials", "epochs", "invalid_times"):
        setattr(nwb, name, table)
    else:
        nwb.add_time_intervals(table)


def poisson_trains(n_units: int, duration_s: float, rate_hz: float = 5.0, seed: int = 0) -> list[np.ndarray]:
    """Sorted spike times of independent Poisson units; the last unit is silent.

    Returns
    -------
    list of numpy.ndarray, float64, shape (n_spikes,)
        Seconds, one array per unit.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate_hz * duration_s, n_units)
    counts[-1] = 0
    return [np.sort(rng.uniform(0, duration_s, count)) for count in counts]


def write_units_nwb(
    path: Path,
    trains: Sequence[np.ndarray],
    *,
    subject_id: str = "S1",
    index_dtype: Any = None,
    times_dtype: Any = None,
    contiguous: bool = True,
    compression: str | None = None,
    chunks: tuple[int, ...] | None = None,
    file_fields: dict[str, Any] | None = None,
    intervals: Mapping[str, Mapping[str, Any]] | None = None,
    **units: Any,
) -> Path:
    """Write a file with these spike trains.

    ``trains`` holds one array per unit: spike times in seconds, float64, shape (n_spikes,).
    ``units`` are the keywords of `add_units`, ``file_fields`` those of `new_file`, ``intervals`` those of
    `add_intervals` by name of the table. By default ``spike_times``
    is contiguous float64 and its index of the smallest unsigned dtype, as pynwb writes them.
    """
    arguments = (subject_id, index_dtype, times_dtype, contiguous, compression, chunks, file_fields, intervals, units)
    key = hashlib.sha256(pickle.dumps(([np.asarray(train) for train in trains], arguments))).digest()
    if key in _WRITTEN:
        _WRITTEN.move_to_end(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_WRITTEN[key])
        return path
    file = new_file(subject_id, **(file_fields or {}))
    add_units(file, trains, **units)
    for name, table in (intervals or {}).items():
        add_intervals(file, name, **table)
    save(file, path, contiguous=contiguous)
    layout = {"dtype": times_dtype, "compression": compression, "chunks": chunks}
    given = {name: value for name, value in layout.items() if value is not None}
    if given:
        rewrite(path, "units/spike_times", **given)
    if index_dtype is not None:
        rewrite(path, "units/spike_times_index", dtype=index_dtype)
    if path.stat().st_size <= _LARGEST_KEPT:
        _WRITTEN[key] = path.read_bytes()
        if len(_WRITTEN) > _KEPT:
            _WRITTEN.popitem(last=False)
    return path


def write_nwb_without_units(path: Path) -> Path:
    """Write a valid NWB file that has no units table."""
    return save(new_file("S1"), path)


def remove(path: Path, *names: str) -> Path:
    """Delete groups or datasets of an HDF5 file, e.g. ``"units/spike_times"``."""
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[name]
    return path
