"""The config ``segments``: where each row of a repository lies, in its session and in its file.

With it a program opens one row group of one file instead of looking through all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from neuralpile_dagster.publish.token_splits import SessionId
from neuralpile_dagster.records import ComponentSession, ShardRecord
from neuralpile_dagster.tables.schemas import SEGMENTS_SCHEMA


@dataclass(frozen=True)
class Clock:
    """When the bins of a session are: the time at which bin 0 begins (None: not known) and their width, seconds."""

    origin_s: float | None
    bin_width_s: float

    def at(self, bin_: int | None) -> float | None:
        """Time at which a bin begins."""
        return None if self.origin_s is None or bin_ is None else self.origin_s + bin_ * self.bin_width_s


def component_segments(sessions: Iterable[tuple[ComponentSession, Clock]], shards: Iterable[ShardRecord]) -> pa.Table:
    """Segments of a component, whose shards hold the rows of all sessions in their order."""
    places = ((shard.path, group) for shard in shards for group in range(shard.rows))
    rows = []
    for session, clock in sessions:
        start = 0
        for row in session.rows:
            path, group = next(places)
            rows.append(
                {
                    "session_id": session.session_id,
                    "segment_id": row.segment_id,
                    "start_bin": start,
                    "stop_bin": start + row.n_bins,
                    "start_s": clock.at(start),
                    "split": "train",
                    "file": path,
                    "row_group": group,
                    "n_units": session.n_units,
                    "tokens": session.n_units * row.n_bins,
                    "bytes": row.bytes,
                }
            )
            start += row.n_bins
    return pa.Table.from_pylist(rows, SEGMENTS_SCHEMA)


@dataclass(frozen=True)
class PlacedSegment:
    """One row of a pile: which segment of which session it is, how large, and where it lies."""

    session: SessionId
    segment_id: str
    n_units: int
    tokens: int
    bytes: int
    split: str
    file: str
    row_group: int


def pile_segments(placed: Sequence[PlacedSegment], clocks: Mapping[SessionId, Clock]) -> pa.Table:
    """Segments of a pile, with a column ``source_dataset``; a start is null where an earlier segment is missing."""
    bins: dict[SessionId, dict[str, int]] = {}
    for row in placed:
        bins.setdefault(row.session, {})[row.segment_id] = row.tokens // row.n_units if row.n_units else 0
    starts = {(session, segment): at for session, some in bins.items() for segment, at in _starts(some).items()}
    rows = []
    for row in placed:
        start, clock = starts.get((row.session, row.segment_id)), clocks.get(row.session)
        rows.append(
            {
                "session_id": row.session[2],
                "segment_id": row.segment_id,
                "start_bin": start,
                "stop_bin": None if start is None else start + bins[row.session][row.segment_id],
                "start_s": None if clock is None else clock.at(start),
                "split": row.split,
                "file": row.file,
                "row_group": row.row_group,
                "n_units": row.n_units,
                "tokens": row.tokens,
                "bytes": row.bytes,
                "source_dataset": row.session[0],
            }
        )
    return pa.Table.from_pylist(rows, SEGMENTS_SCHEMA.append(pa.field("source_dataset", pa.string())))


def _starts(bins: Mapping[str, int]) -> dict[str, int]:
    """First bin of each segment of a session, up to the first one that is missing."""
    found: dict[str, int] = {}
    start = 0
    while (segment := f"segment_{len(found)}") in bins:
        found[segment] = start
        start += bins[segment]
    return found
