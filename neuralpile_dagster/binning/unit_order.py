"""Order the units of a session by how alike they fire, so that units that fire together lie side by side.

Cosine distances between the counts of units, clustered by Ward's method, the leaves in optimal order. Products of units
are exact integers that are summed segment by segment: the order depends neither on segments nor on threads. Reading
counts and storing the order belongs in `session.unit_order`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuralpile_dagster.binning.kernels import over_units

SILENT = 2.0
"""Distance of a unit without spikes to any other: the largest that two units can have."""
_BLOCK_TOKENS = 1 << 21
"""Tokens of the part of a segment that is handled at a time; its spikes stay in the cache, at 8 bytes each."""


class UnitProducts:
    """Products of the counts of all pairs of units, summed over the bins of a session.

    Parameters
    ----------
    n_units : int
    threads : int
        Threads that share the units; no number depends on it.

    Attributes
    ----------
    products : numpy.ndarray, int64, shape (n_units, n_units)
        Sum over bins of count x count; the upper triangle, the diagonal included.
    totals : numpy.ndarray, int64, shape (n_units,)
        Spikes of each unit.

    Examples
    --------
    >>> counts = np.array([[3, 0, 1], [0, 2, 0], [3, 0, 2], [0, 1, 0]], np.uint8)
    >>> session = UnitProducts(n_units=4)
    >>> session.add(counts)
    >>> session.order().tolist()
    [0, 2, 1, 3]
    """

    def __init__(self, n_units: int, threads: int = 1) -> None:
        self._threads = threads
        self.products = np.zeros((n_units, n_units), np.int64)
        self.totals = np.zeros(n_units, np.int64)

    def add(self, counts: np.ndarray) -> None:
        """Add a segment; segments may come in any order.

        Parameters
        ----------
        counts : numpy.ndarray, uint8, shape (n_units, n_bins)

        Raises
        ------
        ValueError
            Another dtype or number of units.
        """
        if counts.dtype != np.uint8 or counts.ndim != 2 or len(counts) != len(self.totals):
            raise ValueError(f"{counts.dtype} {counts.shape} is not a segment of {len(self.totals)} units")
        self.totals += counts.sum(axis=1, dtype=np.int64)
        if not counts.size:
            return
        length = max(_BLOCK_TOKENS // len(counts), 1)
        for start in range(0, counts.shape[1], length):
            self._add(np.ascontiguousarray(counts[:, start : start + length]))

    def _add(self, block: np.ndarray) -> None:
        listed = list_spikes(block)

        def add(units: slice) -> None:
            add_products(block, units.start, units.stop, *listed, self.products)

        spiking = np.diff(listed[0])
        with_later = np.cumsum(spiking[::-1])[::-1]  # a unit is multiplied with itself and those after it
        over_units(add, spiking * with_later // block.shape[1] + 1, self._threads)

    def distances(self) -> np.ndarray:
        """Cosine distances of all pairs of units: from 0 to 1, and `SILENT` where one of them has no spikes.

        Returns
        -------
        numpy.ndarray, float64, shape (n_units * (n_units - 1) / 2,)
            The upper triangle row by row, as `scipy.spatial.distance.pdist` gives it.
        """
        n_units = len(self.totals)
        squares = self.products.diagonal().astype(np.float64)
        found = np.full(n_units * (n_units - 1) // 2, SILENT)
        stop = 0
        for unit in range(n_units - 1):
            start, stop = stop, stop + n_units - 1 - unit
            norms = np.sqrt(squares[unit] * squares[unit + 1 :])
            both = norms > 0
            # never negative: the root of a square is exact in floating point, and that of more is not less
            found[start:stop][both] = 1.0 - self.products[unit, unit + 1 :][both] / norms[both]
        return found

    def order(self) -> np.ndarray:
        """Place of each unit in the order; ``counts[np.argsort(order)]`` are the counts in it.

        A clustering gives an order and its reverse. The half with more spikes comes first; where they have the same
        number, the unit at the end that comes first in the counts does.

        Returns
        -------
        numpy.ndarray, int32, shape (n_units,)
        """
        n_units = len(self.totals)
        leaves = np.arange(n_units)
        if n_units > 1:
            from scipy.cluster.hierarchy import leaves_list, linkage

            leaves = leaves_list(linkage(self.distances(), "ward", optimal_ordering=True))
            first, last = (int(self.totals[part].sum()) for part in (leaves[: n_units // 2], leaves[-(n_units // 2) :]))
            if first < last or (first == last and leaves[0] > leaves[-1]):
                leaves = leaves[::-1]
        places = np.empty(n_units, np.int32)
        places[leaves] = np.arange(n_units, dtype=np.int32)
        return places


@njit(cache=True, nogil=True)
def list_spikes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the bins in which each unit fired, and the units that fired in each bin.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)

    Returns
    -------
    ends : numpy.ndarray, int64, shape (n_units + 1,)
        Where the bins of each unit end in ``bins``; those of the next begin there.
    bins : numpy.ndarray, int32, shape (n_listed + 1,)
        Bins, rising within a unit; the last item means nothing.
    starts : numpy.ndarray, int64, shape (n_bins + 1,)
        Where the units of each bin begin in ``fired``; they end where those of the next begin.
    fired : numpy.ndarray, uint32, shape (n_listed,)
        Unit << 8 | count, units rising within a bin.
    """
    n_units, n_bins = counts.shape
    ends = np.zeros(n_units + 1, np.int64)
    for unit in range(n_units):
        row = counts[unit]
        listed = 0
        for j in range(n_bins):
            listed += row[j] > 0
        ends[unit + 1] = ends[unit] + listed
    bins = np.empty(ends[n_units] + 1, np.int32)
    position = 0
    for unit in range(n_units):
        row = counts[unit]
        for j in range(n_bins):  # always writes, and moves on where there is a spike: branches cost more
            bins[position] = j
            position += row[j] > 0
    starts = np.zeros(n_bins + 1, np.int64)
    for i in range(ends[n_units]):
        starts[bins[i] + 1] += 1
    for j in range(n_bins):
        starts[j + 1] += starts[j]
    fired = np.empty(ends[n_units], np.uint32)
    free = starts[:n_bins].copy()
    for unit in range(n_units):
        row = counts[unit]
        for i in range(ends[unit], ends[unit + 1]):
            j = bins[i]
            fired[free[j]] = np.uint32(unit << 8) | np.uint32(row[j])
            free[j] += 1
    return ends, bins, starts, fired


@njit(cache=True, nogil=True)
def add_products(
    counts: np.ndarray,
    first: int,
    last: int,
    ends: np.ndarray,
    bins: np.ndarray,
    starts: np.ndarray,
    fired: np.ndarray,
    products: np.ndarray,
) -> None:
    """Add the products of some units with themselves and with those after them.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    first, last : int
        The units: ``first`` up to before ``last``.
    ends, bins, starts, fired : numpy.ndarray, int64, int32, int64, uint32; shapes as there
        Of `list_spikes`.
    products : numpy.ndarray, int64, shape (n_units, n_units)
        Rows ``first`` up to before ``last`` are added to.
    """
    n_bins = counts.shape[1]
    own = starts[:n_bins].copy()  # where the unit is, or would be, among those that fired in each bin
    for j in range(n_bins):
        while own[j] < starts[j + 1] and (fired[own[j]] >> 8) < first:
            own[j] += 1
    for unit in range(first, last):
        row, target = counts[unit], products[unit]
        for i in range(ends[unit], ends[unit + 1]):
            j = bins[i]
            count = np.int64(row[j])
            for k in range(own[j], starts[j + 1]):
                target[fired[k] >> 8] += count * np.int64(fired[k] & 255)
            own[j] += 1
