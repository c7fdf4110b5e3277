"""The loops over spikes, compiled. They release the interpreter's lock and hold no state of their own."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

SCAN_NAN, SCAN_INFINITE, SCAN_NEGATIVE, SCAN_DUPLICATE, SCAN_WIDTH = range(5)
TALLY_KEPT, TALLY_BEYOND, TALLY_SATURATED_BINS, TALLY_LOST, TALLY_WIDTH = range(5)


@njit(cache=True, nogil=True)
def scan_units(
    times: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    rising: np.ndarray,
    found: np.ndarray,
) -> tuple[float, float]:
    """Look once at each spike ``times[starts[u]:stops[u]]`` of each unit u.

    Writes per unit whether its times never fall, NaN aside (``rising``), and
    how many are NaN, infinite, negative and equal to the one before
    (``found``, by the ``SCAN_`` columns). Returns the smallest and largest
    time, ``inf`` and ``-inf`` where there is none.
    """
    low, high = math.inf, -math.inf
    for unit in range(len(starts)):
        before = -math.inf
        never_falls = True
        nan, infinite, negative, duplicate = 0, 0, 0, 0
        for k in range(starts[unit], stops[unit]):
            t = times[k]
            if t > before:
                before = t
            elif t == before:
                duplicate += 1
            elif t < before:
                never_falls = False
                before = t
            else:
                nan += 1
                continue
            infinite += abs(t) == math.inf
            negative += t < 0.0
            low = min(low, t)
            high = max(high, t)
        rising[unit] = never_falls
        found[unit, SCAN_NAN] = nan
        found[unit, SCAN_INFINITE] = infinite
        found[unit, SCAN_NEGATIVE] = negative
        found[unit, SCAN_DUPLICATE] = duplicate
    return low, high


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
def fill_counts(
    times: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    origin: float,
    from_first_spike: bool,
    width: float,
    n_bins: int,
    start: int,
    stop: int,
    counts: np.ndarray,
    tally: np.ndarray,
) -> None:
    """Count spikes of bins ``[start, stop)`` into ``counts`` (uint8, zeroed, units x bins), saturating.

    ``times[starts[u]:stops[u]]`` are the spikes of row ``rows[u]`` not yet
    counted, rising but for NaN; ``starts`` is moved past those counted now, so
    that the next call goes on from there. ``tally`` (int64) is added to.
    """
    for unit in range(len(rows)):
        row = counts[rows[unit]]
        k, end = starts[unit], stops[unit]
        last_lost = -1
        kept = 0
        while k < end:
            t = times[k]
            if math.isnan(t) or (t < 0.0 and not from_first_spike):
                k += 1
                continue
            since_first = min(int((t - origin) / width), n_bins - 1)
            i = since_first if from_first_spike else histogram_bin(t, width, n_bins)
            if i >= stop and i < n_bins:
                break
            k += 1
            if i == n_bins:
                tally[TALLY_BEYOND] += 1
            elif row[i - start] == 255:
                tally[TALLY_LOST] += 1
                tally[TALLY_SATURATED_BINS] += i != last_lost
                last_lost = i
            else:
                row[i - start] += 1
                kept += 1
        starts[unit] = k
        tally[TALLY_KEPT] += kept
