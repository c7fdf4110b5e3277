"""Spike trains -> counts, bit for bit as in the published pile (docs/binning.md).

Never the whole dense session: `Binner` gives any range of bins, in rising
order, and holds about a byte per spike.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from neuralpile_dagster.binning import kernels
from neuralpile_dagster.binning.kernels import over_units
from neuralpile_dagster.errors import DamagedRecording, EmptyRecording
from neuralpile_dagster.recordings.model import BinRule, SpikeTrains

MAX_BINS = 1_000_000_000
"""Upper limit of bins (231 days of 20 ms); more indicate a wrong clock."""
_YEAR_2000, _YEAR_2100 = 946_684_800, 4_102_444_800  # as POSIX time, seconds
_GIVEN_BACK = 1 << 22
"""Spikes whose memory is given back at a time: many huge pages, so that few are cut in two."""


@dataclass(frozen=True)
class Losses:
    """Numbers of spikes that are in no bin, by reason; only ``saturated_bins`` counts bins.

    Attributes
    ----------
    negative, nan : int
        Times below 0, and NaN times.
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
    """Count a session's spikes in bins, one range of bins at a time.

    Parameters
    ----------
    trains : SpikeTrains
        Not kept: they may be freed. Not modified, unless they are to be consumed.
    bin_width_s : float
        Seconds per bin.
    name : str
        What errors call the recording.
    max_tokens : int, optional
        Tokens of the longest session that is accepted.
    frame : tuple of (float, int), optional
        Where ``trains`` are some units of a session: the time at which its bin 0 begins (s; only
        ``from_first_spike`` needs it) and its number of bins. By default both are those of ``trains``.
    threads : int
        Threads that share the units; no number depends on it.
    consume : bool
        Give the memory of spike times back to the system as soon as they are packed: ``trains`` are then lost.

    Attributes
    ----------
    n_units, n_bins : int
    bin_width_s : float
    spikes_read : int
    duplicate_spikes : int
        Spikes with exactly the time of another spike of their unit.

    Raises
    ------
    DamagedRecording
        ``ends`` contradicts ``spike_times``; infinite times; more than 10^9
        bins or ``max_tokens``; with the rule ``from_first_spike`` also NaN.
    EmptyRecording
        No spike later than 0 (``histogram``), or no time span (``from_first_spike``).
    """

    def __init__(
        self,
        trains: SpikeTrains,
        bin_width_s: float,
        name: str = "the recording",
        max_tokens: int | None = None,
        frame: tuple[float, int] | None = None,
        threads: int = 1,
        *,
        consume: bool = False,
    ) -> None:
        if not 0 < bin_width_s < math.inf:
            raise ValueError(f"bins of {bin_width_s} s")
        self.bin_width_s = width = float(bin_width_s)
        self.spikes_read = trains.n_spikes
        self._threads = threads
        times, units = _split(trains, name)
        self.n_units = len(units)
        sizes = np.array([len(unit) for unit in units], np.int64)

        def scan(some: slice) -> list[_Scan]:
            return [_Scan(*kernels.scan_unit(unit)) for unit in units[some]]

        scans = [found for group in over_units(scan, sizes, threads) for found in group]
        nan, negative = sum(scan.nan for scan in scans), sum(scan.negative for scan in scans)
        from_first = trains.bin_rule == "from_first_spike"
        _require_times(sum(scan.infinite for scan in scans), nan if from_first else 0, name)
        low = min((scan.low for scan in scans), default=math.inf)
        high = max((scan.high for scan in scans), default=-math.inf)
        low, n_bins = frame or (low, _count_bins(trains.bin_rule, low, high, width, name))
        self.n_bins = n_bins
        if max_tokens is not None and self.n_units * n_bins > max_tokens:
            raise _too_long(self.n_units, n_bins, width, high, max_tokens, name)
        # the bins of every spike, as bytes (see `kernels`): unit k has packed[begins[k]:ends[k]]; what lies between
        # units is never written, and no more than touched is taken from the system
        room = sizes + n_bins // kernels.FURTHER
        packed, begins = np.empty(int(room.sum()), np.uint8), np.cumsum(room) - room
        ends, last_spikes = np.empty(self.n_units, np.int64), np.cumsum(sizes)

        def pack(some: slice) -> tuple[int, int]:
            beyond = duplicates = 0
            held = int(last_spikes[some.start] - sizes[some.start]) if some.start < some.stop else 0
            for row in range(some.start, some.stop):
                times_of = units[row] if scans[row].rising else np.sort(units[row])
                ends[row], late, twice = kernels.pack_unit(
                    times_of, from_first, low, width, n_bins, packed, int(begins[row])
                )
                beyond += late
                duplicates += twice
                done = int(last_spikes[row])
                if consume and done - held >= _GIVEN_BACK:
                    _give_back(times[held:done])
                    held = done
            return beyond, duplicates

        beyond, self.duplicate_spikes = map(sum, zip(*over_units(pack, sizes, threads), strict=True))
        self._dropped = (0 if from_first else negative, nan, beyond)
        self._packed, self._begins, self._ends = packed, begins, ends
        self._at = np.zeros(self.n_units, np.int64)
        self._tally = np.zeros(kernels.TALLY_WIDTH, np.int64)
        self._done = 0

    def counts(self, start: int, stop: int) -> np.ndarray:
        """Counts of bins ``[start, stop)``.

        Parameters
        ----------
        start, stop : int
            ``start`` is where the call before stopped: ranges rise and leave nothing out.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_units, stop - start)
            Spikes per bin, saturated at 255.

        Raises
        ------
        ValueError
            Another range.
        """
        if start != self._done or not start < stop <= self.n_bins:
            raise ValueError(f"bins {start} to {stop} requested after {self._done} of {self.n_bins}")
        counts = np.zeros((self.n_units, stop - start), np.uint8)
        packed, begins, ends, at = self._packed, self._begins, self._ends, self._at

        def fill(units: slice) -> np.ndarray:
            tally = np.zeros(kernels.TALLY_WIDTH, np.int64)
            kernels.fill_counts(packed, begins[units], ends[units], at[units], start, stop, counts[units], tally)
            return tally

        self._tally += sum(over_units(fill, np.full(self.n_units, stop - start), self._threads))
        self._done = stop
        return counts

    @property
    def kept(self) -> int:
        """Spikes in the counts returned so far."""
        return int(self._tally[kernels.TALLY_KEPT])

    @property
    def losses(self) -> Losses:
        """Spikes that are in no bin; complete once all bins were requested."""
        lost, bins = self._tally[[kernels.TALLY_LOST, kernels.TALLY_SATURATED_BINS]].tolist()
        return Losses(*self._dropped, lost_to_saturation=lost, saturated_bins=bins)

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


class _Scan(NamedTuple):
    """What `kernels.scan_unit` returns."""

    low: float
    high: float
    rising: bool
    nan: int
    infinite: int
    negative: int


def _too_long(n_units: int, n_bins: int, width: float, last: float, allowed: int, name: str) -> DamagedRecording:
    return DamagedRecording(
        f"{name} is longer than any session known",
        found=f"{n_units:,} units x {n_bins:,} bins of {width:g} s = {n_units * n_bins:,} tokens in "
        f"{n_bins * width / 3600:,.1f} h; the last spike is at {last:,.0f} s",
        expected=f"at most {allowed:,} tokens",
        remedy="check that spike times are in seconds (not samples or ms) and that the last ones are real; if the "
        "session is that long, allow it with max_session_tokens in its catalog row",
    )


def _give_back(values: np.ndarray) -> None:
    """Give the memory of values that nobody needs back to the system, on Linux; there they become 0.

    Only an array as a whole can be freed, and the one of a session's spike times is most of the memory of a process.
    """
    owner = values if values.base is None else values.base
    if sys.platform != "linux" or not isinstance(owner, np.ndarray) or not owner.flags.owndata:
        return  # memory of others, as of a file
    page = mmap.PAGESIZE
    first, last = -(-values.ctypes.data // page) * page, (values.ctypes.data + values.nbytes) // page * page
    if first < last:
        # what the system does not take is freed with the array
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def _split(trains: SpikeTrains, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """All spike times as float64, and those of each unit as a view; no copy where they are float64 already."""
    times = np.ascontiguousarray(trains.spike_times, dtype=np.float64)
    ends = np.asarray(trains.ends, dtype=np.int64)
    last = int(ends[-1]) if len(ends) else 0
    if last != len(times) or np.any(np.diff(ends, prepend=0) < 0):
        raise DamagedRecording(
            f"{name}: the index of its spike times is damaged",
            found=f"the index ends at {last:,}, for {len(times):,} spikes",
            expected="rising ends of units, the last one equal to the number of spikes",
        )
    return times, np.split(times, ends[:-1])[: len(ends)]


def _require_times(infinite: int, nan: int, name: str) -> None:
    if infinite or nan:
        raise DamagedRecording(
            f"{name}: some spike times are infinite or NaN",
            found=f"{infinite:,} infinite and {nan:,} NaN",
            expected="finite seconds",
            remedy="ask the recording's authors, or leave the session out with the catalog rule's exclude",
        )


def _count_bins(rule: BinRule, low: float, high: float, width: float, name: str) -> int:
    """Number of bins of a session whose spikes lie in ``[low, high]`` seconds (``inf, -inf``: no spikes).

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
    if n_bins > MAX_BINS and rule == "histogram" and low >= _YEAR_2000 and high <= _YEAR_2100:
        start = datetime.fromtimestamp(low, UTC)
        raise DamagedRecording(
            f"{name} has spike times of another clock",
            found=f"spikes from {low} s to {high} s: seconds since 1970, from {start:%Y-%m-%d %H:%M} UTC on",
            expected="seconds since the session's start (NWB: timestamps_reference_time)",
            remedy="subtract the start of the session from spike_times and obs_intervals in a copy of the file",
        )
    if n_bins > MAX_BINS:
        raise DamagedRecording(
            f"{name} is too long to be one session",
            found=f"a spike at {high} s ({high / 3600:,.0f} h), in bins of {width} s",
            expected=f"at most {MAX_BINS:,} bins",
            remedy="check the file's unit of time; spike times must be in seconds (not samples or ms)",
        )
    return n_bins
