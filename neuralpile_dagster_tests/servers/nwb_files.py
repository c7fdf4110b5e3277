"""Small real NWB files for tests, written by pynwb (a few tens of milliseconds each).

A file that was written before with the same arguments is copied.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuralpile_dagster.archives import synthetic_nwb
from neuralpile_dagster.archives.synthetic_nwb import Electrodes, rewrite

__all__ = ["Electrodes", "poisson_trains", "remove", "rewrite", "write_nwb_without_units", "write_units_nwb"]

_KEPT, _LARGEST_KEPT = 100, 1_000_000
_WRITTEN: OrderedDict[bytes, bytes] = OrderedDict()
"""Contents of the files written last, by digest of the arguments."""


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
    ``units`` are the keywords of `nwb.add_units`, ``file_fields`` those of `nwb.new_file`, ``intervals`` those of
    `nwb.add_intervals` by name of the table. By default ``spike_times``
    is contiguous float64 and its index of the smallest unsigned dtype, as pynwb writes them.
    """
    arguments = (subject_id, index_dtype, times_dtype, contiguous, compression, chunks, file_fields, intervals, units)
    key = hashlib.sha256(pickle.dumps(([np.asarray(train) for train in trains], arguments))).digest()
    if key in _WRITTEN:
        _WRITTEN.move_to_end(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_WRITTEN[key])
        return path
    file = synthetic_nwb.new_file(subject_id, **(file_fields or {}))
    synthetic_nwb.add_units(file, trains, **units)
    for name, table in (intervals or {}).items():
        synthetic_nwb.add_intervals(file, name, **table)
    synthetic_nwb.save(file, path, contiguous=contiguous)
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
    return synthetic_nwb.save(synthetic_nwb.new_file("S1"), path)


def remove(path: Path, *names: str) -> Path:
    """Delete groups or datasets of an HDF5 file, e.g. ``"units/spike_times"``."""
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[name]
    return path
