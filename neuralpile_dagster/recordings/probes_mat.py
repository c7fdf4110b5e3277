"""Reader ``eight_probe_mat``: MATLAB files with a struct ``spks`` per probe (figshare 7739750; docs/binning.md)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from neuralpile_dagster.errors import DamagedRecording, EmptyRecording, OutOfMemory
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.recordings.mat5 import Unexpected, Unreadable, read_columns
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.recordings.nwb.table import MAX_ROWS

VARIABLE = "spks"
FIELDS = ("st", "clu")  # spike times in seconds, cluster ids from 1


def read_probes_mat(opened: OpenFile) -> Recording:
    """Read the spike trains of all probes of one file.

    Each probe has as many units as its largest cluster id; an id without
    spikes is a unit without spikes. A unit's id is its cluster id, its probe the
    number of the probe in the file, from 1. The files name no brain areas.

    Returns
    -------
    Recording
        `SpikeTrains` with bin rule ``"from_first_spike"``; within a unit the
        spikes are in the file's order.

    Raises
    ------
    DamagedRecording
        The file cannot be read, has no usable ``spks``, ids that are not whole
        numbers from 1, or times that are NaN or infinite.
    EmptyRecording
        There is no span of time between the first spike and the last.
    """
    name = opened.name
    probes = [_probe(name, number, probe) for number, probe in enumerate(_load(name, opened.local_path()), start=1)]
    sizes = [int(ids.max(initial=0)) for _, ids in probes]
    if sum(sizes) > MAX_ROWS:
        raise _wrong(name, f"cluster ids up to {max(sizes):,}", f"at most {MAX_ROWS:,} units")
    times = np.concatenate([times for times, _ in probes])
    if not len(times) or times.max() == times.min():
        raise EmptyRecording(
            f"{name} has nothing to bin",
            found=f"{len(times):,} spikes" + (f", all at {times[0]} s" if len(times) else ""),
            expected="spikes at different times",
        )
    offsets = np.cumsum([0, *sizes[:-1]])
    rows = np.concatenate([ids - 1 + offset for (_, ids), offset in zip(probes, offsets, strict=True)])
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=sum(sizes)))
    file = PurePosixPath(name).name
    units = tuple(
        Unit(unit_id=unit_id, file=file, probe=str(number))
        for number, size in enumerate(sizes, start=1)
        for unit_id in range(1, size + 1)
    )
    return Recording(SpikeTrains(times[order], ends.astype(np.int64), "from_first_spike"), units, SessionFacts())


def _load(name: str, path: Path) -> list[tuple[np.ndarray, ...]]:
    """Read the fields of ``spks``, probe after probe."""
    try:
        with path.open("rb") as file:
            return read_columns(file, VARIABLE, FIELDS)
    except Unexpected as other:
        raise _wrong(name, *other.args) from other
    except MemoryError as error:
        raise OutOfMemory.in_reading(name, VARIABLE) from error
    except (Unreadable, OSError) as error:
        raise DamagedRecording(
            f"{name} cannot be read as a MATLAB file",
            found=str(error),
            remedy="fetch the file again; it is truncated, damaged or of another format",
        ) from error


def _probe(name: str, number: int, probe: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Spike times (float64, s) and cluster ids (int64) of one probe, in the file's order."""
    where = f"{VARIABLE}({number})"
    times, ids = (values.astype(np.float64, copy=False) for values in probe)
    if len(times) != len(ids):
        raise _wrong(name, f"{len(times):,} times and {len(ids):,} cluster ids in {where}", "one id per spike time")
    if not np.isfinite(times).all():
        bad = np.flatnonzero(~np.isfinite(times))
        raise _wrong(name, f"{times[bad[0]]} as spike time {bad[0] + 1} of {where}", "finite times in seconds")
    whole = (ids >= 1) & (ids <= MAX_ROWS) & (ids == np.floor(ids))
    if not whole.all():
        bad = np.flatnonzero(~whole)
        raise _wrong(
            name, f"{ids[bad[0]]} as cluster id {bad[0] + 1} of {where}", f"whole numbers from 1 to {MAX_ROWS:,}"
        )
    return times, ids.astype(np.int64)


def _wrong(name: str, found: str, expected: str) -> DamagedRecording:
    return DamagedRecording(
        f"{name} is not a valid eight-probe recording",
        found=found,
        expected=expected,
        remedy="fetch the file again, or choose another reader",
    )
