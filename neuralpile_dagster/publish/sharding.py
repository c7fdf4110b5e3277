"""Boundaries of a component's shards, chosen so that adding a session changes few of them.

Filling one shard after another would move every later cut when one session is
added. Instead every session has a fixed pseudo-random priority, the hash of
its key, and a run of sessions that is too large is cut before the session of
highest priority in it, and so on in both parts. (The cuts are the upper part of
a treap, Seidel & Aragon 1996.) A cut then depends only on the sessions around
it. ``python -m bench.sharding``: for datasets of the catalog's sizes, a session
added at a random place gives 1.0 to 1.5 shards new content on average, at most
two in 96 to 100 of 100 cases, and never more than four in 2,000; filling in
order changes up to 31. The price: shards are a little more than half full, so
there are 1.6 to 1.9 times as many. A component below the limit is one shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

MAX_SHARD_BYTES = 500_000_000
"""Compressed bytes of the rows of one shard; the Hub wants <= ~100 files a commit and files that resume well."""


@dataclass(frozen=True)
class SessionSizes:
    """One session: its key, and the compressed bytes of each of its rows."""

    key: str
    row_bytes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Compressed bytes of all rows."""
        return sum(self.row_bytes)


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of one session."""

    key: str
    start: int
    stop: int


Shard = tuple[Slice, ...]


def plan_shards(sessions: Sequence[SessionSizes], max_bytes: int = MAX_SHARD_BYTES) -> tuple[Shard, ...]:
    """Cut sessions, in the order given, into shards of at most ``max_bytes``.

    A session is in one shard, unless it alone is larger than ``max_bytes``: it
    then has shards of its own, filled in row order. A single row larger than
    ``max_bytes`` is a shard. Every row is in exactly one shard, in order.
    """
    shards: list[Shard] = []
    priorities = [_priority(session.key) for session in sessions]
    ends = list(accumulate((session.size for session in sessions), initial=0))
    pending = [(0, len(sessions))] if sessions else []
    while pending:
        start, stop = pending.pop()
        if ends[stop] - ends[start] <= max_bytes:
            shards.append(tuple(Slice(s.key, 0, len(s.row_bytes)) for s in sessions[start:stop]))
        elif stop - start == 1:
            shards.extend(_cut_rows(sessions[start], max_bytes))
        else:
            cut = max(range(start + 1, stop), key=priorities.__getitem__)
            pending += [(cut, stop), (start, cut)]  # the first part is taken next
    return tuple(shards)


def _priority(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _cut_rows(session: SessionSizes, max_bytes: int) -> list[Shard]:
    shards: list[Shard] = []
    start = filled = 0
    for row, size in enumerate(session.row_bytes):
        if row > start and filled + size > max_bytes:
            shards.append((Slice(session.key, start, row),))
            start, filled = row, 0
        filled += size
    return [*shards, (Slice(session.key, start, len(session.row_bytes)),)]
