"""Sources of a session's counts: spike trains to bin, or ready-made counts from the file."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from neuralpile_dagster.errors import ConfigurationError, EmptyRecording
from neuralpile_dagster.recordings.model import BinnedCounts, Recording


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
    """`CountSource` of a file with ready-made counts."""

    def __init__(self, data: BinnedCounts, name: str) -> None:
        self._data = data
        self.n_units, self.n_bins = data.counts.shape
        self.bin_width_s = data.bin_width_s
        if self.n_units < 1 or self.n_bins < 1:
            raise EmptyRecording(f"{name} has nothing to cut", found=f"{self.n_units} units, {self.n_bins} bins")

    def counts(self, start: int, stop: int) -> np.ndarray:
        """See `CountSource.counts`."""
        return np.ascontiguousarray(self._data.counts[:, start:stop])

    @property
    def spikes_read(self) -> int:
        """See `CountSource.spikes_read`."""
        return self._data.spikes_read

    def lost(self) -> dict[str, int]:
        """See `CountSource.lost`."""
        return {
            "lost_to_saturation": self._data.lost_to_saturation,
            "saturated_bins": self._data.saturated_bins,
            "missing_bins": self._data.missing_bins,
        }


def count_source(
    recording: Recording, bin_width_s: float, name: str, max_session_tokens: int | None = None
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

    Raises
    ------
    ConfigurationError
        The file holds counts of another bin width.
    DamagedRecording, EmptyRecording
        See `Binner`.
    """
    data = recording.data
    if not isinstance(data, BinnedCounts):
        from neuralpile_dagster.binning.binner import Binner

        return Binner(data, bin_width_s, name, max_session_tokens)
    if not math.isclose(data.bin_width_s, bin_width_s, rel_tol=1e-9):
        raise ConfigurationError(
            f"{name} holds ready-made counts, which cannot be binned again",
            found=f"bins of {data.bin_width_s:g} s in the file, {bin_width_s:g} s requested",
            remedy=f"set the bin width to {data.bin_width_s:g} s, or leave this dataset out",
        )
    return ReadyCounts(data, name)
