"""What a session's spike times say about their clock: order, whole numbers, first and last spike, time observed.

Measured on the recording, in the file's order of spikes, because counts no longer show it. Judging belongs in `checks`;
no number here changes a count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit

from neuralpile_dagster.binning.kernels import over_units
from neuralpile_dagster.binning.source import CountSource
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, Unit
from neuralpile_dagster.records import ClockRecord

FAR = 2.0**53
"""Bins further away than any session; times may be infinite."""
FALLS, WHOLE, OUTSIDE, TALLY_WIDTH = range(4)
LARGEST_FALL, FIRST, LAST = range(3)
"""Places in the results of `scan_clock`."""


def scan_spikes(recording: Recording, threads: int = 1) -> dict[str, Any]:
    """Pass over a recording's spikes once, without a copy, for the fields of `ClockRecord` that need each of them.

    Empty where the recording holds ready-made counts.

    Parameters
    ----------
    recording : Recording
    threads : int
        Threads that share the units; no number depends on it.
    """
    data = recording.data
    if isinstance(data, BinnedCounts):
        return {}
    times = np.ascontiguousarray(data.spike_times, dtype=np.float64)
    units = np.split(times, np.asarray(data.ends, np.int64)[:-1])[: len(data.ends)]
    stated = _stated(recording.units)
    least = 0.0 if data.bin_rule == "histogram" else -math.inf

    def scan(some: slice) -> tuple[np.ndarray, int, np.ndarray]:
        tally, falling = np.zeros(TALLY_WIDTH, np.int64), 0
        seconds = np.array([0.0, math.inf, -math.inf])
        for times, intervals in zip(units[some], stated[some], strict=True):
            before = tally[FALLS]
            scan_clock(times, intervals[:, 0].copy(), intervals[:, 1].copy(), least, tally, seconds)
            falling += int(tally[FALLS] > before)
        return tally, falling, seconds

    sizes = np.array([len(times) for times in units], np.int64)
    tallies, falling, seconds = zip(*over_units(scan, sizes, threads), strict=True)
    tally, found = sum(tallies, np.zeros(TALLY_WIDTH, np.int64)), np.array(seconds)
    first = float(found[:, FIRST].min())
    return {
        "start_s": 0.0 if data.bin_rule == "histogram" else first,
        "first_spike_s": first,
        "last_spike_s": float(found[:, LAST].max()),
        "outside_intervals": int(tally[OUTSIDE]),
        "falls": int(tally[FALLS]),
        "falling_units": sum(falling),
        "largest_fall_s": float(found[:, LARGEST_FALL].max()),
        "whole_times": int(tally[WHOLE]),
    }


def measure_clock(recording: Recording, source: CountSource, scan: dict[str, Any]) -> ClockRecord:
    """Measure the clock of a recording.

    Parameters
    ----------
    recording : Recording
        Its spike times may be gone by now.
    source : CountSource
        Of that recording: its bins say where the counts begin and end.
    scan : dict
        From `scan_spikes`.
    """
    if isinstance(recording.data, BinnedCounts):
        active = np.flatnonzero(recording.data.counts.any(axis=0))
        bins = (int(active[0]), int(active[-1]) + 1) if len(active) else (0, source.n_bins)
        first, last = (source.bin_width_s * edge for edge in bins)
        scan = {"start_s": None, "first_spike_s": first, "last_spike_s": last}
    begin = scan["start_s"] or 0.0
    per_unit = _within(_stated(recording.units), begin, begin + source.n_bins * source.bin_width_s)
    return ClockRecord(
        observed_s=_observed(per_unit, (scan["first_spike_s"], scan["last_spike_s"])),
        intervals_stated=any(len(unit) for unit in per_unit),
        **scan,
    )


def observed_seconds(units: Sequence[Unit], clock: ClockRecord, length: float) -> np.ndarray:
    """Return how long each unit was observed.

    Parameters
    ----------
    units : sequence of Unit
    clock : ClockRecord
        Of their session.
    length : float
        Of the session's counts, seconds.

    Returns
    -------
    numpy.ndarray, float64, shape (n_units,)
        Seconds of its ``obs_intervals`` within the counts; where it has none, from the session's first spike to the
        last one. Never 0: a session of one spike is taken as long as its counts.
    """
    start = clock.start_s or 0.0
    whole = clock.last_spike_s - clock.first_spike_s
    seconds = [_total(unit) if len(unit) else whole for unit in _within(_stated(units), start, start + length)]
    return np.array([value if value > 0 else length for value in seconds])


def observed_times(
    intervals: Sequence[Sequence[Sequence[float]] | None],
    clock: ClockRecord | None,
    start: float,
    length: float,
    invalid: Sequence[np.ndarray],
) -> tuple[np.ndarray, float | None]:
    """Return how long each unit, and any of them, was observed, without invalid times.

    Parameters
    ----------
    intervals : sequence of sequences of (start_s, stop_s), or None
        ``obs_intervals`` of each unit. A unit without any was observed from the session's first spike to the last.
    clock : ClockRecord or None
        Of the session; None in records of before.
    start, length : float
        Of the session's counts, seconds.
    invalid : sequence of numpy.ndarray, float64, shape (n_intervals, 2)
        Times that are invalid for each unit, seconds. Units that share theirs share the array.

    Returns
    -------
    per_unit : numpy.ndarray, float64, shape (n_units,)
        Seconds; NaN where it is not known.
    any_unit : float or None
    """
    spikes = ((clock.first_spike_s, clock.last_spike_s),) if clock is not None else ()
    if clock is not None and not clock.last_spike_s > clock.first_spike_s:
        spikes = ((start, start + length),)
    whole = np.asarray(spikes, np.float64).reshape(-1, 2)
    keys = [(_key(unit), id(excluded)) for unit, excluded in zip(intervals, invalid, strict=True)]
    valid: dict[tuple[Any, int], np.ndarray | None] = {}
    for key, excluded in zip(keys, invalid, strict=True):
        if key not in valid:
            stated = np.clip(_merged([key[0]]), start, start + length)
            stated = stated[stated[:, 1] > stated[:, 0]]
            observed = stated if len(stated) else whole
            valid[key] = _without(observed, excluded) if len(observed) else None
    known = [found for found in valid.values() if found is not None]
    seconds = {key: math.nan if found is None else _total(found) for key, found in valid.items()}
    per_unit = np.array([seconds[key] for key in keys], np.float64)
    return per_unit, _total(_merged(known)) if known and len(known) == len(valid) else None


def _key(intervals: Sequence[Sequence[float]] | None) -> tuple[tuple[float, float], ...]:
    return tuple((start, stop) for start, stop in intervals or ())


def _without(intervals: np.ndarray, invalid: np.ndarray) -> np.ndarray:
    """Merged intervals without invalid times: float64, shape (n_intervals, 2)."""
    excluded = _merged([invalid[np.isfinite(invalid).all(axis=1)]])
    # the gaps between invalid times, cut to each interval
    edges = np.concatenate([[-math.inf], excluded.ravel(), [math.inf]]).reshape(-1, 2)
    parts = [np.clip(edges, start, stop) for start, stop in intervals]
    return _merged(parts)


def bins_of_times(times: np.ndarray, width: float, origin: float) -> np.ndarray:
    """Return the bin that each time lies in, by the rule for spikes (docs/binning.md), not cut to the session.

    Parameters
    ----------
    times : numpy.ndarray, float64, shape (n_times,)
        Seconds; not NaN.
    width : float
        Bin width, seconds.
    origin : float
        Time at which bin 0 begins: 0, or the first spike with the rule ``from_first_spike``.

    Returns
    -------
    numpy.ndarray, int64, shape (n_times,)
        Negative before bin 0.
    """
    bins = np.floor(np.clip((times - origin) / width, -FAR, FAR))
    if not origin:  # as `kernels.histogram_bin`: edges are multiples of the width
        bins = np.where(bins * width > times, bins - 1, np.where((bins + 1) * width <= times, bins + 1, bins))
    return bins.astype(np.int64)


def _stated(units: Iterable[Unit]) -> list[np.ndarray]:
    """Merged ``obs_intervals`` of each unit: float64, shape (n_intervals, 2). Most units share theirs."""
    known: dict[tuple[tuple[float, float], ...], np.ndarray] = {}
    found = []
    for unit in units:
        intervals = unit.obs_intervals or ()
        if intervals not in known:
            known[intervals] = _merged([intervals])
        found.append(known[intervals])
    return found


def _within(per_unit: Sequence[np.ndarray], start: float, stop: float) -> list[np.ndarray]:
    """Intervals of each unit, cut to ``[start, stop]``."""
    known: dict[int, np.ndarray] = {}
    for intervals in per_unit:
        if id(intervals) not in known:
            cut = np.clip(intervals, start, stop)
            known[id(intervals)] = cut[cut[:, 1] > cut[:, 0]]
    return [known[id(intervals)] for intervals in per_unit]


def _merged(several: Iterable[Sequence[tuple[float, float]] | np.ndarray]) -> np.ndarray:
    """Merge intervals that touch or overlap, leaving out empty ones: float64, shape (n_intervals, 2), rising."""
    parts = [np.asarray(intervals, np.float64).reshape(-1, 2) for intervals in several]
    intervals = np.concatenate([np.zeros((0, 2)), *parts])
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if not len(intervals):
        return intervals
    reach = np.maximum.accumulate(intervals[:, 1])
    opens = np.flatnonzero(np.append(True, intervals[1:, 0] > reach[:-1]))
    return np.stack([intervals[opens, 0], reach[np.append(opens[1:], len(intervals)) - 1]], axis=1)


def _total(intervals: np.ndarray) -> float:
    return float((intervals[:, 1] - intervals[:, 0]).sum())


def _observed(per_unit: Sequence[np.ndarray], spikes: tuple[float, float]) -> float:
    """Seconds in which any unit was observed; one without intervals from the first spike to the last."""
    distinct = {id(intervals): intervals for intervals in per_unit if len(intervals)}
    unstated = [] if all(len(intervals) for intervals in per_unit) else [[spikes]]
    return _total(_merged([*distinct.values(), *unstated]))


@njit(cache=True, nogil=True)
def scan_clock(
    times: np.ndarray, starts: np.ndarray, stops: np.ndarray, least: float, tally: np.ndarray, seconds: np.ndarray
) -> None:
    """Look once at each of a unit's spike times, in their order.

    Parameters
    ----------
    times : numpy.ndarray, float64, shape (n_spikes,)
        Seconds; NaN is passed over.
    starts, stops : numpy.ndarray, float64, shape (n_intervals,)
        Rising intervals in which the unit was observed; none: everywhere.
    least : float
        Seconds; earlier spikes are neither first nor last.
    tally : numpy.ndarray, int64, shape (TALLY_WIDTH,)
        Added to: times below the one before, whole numbers, times outside all intervals.
    seconds : numpy.ndarray, float64, shape (3,)
        The largest step back, which is raised, and the first and the last spike, moved apart.
    """
    before = -math.inf
    falls, whole, outside = 0, 0, 0
    first, last = seconds[FIRST], seconds[LAST]
    k, n = 0, len(starts)
    for t in times:
        if math.isnan(t):
            continue
        if t < before:
            falls += 1
            seconds[LARGEST_FALL] = max(seconds[LARGEST_FALL], before - t)
        before = t
        if t >= least:
            first = min(first, t)
            last = max(last, t)
        whole += t == np.floor(t)
        if n and not starts[k] <= t <= stops[k]:
            k = min(int(np.searchsorted(stops, t)), n - 1)
            outside += not starts[k] <= t <= stops[k]
    tally[FALLS] += falls
    tally[WHOLE] += whole
    tally[OUTSIDE] += outside
    seconds[FIRST], seconds[LAST] = first, last
