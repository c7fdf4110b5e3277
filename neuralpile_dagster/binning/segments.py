"""Counts -> segments: cut a session's bins into rows of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_PREFIX = "segment_"


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
    return tuple(Segment(f"{SEGMENT_PREFIX}{i}", start, min(start + size, n_bins)) for i, start in enumerate(starts))
