"""What a raster shows: a window of a segment with spikes in it, its units in order, its place in the session.

Drawing belongs in `raster`; finding the facts of a segment belongs to the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW_BINS = 680
"""Most bins shown: 13.6 s at 20 ms, one pixel each."""
TRACE_PARTS = 120
"""Parts of a segment whose spikes are summed for the strip."""


@dataclass(frozen=True)
class SegmentFacts:
    """What is known of a segment beside its counts; the default is nothing.

    Attributes
    ----------
    areas : sequence of str or None
        Brain area of each unit, in the row order of the counts; empty where none is known.
    bin_width_s : float or None
    first_bin : int or None
        Bin of the session at which the segment begins.
    session_bins : int or None
        Bins of the whole session.
    clock_start_s : float or None
        Time of the session clock at which bin 0 of the session begins.
    activity : tuple of int
        Spikes of equal parts of the whole session.
    """

    areas: Sequence[str | None] = ()
    bin_width_s: float | None = None
    first_bin: int | None = None
    session_bins: int | None = None
    clock_start_s: float | None = None
    activity: tuple[int, ...] = ()


@dataclass(frozen=True)
class Strip:
    """A whole session or segment, and the part of it that is shown.

    ``spikes`` are those of equal parts of ``span`` (shares of the whole); ``window`` are shares of the whole.
    """

    label: str
    spikes: np.ndarray
    span: tuple[float, float]
    window: tuple[float, float]


@dataclass(frozen=True)
class RasterSample:
    """A piece of one segment to draw.

    Attributes
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    title : str
    start, step : float
        Where the x axis begins, and the width of a bin on it.
    x_label : str
        What the x axis counts.
    bands : tuple of (str, int)
        Groups of neighboring units and their sizes; empty where no brain area is known.
    strip : Strip or None
    bin_width_s : float or None
    ordered : str
        How its units are ordered where there are no bands, for the label of the y axis.
    """

    counts: np.ndarray
    title: str
    start: float = 0.0
    step: float = 1.0
    x_label: str = "bins of the segment"
    bands: tuple[tuple[str, int], ...] = ()
    strip: Strip | None = None
    bin_width_s: float | None = None
    ordered: str = "by rate"


NO_FACTS = SegmentFacts()


@dataclass(frozen=True)
class Ordering:
    """An order of units to draw them in, instead of that by area and rate.

    Attributes
    ----------
    units : numpy.ndarray, int64, shape (n_units,)
        Rows of the counts, from top to bottom.
    label : str
        For the y axis, below the number of units.
    """

    units: np.ndarray
    label: str


def sample_window(
    counts: np.ndarray,
    title: str,
    rng: np.random.Generator,
    synthetic: bool = False,
    facts: SegmentFacts = NO_FACTS,
    ordering: Ordering | None = None,
) -> RasterSample:
    """Cut a window around a random spike of a segment, and order its units by area and rate.

    The window depends on the counts and ``rng`` alone, so that the same one can be drawn in several orders.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    title : str
    rng : numpy.random.Generator
    synthetic : bool
        Whether the title must say so.
    facts : SegmentFacts
        Of the segment.
    ordering : Ordering, optional
        Another order of the units.
    """
    n_units, n_bins = counts.shape
    population = counts.sum(axis=0, dtype=np.int64)
    start = _choose_start(population, rng)
    stop = min(start + WINDOW_BINS, n_bins)
    order, bands = _order(counts, facts.areas) if ordering is None else (ordering.units, ())
    first, step, x_label = _axis(facts)
    label = "SYNTHETIC · " if synthetic else ""
    return RasterSample(
        counts=counts[order, start:stop],
        title=f"{label}{title} · {n_units:,} units x {n_bins:,} bins",
        start=first + start * step,
        step=step,
        x_label=x_label,
        bands=bands,
        strip=_strip(population, start, stop, facts),
        bin_width_s=facts.bin_width_s,
        ordered="by rate" if ordering is None else ordering.label,
    )


def _choose_start(population: np.ndarray, rng: np.random.Generator) -> int:
    """First bin of a window around a random spike; anywhere in a silent segment."""
    last = max(len(population) - WINDOW_BINS, 0)
    spikes = np.cumsum(population)
    if not len(spikes) or not spikes[-1]:
        return int(rng.integers(0, last + 1))
    center = int(np.searchsorted(spikes, rng.integers(0, spikes[-1]), side="right"))
    return min(max(center - WINDOW_BINS // 2, 0), last)


def _order(counts: np.ndarray, areas: Sequence[str | None]) -> tuple[np.ndarray, tuple[tuple[str, int], ...]]:
    """Rows by area (the largest first, units without one last), and within it by rate; and the bands of areas."""
    totals = counts.sum(axis=1, dtype=np.int64)
    if len(areas) != len(counts) or not any(areas):
        return np.argsort(-totals, kind="stable"), ()
    sizes = Counter(areas)
    ranked = sorted(sizes, key=lambda area: (area is None or not area, -sizes[area], area or ""))
    rank = {area: position for position, area in enumerate(ranked)}
    order = np.lexsort((-totals, np.array([rank[area] for area in areas])))
    return order, tuple((area or "no area", sizes[area]) for area in ranked)


def _axis(facts: SegmentFacts) -> tuple[float, float, str]:
    """Where the segment begins on the x axis, the width of a bin on it, and its label."""
    width = facts.bin_width_s
    if width is None:
        return 0.0, 1.0, "bins of the segment"
    if facts.first_bin is None:
        return 0.0, width, "seconds from the start of the segment"
    if facts.clock_start_s is None:
        return facts.first_bin * width, width, "seconds from the first bin of the session"
    return facts.clock_start_s + facts.first_bin * width, width, "seconds of the session's clock"


def _strip(population: np.ndarray, start: int, stop: int, facts: SegmentFacts) -> Strip:
    n_bins = max(len(population), 1)
    offset, whole, what = 0, n_bins, "segment"
    if facts.first_bin is not None and facts.session_bins:
        offset, whole, what = facts.first_bin, facts.session_bins, "session"
    window = (offset + start) / whole, (offset + stop) / whole
    label = what if facts.bin_width_s is None else f"{what}, {_duration(whole * facts.bin_width_s)}"
    if what == "session" and facts.activity:
        return Strip(label, np.asarray(facts.activity, np.float64), (0.0, 1.0), window)
    cuts = np.unique(np.linspace(0, len(population), TRACE_PARTS, endpoint=False).astype(int))
    spikes = np.add.reduceat(population, cuts) / np.diff(np.append(cuts, len(population)))
    return Strip(label, spikes, (offset / whole, (offset + n_bins) / whole), window)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
