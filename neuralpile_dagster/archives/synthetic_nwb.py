"""Write small NWB files with a units table: flat columns, so that a file takes milliseconds.

Everything written says that it is synthetic. The tests write their files with
the same functions, so what they prove holds for what the sample archive serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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

SYNTHETIC = "SYNTHETIC: made by a program, not recorded from an animal"
START_TIME = datetime(2020, 1, 1, 12, 0, tzinfo=UTC)


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


def _ragged(name: str, parts: Sequence[Any], empty: np.ndarray) -> tuple[VectorData, VectorIndex]:
    """A column that holds several values per unit, and its index.

    Parameters
    ----------
    name : str
    parts : sequence of array_like, shape (n_values, ...)
        The values of each unit.
    empty : numpy.ndarray, shape (0, ...)
        Of the column's dtype; its further dimensions are those of one value.

    Returns
    -------
    VectorData, VectorIndex
        The flat values, and where each unit's values end.
    """
    flat = np.concatenate([empty, *[np.asarray(part, empty.dtype).reshape(-1, *empty.shape[1:]) for part in parts]])
    data = VectorData(name=name, description=f"synthetic {name}", data=flat)
    ends = np.cumsum([len(part) for part in parts], dtype=np.uint64)
    dtype = np.min_scalar_type(int(ends[-1]) if len(ends) else 0)  # as pynwb chooses it
    return data, VectorIndex(name=f"{name}_index", target=data, data=ends.astype(dtype))


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
    written: list[VectorData] = [*_ragged("spike_times", trains, np.empty(0)), *_columns(columns or {})]
    if unit_electrodes is not None:
        rows, index = _ragged("electrodes", unit_electrodes, np.empty(0, np.int64))
        region = DynamicTableRegion(
            name="electrodes", description=rows.description, data=rows.data, table=nwb.electrodes
        )
        written += [region, VectorIndex(name="electrodes_index", target=region, data=index.data)]
    if unit_groups is not None:
        named = [groups[name] for name in unit_groups]
        written.append(VectorData(name="electrode_group", description="synthetic electrode_group", data=named))
    if obs_intervals is not None:
        written += _ragged("obs_intervals", obs_intervals, np.empty((0, 2)))
    ids = list(range(len(trains))) if unit_ids is None else [int(number) for number in unit_ids]
    nwb.units = Units(name="units", description="synthetic units", columns=written, id=ids)


def _columns(columns: Mapping[str, Sequence[Any]]) -> list[VectorData]:
    """Columns of one value per row, or ragged ones of one float array per row."""
    written: list[VectorData] = []
    for name, values in columns.items():
        if len(values) and isinstance(values[0], np.ndarray) and name != "waveform_mean":
            written.extend(_ragged(name, values, np.empty(0)))
        else:
            data = np.stack(values) if name == "waveform_mean" else list(values)
            written.append(VectorData(name=name, description=f"synthetic {name}", data=data))
    return written


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
    written = [*_columns(times), *_columns(columns or {})]
    table = TimeIntervals(name=name, description=SYNTHETIC, columns=written, id=list(range(len(start_time))))
    if module is not None:
        nwb.create_processing_module(module, SYNTHETIC).add(table)
    elif name in ("trials", "epochs", "invalid_times"):
        setattr(nwb, name, table)
    else:
        nwb.add_time_intervals(table)


def rewrite(path: Path, dataset: str, values: Any = None, **create: Any) -> None:
    """Replace a dataset of an HDF5 file, where pynwb fixes its form; attributes and references to it are kept.

    Parameters
    ----------
    dataset : str
        Path inside the file, e.g. ``"units/spike_times_index"``.
    values : array, optional
        The new values; by default the old ones.
    **create
        For `h5py.Group.create_dataset`: ``dtype``, ``chunks``, ``compression``, ``shuffle``, ...
    """
    with h5py.File(path, "r+") as file:
        old = file[dataset]
        attributes = dict(old.attrs)
        values = old[()] if values is None else values
        if "dtype" in create:
            values = np.asarray(values).astype(create["dtype"])
        del file[dataset]
        new = file.create_dataset(dataset, data=values, **create)
        new.attrs.update(attributes)
        index = file.get(f"{dataset}_index")
        if index is not None:
            index.attrs["target"] = new.ref
