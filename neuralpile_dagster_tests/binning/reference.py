"""The published procedure in its own words, and recordings made to trip whoever differs from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from neuralpile_dagster.binning.binner import Binner
from neuralpile_dagster.recordings.model import BinRule, SpikeTrains

BIN = 0.02


def trains(*units: Any, rule: BinRule = "histogram", dtype: Any = np.float64) -> SpikeTrains:
    parts = [np.asarray(unit, dtype) for unit in units]
    times = np.concatenate(parts) if parts else np.zeros(0, dtype)
    return SpikeTrains(times, np.cumsum([len(part) for part in parts], dtype=np.int64), rule)


def split(recording: SpikeTrains) -> list[np.ndarray]:
    return np.split(recording.spike_times, recording.ends[:-1])


def histogram_counts(recording: SpikeTrains, width: float = BIN) -> np.ndarray:
    """numpy.histogram per unit over one set of edges, as int64 (not saturated)."""
    units = [unit.astype(np.float64) for unit in split(recording)]
    edges = np.arange(0, np.nanmax(np.concatenate(units)) + width, width)
    return np.stack([np.histogram(unit, bins=edges)[0] for unit in units])


def from_first_spike_counts(recording: SpikeTrains, width: float = BIN) -> np.ndarray:
    """One spike at a time, in Python floats."""
    units = [[float(t) for t in unit] for unit in split(recording)]
    first = min(t for unit in units for t in unit)
    last = max(t for unit in units for t in unit)
    n_bins = math.ceil((last - first) / width)
    counts = np.zeros((len(units), n_bins), np.int64)
    for row, unit in enumerate(units):
        for t in unit:
            counts[row, min(math.floor((t - first) / width), n_bins - 1)] += 1
    return counts


def bin_all(recording: SpikeTrains, width: float = BIN, size: int | None = None) -> tuple[np.ndarray, Binner]:
    """All bins, asked for in ranges of ``size``."""
    binner = Binner(recording, width)
    size = size or binner.n_bins
    parts = [binner.counts(start, min(start + size, binner.n_bins)) for start in range(0, binner.n_bins, size)]
    return np.concatenate(parts, axis=1), binner


@st.composite
def awkward_times(draw: st.DrawFn, width: float, with_nan: bool = True, longest: float = 200.0) -> list[float]:
    """Spike times of a unit: on edges, one float beside them, on sampling clocks, negative, -0.0, NaN; any order."""
    bins = st.integers(0, int(longest / width))
    on_edge = bins.map(lambda k: k * width)
    beside = st.tuples(on_edge, st.sampled_from([-math.inf, math.inf])).map(lambda p: math.nextafter(*p))
    ticks = st.sampled_from([30000, 25000, 24414.0625, 20000, 1000]).flatmap(
        lambda rate: st.integers(0, int(longest * rate)).map(lambda k: k / rate)
    )
    rounded = bins.map(lambda k: round(k * width, 4))
    special = st.sampled_from([0.0, -0.0, -1e-9, -5.0, 5e-324] + ([math.nan] if with_nan else []))
    anywhere = st.floats(-1.0, longest, allow_nan=False)
    times = draw(st.lists(st.one_of(on_edge, beside, ticks, rounded, special, anywhere), max_size=25))
    return sorted(times) if draw(st.booleans()) else times


@st.composite
def awkward_recordings(draw: st.DrawFn, rule: BinRule = "histogram") -> tuple[SpikeTrains, float, int]:
    """A recording that can be binned, its bin width, and a number of bins to ask for at a time."""
    width = draw(st.sampled_from([0.02, 0.01, 0.1, 1 / 3, 0.025]))
    units = draw(st.lists(awkward_times(width, with_nan=rule == "histogram"), min_size=1, max_size=5))
    units[draw(st.integers(0, len(units) - 1))].extend([draw(st.floats(0.001, 199.0)), 200.5])
    dtype = draw(st.sampled_from([np.float64, np.float64, np.float32]))
    return trains(*units, rule=rule, dtype=dtype), width, draw(st.integers(1, 3000))
