"""Statistics of a session's counts, gathered segment by segment. Judging them belongs in `checks`."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numba import njit

from neuralpile_dagster.binning.kernels import over_units
from neuralpile_dagster.records import ClockRecord, CountsStats

IMPLAUSIBLE_RATE_HZ = 1000.0
"""A unit cannot fire faster than its refractory period allows; 1 kHz is 20 spikes in 20 ms."""
ACTIVITY_PARTS = 120
"""Equal parts of a session whose spikes are counted: enough for a picture of the whole, a kilobyte in its record."""
COMMON = 8
"""Counts up to this are tallied by one vectorized comparison each: 8 times faster than one look-up per token."""


class CountsMeasure:
    """Statistics of a session's counts, updated segment by segment in order of time.

    Parameters
    ----------
    n_units, n_bins : int
        Of the whole session.
    bin_width_s : float
        Seconds per bin.
    threads : int
        Threads that share the units; no number depends on it.
    """

    def __init__(self, n_units: int, n_bins: int, bin_width_s: float, threads: int = 1) -> None:
        self.bin_width_s = bin_width_s
        self._threads = threads
        self.n_bins = 0
        self.unit_totals = np.zeros(n_units, np.int64)
        """Spikes kept, per unit."""
        self._histogram = np.zeros(256, np.int64)
        self._implausible = np.zeros(n_units, np.int64)
        # 1e-9 keeps a product such as 0.3 * 1000 = 299.99... from losing a whole spike
        self._implausible_above = min(math.floor(IMPLAUSIBLE_RATE_HZ * bin_width_s + 1e-9), 255)
        self._quiet_run = self._quiet_longest = 0
        parts = min(n_bins, ACTIVITY_PARTS)
        self._activity = np.zeros(parts, np.int64)
        self._cuts = np.arange(parts + 1) * n_bins // max(parts, 1)

    def add(self, counts: np.ndarray) -> None:
        """Add one segment.

        Parameters
        ----------
        counts : numpy.ndarray, uint8, shape (n_units, n_bins)
            The segment's; the next one in time.

        Raises
        ------
        ValueError
            Another dtype or number of units.
        """
        if counts.dtype != np.uint8 or counts.ndim != 2 or counts.shape[0] != len(self.unit_totals):
            raise ValueError(f"{counts.dtype} {counts.shape} is not a segment of {len(self.unit_totals)} units")
        first, last = self.n_bins, self.n_bins + counts.shape[1]
        if last > self._cuts[-1]:
            raise ValueError(f"bins up to {last} of a session of {self._cuts[-1]}")
        part = int(np.searchsorted(self._cuts, first, side="right")) - 1
        cuts = np.clip(self._cuts[part : int(np.searchsorted(self._cuts, last)) + 1], first, last) - first

        def measure(units: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            activity, histogram = np.zeros(len(cuts) - 1, np.int64), np.zeros(256, np.int64)
            population = np.zeros(counts.shape[1], np.uint8)
            totals, implausible = self.unit_totals[units], self._implausible[units]
            measure_segment(
                counts[units], self._implausible_above, cuts, activity, histogram, totals, implausible, population
            )
            return activity, histogram, population

        tokens = np.full(len(counts), counts.shape[1])
        (activity, histogram, population), *others = over_units(measure, tokens, self._threads)
        for more, further, fired in others:
            activity += more
            histogram += further
            population |= fired
        self._activity[part : part + len(activity)] += activity
        self._histogram += histogram
        self._quiet_run, self._quiet_longest = longest_quiet(population, self._quiet_run, self._quiet_longest)
        self.n_bins += counts.shape[1]

    def stats(self, spikes_read: int, clock: ClockRecord | None = None, **losses: int) -> CountsStats:
        """All statistics, including those that only the reader, the binner and `binning.clock` know.

        ``losses`` are the fields of `CountsStats` of those names:
        ``dropped_negative``, ``dropped_nan``, ``dropped_beyond``,
        ``lost_to_saturation``, ``saturated_bins``, ``missing_bins``, ``duplicate_spikes``.
        """
        used = np.flatnonzero(self._histogram)
        largest = int(used[-1]) if len(used) else 0
        return CountsStats(
            n_units=len(self.unit_totals),
            n_bins=self.n_bins,
            bin_width_s=self.bin_width_s,
            tokens=len(self.unit_totals) * self.n_bins,
            spikes_read=spikes_read,
            spikes_kept=int(self.unit_totals.sum()),
            silent_units=int(np.count_nonzero(self.unit_totals == 0)),
            max_count=largest,
            histogram=tuple(self._histogram[: largest + 1].tolist()),
            implausible_bins=int(self._implausible.sum()),
            implausible_units=tuple(
                (int(row), int(self._implausible[row])) for row in np.flatnonzero(self._implausible)
            ),
            longest_quiet_bins=self._quiet_longest,
            fingerprint=self._fingerprint(),
            activity=tuple(self._activity.tolist()),
            clock=clock,
            **losses,
        )

    def _fingerprint(self) -> str:
        """sha256 of the number of bins and each unit's spikes, as little-endian int64."""
        numbers = np.concatenate([[self.n_bins], self.unit_totals]).astype("<i8")
        return hashlib.sha256(numbers.tobytes()).hexdigest()


@njit(cache=True, nogil=True)
def measure_segment(
    counts: np.ndarray,
    implausible_above: int,
    cuts: np.ndarray,
    activity: np.ndarray,
    histogram: np.ndarray,
    totals: np.ndarray,
    implausible: np.ndarray,
    population: np.ndarray,
) -> None:
    """Add one segment of counts to what was measured so far.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    implausible_above : int
        Spikes per bin.
    cuts : numpy.ndarray, int64, shape (n_parts + 1,)
        Bins of the segment at which its parts begin and end: 0 to n_bins.
    activity : numpy.ndarray, int64, shape (n_parts or more,)
        Spikes of each part; added to.
    histogram : numpy.ndarray, int64, shape (256,)
        Bins by count; added to.
    totals, implausible : numpy.ndarray, int64, shape (n_units,)
        Spikes, and bins with more than ``implausible_above``; added to.
    population : numpy.ndarray, uint8, shape (n_bins,)
        Becomes non-zero where any unit fired.
    """
    for unit in range(counts.shape[0]):
        row = counts[unit]
        total = 0
        largest = np.uint8(0)
        for part in range(len(cuts) - 1):
            piece = row[cuts[part] : cuts[part + 1]]  # a slice: indices that might be negative are not vectorized
            spikes = 0
            for j in range(len(piece)):
                spikes += piece[j]
            activity[part] += spikes
            total += spikes
        for j in range(len(row)):
            largest = max(largest, row[j])
        for j in range(len(row)):
            population[j] |= row[j]
        totals[unit] += total
        rest = len(row)
        for value in range(1, min(int(largest), COMMON) + 1):
            wanted = np.uint8(value)
            equal = 0
            for j in range(len(row)):
                equal += row[j] == wanted
            histogram[value] += equal
            rest -= equal
        if largest > COMMON:
            for j in range(len(row)):
                if row[j] > COMMON:
                    histogram[row[j]] += 1
                    rest -= 1
        histogram[0] += rest
        if largest > implausible_above:
            for j in range(len(row)):
                implausible[unit] += row[j] > implausible_above


@njit(cache=True, nogil=True)
def longest_quiet(population: np.ndarray, run: int, longest: int) -> tuple[int, int]:
    """Measure how long no unit fired.

    Parameters
    ----------
    population : numpy.ndarray, uint8, shape (n_bins,)
        Non-zero where any unit fired, of one segment.
    run, longest : int
        Bins: the run that was open at the end of the segment before, and the longest so far.

    Returns
    -------
    run, longest : int
        The same after this segment.
    """
    for j in range(len(population)):
        run = 0 if population[j] else run + 1
        longest = max(longest, run)
    return run, longest
