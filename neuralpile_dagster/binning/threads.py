"""Work on the units of a session in several threads.

Compiled loops release the GIL, and each unit is the business of one thread, so that numbers do not depend on how many
there are. What is done with a unit belongs in `kernels`, `measures` and `clock`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

SMALL = 1 << 20
"""Spikes or tokens below which a second thread costs more than it saves."""

Result = TypeVar("Result")


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
