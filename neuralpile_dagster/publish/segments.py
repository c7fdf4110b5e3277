"""The config ``segments``: where each row of a repository lies, in its session and in its file.

With it a program opens one row group of one file instead of looking through all of them. What a pile's rows are is read
from its shards (`scan_shard`): from footers and ids, without decoding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.publish.card_parts import row_arrow_bytes
from neuralpile_dagster.publish.configs import SOURCE
from neuralpile_dagster.records import ComponentSession, RowRecord, ShardRecord
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, SEGMENTS_SCHEMA

SessionId = tuple[str, str, str]
"""source_dataset, subject_id, session_id."""
_TEXTS = ["subject_id", "session_id", "segment_id", "source_dataset"]


@dataclass(frozen=True)
class Clock:
    """When the bins of a session are: the time at which bin 0 begins (None: not known) and their width, seconds."""

    origin_s: float | None
    bin_width_s: float

    def at(self, bin_: int | None) -> float | None:
        """Time at which a bin begins."""
        return None if self.origin_s is None or bin_ is None else self.origin_s + bin_ * self.bin_width_s


def bins_of_rows(rows: Iterable[RowRecord], clock: Clock) -> Iterator[tuple[RowRecord, dict[str, Any]]]:
    """Rows of a session in order of time, each with its id, its bins, and when it begins."""
    start = 0
    for row in rows:
        stop = start + row.n_bins
        bins = {"segment_id": row.segment_id, "start_bin": start, "stop_bin": stop, "start_s": clock.at(start)}
        yield row, bins
        start = stop


def component_segments(sessions: Iterable[tuple[ComponentSession, Clock]], shards: Iterable[ShardRecord]) -> pa.Table:
    """Segments of a component, whose shards hold the rows of all sessions in their order."""
    places = ((shard.path, group) for shard in shards for group in range(shard.rows))
    rows = []
    for session, clock in sessions:
        for row, bins in bins_of_rows(session.rows, clock):
            path, group = next(places)
            rows.append(
                {
                    **bins,
                    "session_id": session.session_id,
                    "split": "train",
                    "file": path,
                    "row_group": group,
                    "n_units": session.n_units,
                    "tokens": session.n_units * row.n_bins,
                    "bytes": row.bytes,
                }
            )
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

    @property
    def n_bins(self) -> int:
        """Bins of the row."""
        return self.tokens // self.n_units if self.n_units else 0

    @property
    def arrow_bytes(self) -> int:
        """Bytes of the row in Arrow, as `datasets` counts them."""
        return row_arrow_bytes(self.n_units, self.n_bins, [*self.session, self.segment_id])


def pile_segments(placed: Sequence[PlacedSegment], clocks: Mapping[SessionId, Clock]) -> pa.Table:
    """Segments of a pile, with a column ``source_dataset``; a start is null where an earlier segment is missing."""
    bins: dict[SessionId, dict[str, int]] = {}
    for row in placed:
        bins.setdefault(row.session, {})[row.segment_id] = row.n_bins
    starts = {(session, segment): at for session, some in bins.items() for segment, at in _starts(some).items()}
    rows = []
    for row in placed:
        start, clock = starts.get((row.session, row.segment_id)), clocks.get(row.session)
        rows.append(
            {
                "session_id": row.session[2],
                "segment_id": row.segment_id,
                "start_bin": start,
                "stop_bin": None if start is None else start + row.n_bins,
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


def scan_shard(folder: Path, file: str, split: str, n_units: MutableMapping[SessionId, int]) -> list[PlacedSegment]:
    """Read footer and ids of a shard with one row in each row group.

    Parameters
    ----------
    folder : Path
        Of the repository.
    file : str
        Path of the shard in it.
    split : str
    n_units : mutable mapping of SessionId to int
        Units of each session. What is not known yet is found by decoding one
        row of the session, and added.

    Raises
    ------
    TableError
        The file is damaged or is not a shard of the pile.
    """
    path = folder / file
    parquet = open_parquet(path, str(path))
    require_schema(parquet.schema_arrow, PILE_SCHEMA, str(path))
    groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
    if any(group.num_rows != 1 for group in groups):
        raise TableError(f"{path} has row groups of several rows", expected="one row in each")
    with damaged(str(path)):
        ids = parquet.read(columns=_TEXTS)
    rows = []
    for number, texts in enumerate(zip(*(ids[name].to_pylist() for name in _TEXTS), strict=True)):
        subject, session_id, segment, source = texts
        session = (source, subject, session_id)
        if session not in n_units:
            n_units[session] = _count_units(path, number)
        columns = [groups[number].column(column) for column in range(groups[number].num_columns)]
        rows.append(
            PlacedSegment(
                session=session,
                segment_id=segment,
                n_units=n_units[session],
                tokens=columns[0].num_values,
                bytes=sum(column.total_compressed_size for column in columns),
                split=split,
                file=file,
                row_group=number,
            )
        )
    return rows


def _count_units(path: Path, row: int) -> int:
    with RowReader(path) as reader:
        return reader.shape(row)[0]
