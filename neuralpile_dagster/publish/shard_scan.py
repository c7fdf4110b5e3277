"""What a shard of the pile says of its rows without decoding them: footer and ids."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.publish.card_metadata import row_arrow_bytes
from neuralpile_dagster.publish.segments import PlacedSegment
from neuralpile_dagster.publish.token_splits import SessionId
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

_TEXTS = ["subject_id", "session_id", "segment_id", "source_dataset"]


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
