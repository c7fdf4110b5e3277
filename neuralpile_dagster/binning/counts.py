"""Spike trains -> counts, bit for bit as in the published pile (shared/binning.md).

Never the whole dense session: `Binner` gives any range of bins, in rising
order, and holds no more than the spikes and a pointer per unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.binning import kernels
from neuralpile_dagster.binning.scan import Scan, scan_trains
from neuralpile_dagster.errors import DamagedRecording, EmptyRecording
from neuralpile_dagster.recordings.model import BinRule, SpikeTrains

MAX_BINS = 1_000_000_000
"""More bins than this (231 days of 20 ms) are a wrong clock, not a session."""


@dataclass(frozen=True)
class Losses:
    """Spikes that are in no bin, and why; all are numbers of spikes but ``saturated_bins``.

    Attributes
    ----------
    negative, nan : int
        Times below 0, and times that are no number.
    beyond : int
        Times later than the last bin edge: the rounding of ``max_time + b`` can leave the last spike outside.
    lost_to_saturation : int
        Spikes above 255 in one bin.
    saturated_bins : int
        Bins with more than 255 spikes.
    """

    negative: int = 0
    nan: int = 0
    beyond: int = 0
    lost_to_saturation: int = 0
    saturated_bins: int = 0


class Binner:
    """Counts of a session's spike trains, range by range of bins.

    Parameters
    ----------
    trains : SpikeTrains
        Not copied, but for units whose times are not sorted.
    bin_width_s : float
        Seconds per bin.
    name : str
        What errors call the recording.

    Attributes
    ----------
    n_units, n_bins : int
    bin_width_s : float
    spikes_read : int
    duplicate_spikes : int
        Spikes at exactly the time of another one of the same unit.

    Raises
    ------
    DamagedRecording
        ``ends`` contradicts ``spike_times``; infinite times; more than 10^9
        bins; with the rule ``from_first_spike`` also NaN.
    EmptyRecording
        No spike later than 0 (``histogram``), or no time span (``from_first_spike``).
    """

    def __init__(self, trains: SpikeTrains, bin_width_s: float, name: str = "the recording") -> None:
        if not 0 < bin_width_s < math.inf:
            raise ValueError(f"bins of {bin_width_s} s")
        self.bin_width_s = float(bin_width_s)
        self._from_first = trains.bin_rule == "from_first_spike"
        scan = scan_trains(trains, name)
        _require_times(scan, trains.bin_rule, name)
        self.n_units = len(trains.ends)
        self.spikes_read = len(trains.spike_times)
        self.n_bins = count_bins(trains.bin_rule, scan.low, scan.high, self.bin_width_s, name)
        self.duplicate_spikes = scan.duplicates
        self._scan = scan
        self._origin = scan.low if self._from_first else 0.0
        self._tally = np.zeros(kernels.TALLY_WIDTH, np.int64)
        self._done = 0

    def counts(self, start: int, stop: int) -> np.ndarray:
        """Counts of bins ``[start, stop)``: uint8, shape (n_units, stop - start), saturated at 255.

        Ranges must be asked for in rising order and leave nothing out.
        """
        if start != self._done or not start < stop <= self.n_bins:
            raise ValueError(f"bins {start} to {stop} asked for after {self._done} of {self.n_bins}")
        counts = np.zeros((self.n_units, stop - start), np.uint8)
        for part in self._scan.parts:
            kernels.fill_counts(
                part.times,
                part.rows,
                part.starts,
                part.stops,
                self._origin,
                self._from_first,
                self.bin_width_s,
                self.n_bins,
                start,
                stop,
                counts,
                self._tally,
            )
        self._done = stop
        return counts

    @property
    def kept(self) -> int:
        """Spikes in the counts given so far."""
        return int(self._tally[kernels.TALLY_KEPT])

    @property
    def losses(self) -> Losses:
        """Spikes that are in no bin; complete once all bins were asked for."""
        return Losses(
            negative=0 if self._from_first else self._scan.negative,
            nan=self._scan.nan,
            beyond=int(self._tally[kernels.TALLY_BEYOND]),
            lost_to_saturation=int(self._tally[kernels.TALLY_LOST]),
            saturated_bins=int(self._tally[kernels.TALLY_SATURATED_BINS]),
        )

    def lost(self) -> dict[str, int]:
        """`losses` and duplicates as fields of `records.CountsStats`."""
        losses = self.losses
        return {
            "dropped_negative": losses.negative,
            "dropped_nan": losses.nan,
            "dropped_beyond": losses.beyond,
            "lost_to_saturation": losses.lost_to_saturation,
            "saturated_bins": losses.saturated_bins,
            "duplicate_spikes": self.duplicate_spikes,
        }


def _require_times(scan: Scan, rule: BinRule, name: str) -> None:
    if scan.infinite or (scan.nan and rule == "from_first_spike"):
        raise DamagedRecording(
            f"{name}: some spike times are no times",
            found=f"{scan.infinite:,} infinite and {scan.nan:,} NaN",
            expected="finite seconds",
            remedy="ask the recording's authors, or leave the session out with the catalog rule's exclude",
        )


def count_bins(rule: BinRule, low: float, high: float, width: float, name: str = "the recording") -> int:
    """Number of bins of a session whose spikes lie in ``[low, high]`` seconds (``-inf`` for ``high``: no spikes).

    For ``histogram`` the edges are ``numpy.arange(0, high + width, width)``,
    whose length numpy computes in float64 as below; for ``from_first_spike``
    bins span from the first spike to the last. Raises as `Binner` does.
    """
    span = high + width if rule == "histogram" else high - low
    bins = max(span / width, 0.0)
    n_bins = (math.ceil(bins) if bins <= MAX_BINS + 2 else MAX_BINS + 2) - (rule == "histogram")
    if n_bins < 1:
        raise EmptyRecording(
            f"{name} has nothing to bin",
            found="no spikes" if high == -math.inf else f"spikes from {low} s to {high} s",
            expected="a spike later than 0 s" if rule == "histogram" else "two different spike times",
            remedy="leave the session out with the catalog rule's exclude",
        )
    if n_bins > MAX_BINS:
        raise DamagedRecording(
            f"{name} is too long to be one session",
            found=f"a spike at {high} s, in bins of {width} s",
            expected=f"at most {MAX_BINS:,} bins",
            remedy="look at the file's unit of time; spike times must be in seconds",
        )
    return n_bins
