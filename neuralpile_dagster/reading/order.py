"""The order of an epoch's batches: a pure function of the seed, which workers and ranks do not change.

An epoch deals the rows, shuffled, to *lanes*; a lane is cut into *rounds* of a few rows, whose windows are shuffled
among themselves and cut into batches. Batch ``i`` of the epoch comes from lane ``i % lanes``, so processes
that share the batches out, ``i % processes``, share no rows if their number divides that of the lanes.
Bit streams of numpy's bit generators are stable, so the order is the same with every version of numpy.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_ROWS, _PHASES, _ROUND, _BATCHES = range(4)


@dataclass(frozen=True)
class Rules:
    """What an order follows from, besides rows, seed and epoch.

    Attributes
    ----------
    n_bins, batch_size : int
        Bins of a window, windows of a batch (the last one of a round may have fewer).
    by_session : bool
        Whether all windows of a batch are of one session.
    lanes, lane_rows : int
        Number of lanes, and rows of a round.
    shuffle : bool
        When false: rows in their order, windows from the first bin on, batches in order within a round.
    """

    n_bins: int
    batch_size: int
    by_session: bool
    lanes: int
    lane_rows: int
    shuffle: bool


@dataclass(frozen=True)
class Batch:
    """Windows of one batch: ``rows`` and ``starts`` (bins), int64, shape (n_windows,)."""

    rows: np.ndarray
    starts: np.ndarray


class Epoch:
    """The batches of one epoch.

    Parameters
    ----------
    rules : Rules
    rows, lengths, sessions : numpy.ndarray, int64, shape (n_rows,)
        Row numbers, their bins (at least ``rules.n_bins``) and sessions.
    seed, number : int
        Of the order, and of the epoch; not negative.
    """

    def __init__(
        self, rules: Rules, rows: np.ndarray, lengths: np.ndarray, sessions: np.ndarray, seed: int, number: int
    ) -> None:
        self.rules, self._rows, self._sessions = rules, rows, sessions
        self._key = (seed, number)
        n = len(rows)
        # windows lie side by side from a random bin on: over the epochs they begin everywhere
        room = np.minimum(rules.n_bins, lengths - rules.n_bins + 1)
        random = self._random(n, _PHASES) if rules.shuffle else np.zeros(n, np.uint64)
        self._phases = (random % room.astype(np.uint64)).astype(np.int64)
        self._windows = (lengths - self._phases) // rules.n_bins
        order = np.argsort(self._random(n, _ROWS), kind="stable") if rules.shuffle else np.arange(n)
        lanes = _dealt(self._windows[order], rules.lanes)
        self._rounds = [
            [order[lane[k : k + rules.lane_rows]] for k in range(0, len(lane), rules.lane_rows)] for lane in lanes
        ]
        self._first = [np.cumsum([0, *map(self._count, rounds)]) for rounds in self._rounds]

    @property
    def n_windows(self) -> int:
        """Windows in the epoch."""
        return int(self._windows.sum())

    @property
    def n_batches(self) -> int:
        """Batches in the epoch."""
        return int(sum(first[-1] for first in self._first))

    def place(self, index: int) -> tuple[int, int, int]:
        """Lane, round in it, and number in the round of a batch."""
        lanes = self.rules.lanes
        lane, number = index % lanes, index // lanes
        if number >= self._shortest:
            lane, number = self._rest[index - self._shortest * lanes]
        of_round = int(np.searchsorted(self._first[lane], number, side="right")) - 1
        return lane, of_round, number - int(self._first[lane][of_round])

    def batches(self, lane: int, number: int) -> list[Batch]:
        """All batches of a round."""
        chosen = self._rounds[lane][number]
        n = self._windows[chosen]
        of_row = np.repeat(chosen, n)
        nth = np.arange(len(of_row)) - np.repeat(np.cumsum(n) - n, n)
        starts = self._phases[of_row] + nth * self.rules.n_bins
        if self.rules.shuffle:
            turned = np.argsort(self._random(len(of_row), _ROUND, lane, number), kind="stable")
            of_row, starts = of_row[turned], starts[turned]
        groups = [np.arange(len(of_row))]
        if self.rules.by_session:
            sessions = self._sessions[of_row]
            groups = [np.flatnonzero(sessions == session) for session in np.unique(sessions)]
        size = self.rules.batch_size
        cuts = [group[k : k + size] for group in groups for k in range(0, len(group), size)]
        if self.rules.shuffle and self.rules.by_session:
            turned = np.argsort(self._random(len(cuts), _BATCHES, lane, number), kind="stable")
            cuts = [cuts[k] for k in turned.tolist()]
        return [Batch(self._rows[of_row[cut]], starts[cut]) for cut in cuts]

    @cached_property
    def _shortest(self) -> int:
        return int(min(first[-1] for first in self._first))

    @cached_property
    def _rest(self) -> list[tuple[int, int]]:
        """Lane and number of the batches that longer lanes have left when the shortest one ends."""
        longest = int(max(first[-1] for first in self._first))
        return [
            (lane, number)
            for number in range(self._shortest, longest)
            for lane, first in enumerate(self._first)
            if number < first[-1]
        ]

    def _count(self, chosen: np.ndarray) -> int:
        """Batches of a round of these rows."""
        windows = self._windows[chosen]
        if self.rules.by_session:
            _, of_session = np.unique(self._sessions[chosen], return_inverse=True)
            windows = np.bincount(of_session, windows)
        else:
            windows = windows.sum(keepdims=True)
        return int(np.ceil(windows / self.rules.batch_size).sum())

    def _random(self, n: int, *purpose: int) -> np.ndarray:
        return np.random.Philox(np.random.SeedSequence([*self._key, *purpose])).random_raw(n)


def _dealt(windows: np.ndarray, lanes: int) -> list[list[int]]:
    """Deal rows to lanes, each to the one that has the fewest windows until then."""
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    heap = [(0, lane) for lane in range(lanes)]
    for row, more in enumerate(windows.tolist()):
        has, lane = heap[0]
        dealt[lane].append(row)
        heapq.heapreplace(heap, (has + more, lane))
    return dealt
