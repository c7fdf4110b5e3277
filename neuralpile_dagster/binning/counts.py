"""Spike trains -> counts, bit for bit as in the published pile (shared/binning.md).

Never the whole dense session: `Binner` gives any range of bins, in rising
order, and holds about a byte per spike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.binning import kernels
from neuralpile_dagster.binning.packing import pack_bins
from neuralpile_dagster.recordings.model import SpikeTrains


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
        Neither changed nor kept: they may be freed.
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
        self.spikes_read = trains.n_spikes
        self._bins = pack_bins(trains, self.bin_width_s, name)
        self.n_units = len(self._bins.ends)
        self.n_bins = self._bins.n_bins
        self.duplicate_spikes = self._bins.duplicates
        self._begins = np.concatenate([np.zeros(1, np.int64), self._bins.ends[:-1]])
        self._at = np.zeros(self.n_units, np.int64)
        self._tally = np.zeros(kernels.TALLY_WIDTH, np.int64)
        self._done = 0

    def counts(self, start: int, stop: int) -> np.ndarray:
        """Counts of bins ``[start, stop)``: uint8, shape (n_units, stop - start), saturated at 255.

        Ranges must be asked for in rising order and leave nothing out.
        """
        if start != self._done or not start < stop <= self.n_bins:
            raise ValueError(f"bins {start} to {stop} asked for after {self._done} of {self.n_bins}")
        counts = np.zeros((self.n_units, stop - start), np.uint8)
        kernels.fill_counts(
            self._bins.packed, self._begins, self._bins.ends, self._at, start, stop, counts, self._tally
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
            negative=self._bins.negative,
            nan=self._bins.nan,
            beyond=self._bins.beyond,
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
