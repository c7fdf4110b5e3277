"""One look at all spikes before binning: are they sorted, when is the first and last, which are no times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.binning import kernels
from neuralpile_dagster.errors import DamagedRecording
from neuralpile_dagster.recordings.model import SpikeTrains


@dataclass(frozen=True)
class Part:
    """Units whose spikes lie in one array, rising within each unit but for NaN.

    ``times[starts[i]:stops[i]]`` are the spikes of row ``rows[i]`` of the counts.
    """

    times: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


@dataclass(frozen=True)
class Scan:
    """What was seen: numbers of spikes by kind, first and last time (s), and the units ready to be binned.

    ``low, high`` are ``inf, -inf`` when there is no spike that is a number.
    """

    parts: tuple[Part, ...]
    low: float
    high: float
    nan: int
    infinite: int
    negative: int
    duplicates: int


def scan_trains(trains: SpikeTrains, name: str = "the recording") -> Scan:
    """Check ``ends`` and look at every spike once; sort a copy of the units that are not sorted.

    Raises `DamagedRecording` when ``ends`` contradicts ``spike_times``.
    """
    times = np.ascontiguousarray(trains.spike_times, dtype=np.float64)
    ends = np.ascontiguousarray(trains.ends, dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    if np.any(starts > ends) or (ends[-1] if len(ends) else 0) != len(times):
        raise DamagedRecording(
            f"{name}: the index of its spike times is damaged",
            found=f"the index ends at {ends[-1] if len(ends) else 0:,}, for {len(times):,} spikes",
            expected="rising ends of units, the last one equal to the number of spikes",
        )
    rising = np.empty(len(ends), np.bool_)
    found = np.empty((len(ends), kernels.SCAN_WIDTH), np.int64)
    low, high = kernels.scan_units(times, starts, ends, rising, found)
    parts = [Part(times, np.flatnonzero(rising), starts[rising], ends[rising])]
    if not rising.all():
        parts.append(_sorted_copy(times, starts, ends, np.flatnonzero(~rising), found))
    sums = found.sum(axis=0)
    return Scan(
        parts=tuple(parts),
        low=low,
        high=high,
        nan=int(sums[kernels.SCAN_NAN]),
        infinite=int(sums[kernels.SCAN_INFINITE]),
        negative=int(sums[kernels.SCAN_NEGATIVE]),
        duplicates=int(sums[kernels.SCAN_DUPLICATE]),
    )


def _sorted_copy(times: np.ndarray, starts: np.ndarray, ends: np.ndarray, rows: np.ndarray, found: np.ndarray) -> Part:
    """Copy and sort the spikes of ``rows``; counts in ``found`` are made again, as equal times are now neighbours."""
    copy = np.concatenate([np.sort(times[starts[row] : ends[row]]) for row in rows])
    stops = np.cumsum(ends[rows] - starts[rows])
    begins = np.concatenate([np.zeros(1, np.int64), stops[:-1]])
    again = np.empty((len(rows), kernels.SCAN_WIDTH), np.int64)
    kernels.scan_units(copy, begins, stops, np.empty(len(rows), np.bool_), again)
    found[rows] = again
    return Part(copy, rows, begins, stops)
