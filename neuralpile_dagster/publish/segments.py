"""The config ``segments``: where each row of a repository lies, in its session and in its file.

With it a program opens one row group of one file instead of looking through all of them. What a pile's rows are is read
from its shards (`scan_shard`): from footers and ids, without decoding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.publish.card_parts import row_arrow_bytes
from neuralpile_dagster.publish.configs import SOURCE
from neuralpile_dagster.publish.token_counts import SessionId
from neuralpile_dagster.records import ComponentSession, ShardRecord
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, SEGMENTS_SCHEMA

_TEXTS = ["subject_id", "session_id", "segment_id", "source_dataset"]


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
    return pa.Table.from_pylist(rows, SEGMENTS_SCHEMA.append(SOURCE))


def _starts(bins: Mapping[str, int]) -> dict[str, int]:
    """First bin of each segment of a session, up to the first one that is missing."""
    found: dict[str, int] = {}
    start = 0
    while (segment := f"segment_{len(found)}") in bins:
        found[segment] = start
        start += bins[segment]
    return found


@dataclass(frozen=True)
class ShardScan:
    """What is known of each row of a shard, and sums; ``arrow_bytes`` as `datasets` counts them."""

    row_sessions: tuple[SessionId, ...]
    row_segments: tuple[str, ...]
    row_units: tuple[int, ...]
    row_tokens: tuple[int, ...]
    row_bytes: tuple[int, ...]
    arrow_bytes: int

    def placed(self, split: str, path: str) -> Iterator[PlacedSegment]:
        """Its rows as segments that lie in ``path``."""
        rows = zip(self.row_sessions, self.row_segments, self.row_units, self.row_tokens, self.row_bytes, strict=True)
        yield from (PlacedSegment(*row, split, path, number) for number, row in enumerate(rows))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_sessions)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.row_tokens)

    @property
    def sessions(self) -> frozenset[SessionId]:
        """Sessions that have rows in it."""
        return frozenset(self.row_sessions)


def scan_shard(path: Path, n_units: MutableMapping[SessionId, int]) -> ShardScan:
    """Read footer and ids of a shard with one row in each row group.

    Parameters
    ----------
    path : Path
    n_units : mutable mapping of SessionId to int
        Units of each session. What is not known yet is found by decoding one
        row of the session, and added.

    Raises
    ------
    TableError
        The file is damaged or is not a shard of the pile.
    """
    parquet = open_parquet(path, str(path))
    require_schema(parquet.schema_arrow, PILE_SCHEMA, str(path))
    groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
    if any(group.num_rows != 1 for group in groups):
        raise TableError(f"{path} has row groups of several rows", expected="one row in each")
    with damaged(str(path)):
        ids = parquet.read(columns=_TEXTS)
    arrow_bytes = 0
    sessions: list[SessionId] = []
    segments: list[str] = []
    row_units: list[int] = []
    for row, texts in enumerate(zip(*(ids[name].to_pylist() for name in _TEXTS), strict=True)):
        subject, session_id, segment, source = texts
        session = (source, subject, session_id)
        sessions.append(session)
        segments.append(segment)
        if session not in n_units:
            n_units[session] = _count_units(path, row)
        units = n_units[session]
        row_units.append(units)
        arrow_bytes += row_arrow_bytes(units, groups[row].column(0).num_values // units if units else 0, texts)
    return ShardScan(
        row_sessions=tuple(sessions),
        row_segments=tuple(segments),
        row_units=tuple(row_units),
        row_tokens=tuple(group.column(0).num_values for group in groups),
        row_bytes=tuple(
            sum(group.column(number).total_compressed_size for number in range(group.num_columns)) for group in groups
        ),
        arrow_bytes=arrow_bytes,
    )


def _count_units(path: Path, row: int) -> int:
    with RowReader(path) as reader:
        return reader.shape(row)[0]
