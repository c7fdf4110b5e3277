"""What the rows of a pile's shard are, from its footer and its columns of ids; counts are not decoded."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.hub.metadata import row_arrow_bytes
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

Session = tuple[str, str, str]
"""source_dataset, subject_id, session_id."""

_TEXTS = ["subject_id", "session_id", "segment_id", "source_dataset"]


@dataclass(frozen=True)
class ShardScan:
    """Sums over the rows of a shard, and whose sessions they are of; ``arrow_bytes`` as `datasets` counts them."""

    rows: int
    tokens: int
    arrow_bytes: int
    sessions: frozenset[Session]


def scan_shard(path: Path, n_units: MutableMapping[Session, int]) -> ShardScan:
    """Read footer and ids of a shard with one row in each row group.

    Parameters
    ----------
    path : Path
    n_units : mutable mapping of Session to int
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
    sessions: set[Session] = set()
    for row, texts in enumerate(zip(*(ids[name].to_pylist() for name in _TEXTS), strict=True)):
        subject, session_id, _, source = texts
        session = (source, subject, session_id)
        sessions.add(session)
        if session not in n_units:
            n_units[session] = _count_units(path, row)
        units = n_units[session]
        arrow_bytes += row_arrow_bytes(units, groups[row].column(0).num_values // units if units else 0, texts)
    tokens = sum(group.column(0).num_values for group in groups)
    return ShardScan(len(groups), tokens, arrow_bytes, frozenset(sessions))


def _count_units(path: Path, row: int) -> int:
    with RowReader(path) as reader:
        return int(reader.row(row).counts.shape[0])
