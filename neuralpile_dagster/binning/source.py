"""A session's counts, requested range by range (`CountSource`), and the segments that they are cut into.

Counts come from spike trains, which `binner` bins, or from a file with ready-made ones, summed here to wider bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neuralpile_dagster.errors import ConfigurationError, EmptyRecording
from neuralpile_dagster.recordings.model import BinnedCounts, Recording

MAX_COUNT = 255


class CountSource(Protocol):
    """Counts of one session, requested range by range in rising order."""

    n_units: int
    n_bins: int
    bin_width_s: float

    def counts(self, start: int, stop: int) -> np.ndarray:
        """Counts of bins ``[start, stop)``.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_units, stop - start)
            Spikes per bin, at most 255.
        """
        ...

    @property
    def spikes_read(self) -> int:
        """Number of spikes in the recording."""
        ...

    def lost(self) -> dict[str, int]:
        """Spikes not in the counts, as fields of `records.CountsStats`; complete once all bins were requested."""
        ...


class ReadyCounts:
    """`CountSource` of a file with ready-made counts, in bins of ``bin_width_s``.

    ``bins`` of the file's bins are summed to one, the last ones to a bin of fewer. Bins that were missing in the file
    count as it counts them. A bin is saturated when its sum is above 255, or one of the file's bins in it was.
    """

    def __init__(self, data: BinnedCounts, name: str, bins: int, bin_width_s: float) -> None:
        self._data = data
        self._bins = bins
        self._lost = data.lost_to_saturation
        self._saturated_bins = data.saturated_bins if bins == 1 else 0
        self.n_units, n_bins = data.counts.shape
        self.n_bins = -(-n_bins // bins)
        self.bin_width_s = bin_width_s
        if self.n_units < 1 or self.n_bins < 1:
            raise EmptyRecording(f"{name} has nothing to cut", found=f"{self.n_units} units, {self.n_bins} bins")

    def counts(self, start: int, stop: int) -> np.ndarray:
        """See `CountSource.counts`."""
        counts = self._data.counts[:, start * self._bins : stop * self._bins]
        if self._bins == 1:
            return np.ascontiguousarray(counts)
        starts = np.arange(0, counts.shape[1], self._bins)
        sums = np.add.reduceat(counts, starts, axis=1, dtype=np.uint32)
        saturated = sums > MAX_COUNT
        self._lost += int((sums[saturated] - MAX_COUNT).sum(dtype=np.int64))
        if self._data.saturated_bins:  # the file's own, which are stored as the largest count
            saturated |= np.maximum.reduceat(counts, starts, axis=1) == MAX_COUNT
        self._saturated_bins += int(saturated.sum())
        return np.minimum(sums, MAX_COUNT).astype(np.uint8)

    @property
    def spikes_read(self) -> int:
        """See `CountSource.spikes_read`."""
        return self._data.spikes_read

    def lost(self) -> dict[str, int]:
        """See `CountSource.lost`."""
        lost = {
            "lost_to_saturation": self._lost,
            "saturated_bins": self._saturated_bins,
            "missing_bins": self._data.missing_bins,
        }
        return lost | {"bins_dropped": self._data.bins_dropped} if self._data.bins_dropped else lost


def count_source(
    recording: Recording,
    bin_width_s: float,
    name: str,
    max_session_tokens: int | None = None,
    threads: int = 1,
    *,
    allow_bin_width: bool = False,
    consume: bool = False,
) -> CountSource:
    """`CountSource` of a recording.

    Parameters
    ----------
    recording : Recording
    bin_width_s : float
        Seconds per bin.
    name : str
        What errors call the recording.
    max_session_tokens : int, optional
        Refuse a longer session before memory is taken for it.
    threads : int
        Threads that share the units of spike trains.
    allow_bin_width : bool
        Give ready-made counts of which this is no whole multiple in the file's own bins.
    consume : bool
        The recording's spike times are needed no more; see `Binner`.

    Raises
    ------
    ConfigurationError
        The file holds counts of a bin width of which this is no whole multiple, and that is not allowed.
    DamagedRecording, EmptyRecording
        See `Binner`.
    """
    data = recording.data
    if not isinstance(data, BinnedCounts):
        from neuralpile_dagster.binning.binner import Binner

        return Binner(data, bin_width_s, name, max_session_tokens, threads=threads, consume=consume)
    bins = max(round(bin_width_s / data.bin_width_s), 1)
    if not math.isclose(data.bin_width_s * bins, bin_width_s, rel_tol=1e-9):
        if allow_bin_width:
            return ReadyCounts(data, name, 1, data.bin_width_s)
        raise ConfigurationError(
            f"{name} holds ready-made counts, which can only be summed to wider bins",
            found=f"bins of {data.bin_width_s:g} s in the file, {bin_width_s:g} s requested",
            expected=f"a whole multiple of {data.bin_width_s:g} s",
            remedy="set such a bin width, leave this dataset out, or state `allow_bin_width: true` in its row, which "
            "publishes the file's own bins",
        )
    return ReadyCounts(data, name, bins, data.bin_width_s if bins == 1 else bin_width_s)


@dataclass(frozen=True)
class Segment:
    """Bins ``[start, stop)`` of a session, named as in the published pile: ``segment_0``, ``segment_1``, ..."""

    id: str
    start: int
    stop: int

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.stop - self.start


def plan_segments(n_units: int, n_bins: int, max_tokens: int) -> tuple[Segment, ...]:
    """Cut a session into segments as the published pile does (docs/binning.md).

    All segments are equally long but the last, which is shorter. With
    ``N = ceil(tokens / max_tokens)`` segments of ``ceil(n_bins / N)`` bins, a
    segment may exceed ``max_tokens`` by less than ``n_units`` tokens, and with
    small limits the last ones can be empty: those are left out, the ids of the
    others do not change.

    Parameters
    ----------
    n_units, n_bins : int
        Shape of the session's counts, both at least 1.
    max_tokens : int
        Nominal tokens per segment, at least 1; a session of exactly as many is one segment.

    Returns
    -------
    tuple of Segment
        In order; they cover all bins.

    Examples
    --------
    >>> [(segment.id, segment.start, segment.stop) for segment in plan_segments(2, 5, max_tokens=4)]
    [('segment_0', 0, 2), ('segment_1', 2, 4), ('segment_2', 4, 5)]
    """
    if min(n_units, n_bins, max_tokens) < 1:
        raise ValueError(f"nothing to cut: {n_units} units, {n_bins} bins, at most {max_tokens} tokens")
    wanted = -(-n_units * n_bins // max_tokens)
    size = -(-n_bins // wanted)
    starts = range(0, n_bins, size)
    return tuple(Segment(f"segment_{i}", start, min(start + size, n_bins)) for i, start in enumerate(starts))
