"""Compiled loops over spikes, and `over_units`, which works on the units of a session in several threads.

Between reading and counting, a unit's spikes are bytes: the bins from one
spike to the next, in order of time. A byte of 255 means 255 bins further and
no spike yet. That is an eighth of the spike times' memory.

Compiled loops hold no state and release the GIL. Each unit is the business of one thread, so that numbers do not depend
on how many there are. Loops that only `measures`, `clock` or `unit_order` need belong there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numba import njit

FURTHER = 255
"""Byte that advances by as many bins without a spike."""
SATURATED = 255
"""Largest count of a bin."""
TALLY_KEPT, TALLY_SATURATED_BINS, TALLY_LOST, TALLY_WIDTH = range(4)
SMALL = 1 << 20
"""Spikes or tokens below which a second thread costs more than it saves."""

Result = TypeVar("Result")


@njit(cache=True, nogil=True)
def scan_unit(times: np.ndarray) -> tuple[float, float, bool, int, int, int]:
    """Look once at each spike time of a unit.

    Parameters
    ----------
    times : numpy.ndarray, float64, shape (n_spikes,)
        Seconds, in any order.

    Returns
    -------
    low, high : float
        Smallest and largest time; ``inf, -inf`` where there is none.
    rising : bool
        Whether times never decrease, ignoring NaN.
    nan, infinite, negative : int
        Numbers of such times.
    """
    low, high = math.inf, -math.inf
    before = -math.inf
    rising = True
    nan, infinite, negative = 0, 0, 0
    for t in times:
        if math.isnan(t):
            nan += 1
            continue
        rising &= t >= before
        before = t
        infinite += abs(t) == math.inf
        negative += t < 0.0
        low = min(low, t)
        high = max(high, t)
    return low, high, rising, nan, infinite, negative


@njit(cache=True, nogil=True)
def histogram_bin(t: float, width: float, n_bins: int) -> int:
    """Bin of ``t >= 0`` among edges ``i * width``, the last one closed; ``n_bins`` when beyond it.

    ``floor(t / width)`` is off by at most one bin; comparing with the edges
    themselves, each one multiplication, corrects it exactly.
    """
    i = int(t / width)
    if i * width > t:
        i -= 1
    elif (i + 1) * width <= t:
        i += 1
    if i >= n_bins:
        i = n_bins - 1 if t <= n_bins * width else n_bins
    return i


@njit(cache=True, nogil=True)
def pack_unit(
    times: np.ndarray, from_first_spike: bool, origin: float, width: float, n_bins: int, out: np.ndarray, end: int
) -> tuple[int, int, int]:
    """Encode a unit's spikes as bytes into ``out``, starting at ``end``.

    Parameters
    ----------
    times : numpy.ndarray, float64, shape (n_spikes,)
        Seconds, rising, NaN aside; NaN is left out, and with ``histogram`` so are negative times.
    from_first_spike : bool
        The bin rule; false is ``histogram``.
    origin : float
        Where bins begin with ``from_first_spike``, seconds.
    width : float
        Bin width, seconds.
    n_bins : int
    out : numpy.ndarray, uint8, shape (n_bytes,)
        Has room for ``len(times) + n_bins // 255`` bytes from ``end`` on.
    end : int
        Where to write.

    Returns
    -------
    end : int
        Position after the last byte.
    beyond : int
        Spikes beyond the last edge, dropped.
    duplicates : int
        Spikes with exactly the time of the previous one.
    """
    beyond, duplicates = 0, 0
    before = math.nan
    last = 0
    for t in times:
        if math.isnan(t):
            continue
        duplicates += t == before
        before = t
        if from_first_spike:
            i = min(int((t - origin) / width), n_bins - 1)
        elif t < 0.0:
            continue
        else:
            i = histogram_bin(t, width, n_bins)
            if i == n_bins:
                beyond += 1
                continue
        gap = i - last
        last = i
        while gap >= FURTHER:
            out[end] = FURTHER
            end += 1
            gap -= FURTHER
        out[end] = gap
        end += 1
    return end, beyond, duplicates


@njit(cache=True, nogil=True)
def fill_counts(
    packed: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    bins: np.ndarray,
    start: int,
    stop: int,
    counts: np.ndarray,
    tally: np.ndarray,
) -> None:
    """Count spikes of bins ``[start, stop)``, saturating.

    Parameters
    ----------
    packed : numpy.ndarray, uint8, shape (n_bytes,)
    begins, ends, bins : numpy.ndarray, int64, shape (n_units,)
        ``packed[begins[u]:ends[u]]`` are unit u's bytes not yet counted, from bin ``bins[u]`` on; ``begins`` and
        ``bins`` are moved on, so that the next call continues there.
    start, stop : int
    counts : numpy.ndarray, uint8, shape (n_units, stop - start)
        Zeroed; filled in place.
    tally : numpy.ndarray, int64, shape (TALLY_WIDTH,)
        Added to.
    """
    for unit in range(len(begins)):
        row = counts[unit]
        k, end, i = begins[unit], ends[unit], bins[unit]
        last_lost = -1
        kept = 0
        while k < end:
            gap = packed[k]
            if gap == FURTHER:
                i += FURTHER
                k += 1
                continue
            if i + gap >= stop:
                break
            i += gap
            k += 1
            if row[i - start] < SATURATED:
                row[i - start] += 1
                kept += 1
            else:
                tally[TALLY_LOST] += 1
                tally[TALLY_SATURATED_BINS] += i != last_lost
                last_lost = i
        begins[unit], bins[unit] = k, i
        tally[TALLY_KEPT] += kept


def over_units(work: Callable[[slice], Result], weights: np.ndarray, threads: int) -> list[Result]:
    """Cut the units into groups of about the same weight and work on each group in a thread of its own.

    Parameters
    ----------
    work : callable
        Takes a range of units; ranges do not overlap and cover all units.
    weights : numpy.ndarray, int64, shape (n_units,)
        Spikes or tokens of each unit.
    threads : int
        Groups at most; 1 works in the calling thread, and so does what is `SMALL`.

    Returns
    -------
    list
        What ``work`` returned, in the order of the units.

    Examples
    --------
    >>> over_units(lambda units: (units.start, units.stop), np.full(5, 10**6), threads=2)
    [(0, 3), (3, 5)]
    >>> over_units(lambda units: (units.start, units.stop), np.full(5, 10), threads=2)
    [(0, 5)]
    """
    total, n_units = int(weights.sum()), len(weights)
    groups = min(threads, n_units) if total >= SMALL else 1
    if groups <= 1:
        return [work(slice(0, n_units))]
    shares = np.arange(1, groups) * (total / groups)
    cuts = np.unique([0, *(np.searchsorted(np.cumsum(weights), shares) + 1), n_units]).tolist()
    with ThreadPoolExecutor(groups, "units") as pool:
        return list(pool.map(work, [slice(start, stop) for start, stop in pairwise(cuts)]))
