"""Spike times as whole numbers that lie close together, and back, bit for bit.

Most spike times are ticks of a sampling clock, or were rounded to
microseconds: ``tick / rate`` in float64. Where that reproduces a unit's times
exactly, the ticks are kept; where not, the bit patterns of the float64 values,
which rise with the values. Both are small once Parquet has packed their
differences (docs/performance.md).
"""

from __future__ import annotations

import numpy as np

RATES_HZ = (1e3, 1e4, 2e4, 24414.0625, 2.5e4, 3e4, 32e3, 4e4, 1e5, 1e6)
"""Sampling clocks of common amplifiers (24414.0625 Hz: Tucker-Davis), and rounding to decimals."""

_PROBE = 64


def to_ticks(times: np.ndarray, likely: float | None = None) -> tuple[np.ndarray, float | None]:
    """Give a unit's times (float64 seconds) as int64, and the clock they are ticks of.

    The clock is None when they are bit patterns. ``likely`` is tried first.
    """
    if len(times):
        for rate in sorted(RATES_HZ, key=lambda rate: rate != likely):
            # a look at a few spikes saves most clocks that do not fit a pass over all of them
            if _ticks(times[:: len(times) // _PROBE + 1], rate) is not None:
                ticks = _ticks(times, rate)
                if ticks is not None:
                    return ticks, rate
    return times.view(np.int64), None


def _ticks(times: np.ndarray, rate: float) -> np.ndarray | None:
    """Give the ticks, or None unless they reproduce every bit of ``times``."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number does not come back equal
        ticks = np.rint(times * rate).astype(np.int64)
    again = np.empty_like(times)
    from_ticks(ticks, rate, again)
    return ticks if np.array_equal(again.view(np.int64), times.view(np.int64)) else None


def from_ticks(ticks: np.ndarray, rate: float | None, out: np.ndarray) -> None:
    """Write the times (float64 seconds) that `to_ticks` was given into ``out``."""
    if rate is None:
        out.view(np.int64)[:] = ticks
    else:
        np.divide(ticks, rate, out=out)
