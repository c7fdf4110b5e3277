"""The merged pile as a folder of files, ready to publish: shards, units and sessions of its components, preview, card.

The order of rows and the bytes of shards are decided in `merge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neuralpile_dagster.errors import HubError, TableError
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card_metadata import Config, Split, row_arrow_bytes
from neuralpile_dagster.publish.citations import BIBLIOGRAPHY, bibliography
from neuralpile_dagster.publish.component import keep_only
from neuralpile_dagster.publish.configs import EXTRA_SCHEMAS, config_path, read_preview, write_config, write_preview
from neuralpile_dagster.publish.pile_card import PileComponent, pile_card
from neuralpile_dagster.publish.samples import CARD_PICTURE, write_card_picture
from neuralpile_dagster.publish.token_counts import write_token_counts
from neuralpile_dagster.publish.token_splits import PileRow, SessionId, count_splits
from neuralpile_dagster.records import PileRecord, ShardRecord, StoredFile
from neuralpile_dagster.store import Store
from neuralpile_dagster.store.fetching import fetch
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import Row, RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

SPLITS = ("train", "test")
_SOURCE = pa.field("source_dataset", pa.string())


class StoredShard(Protocol):
    """A shard of the pile in the store, e.g. `neuralpile_dagster.merge.shards.PileShard`."""

    @property
    def split(self) -> str:
        """``train`` or ``test``."""
        ...

    @property
    def file(self) -> StoredFile:
        """The stored file."""
        ...

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        ...


@dataclass(frozen=True)
class PileSettings:
    """Settings of a pile: ``plan`` is its plan's digest, ``split_by`` ``"rows"`` or ``"sessions"``."""

    plan: str
    seed: int
    split_by: str
    test_size: float


def open_config(hub: Hub, repository: str, config: str) -> pq.ParquetFile | None:
    """Open the table of a published repository's extra config; None where it is missing. Raises `HubError`."""
    path = config_path(config)
    digests = {file.path: file.sha256 for file in hub.files(repository)}
    if path not in digests:
        return None
    with hub.open(repository, path) as file:
        content = file.read()  # some 200 bytes a unit
    if (found := hashlib.sha256(content).hexdigest()) != digests[path]:
        raise HubError(
            f"{path} of {repository} is damaged",
            found=f"sha256 {found}",
            expected=digests[path],
            remedy="materialize hub_dataset of that dataset again, then this",
        )
    return open_parquet(pa.BufferReader(content), f"{repository}/{path}")


def hub_tables(hub: Hub, repository: str) -> Callable[[str], Iterator[pa.Table]]:
    """Reader of a published repository's ``units`` and ``sessions`` tables; yields nothing where they are missing.

    Those of a pile have a column ``source_dataset``.
    """

    def tables(config: str) -> Iterator[pa.Table]:
        parquet = open_config(hub, repository, config)
        known = EXTRA_SCHEMAS[config]
        if parquet and parquet.schema_arrow in (*known, *(schema.append(_SOURCE) for schema in known)):
            with damaged(f"{repository}/{config_path(config)}"):
                yield from (parquet.read_row_group(group) for group in range(parquet.num_row_groups))

    return tables


def write_pile(
    folder: Path,
    store: Store,
    shards: Sequence[StoredShard],
    components: Sequence[PileComponent],
    settings: PileSettings,
    *,
    repository: str,
    progress: Progress = print,
) -> PileRecord:
    """Make ``folder`` hold exactly the pile's files; the same inputs give the same bytes.

    Parameters
    ----------
    folder : Path
        Given over to this function: other files in it are removed. On the
        store's disk the shards in it are hard links.
    store : Store
    shards : sequence of StoredShard
        In the plan's order.
    components : sequence of PileComponent
        In the plan's order.
    settings : PileSettings
    repository : str
        ``namespace/name``.
    progress : callable

    Raises
    ------
    HubError
        There are no shards, or one is not what its record says.
    StoreError, TableError
        A shard is damaged or gone; names it.
    """
    if not shards:
        raise HubError("the pile has no shards", remedy="materialize neural_pile/shards")
    tables = {name: _extra_tables(name, components) for name in EXTRA_SCHEMAS}
    known = _known_units(tables["sessions"])
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        placed: dict[str, list[ShardRecord]] = {}
        scans: dict[str, list[ShardScan]] = {}
        for shard in shards:
            earlier = placed.setdefault(shard.split, [])
            earlier.append(_place(folder, store, shard, len(earlier)))
            scans.setdefault(shard.split, []).append(scan_shard(folder / earlier[-1].path, known))
            _require_match_record(shard, scans[shard.split][-1])
            progress(f"{folder.name}: {earlier[-1].path}, {shard.rows:,} rows, {shard.file.size:,} bytes")
        present = {session for some in scans.values() for scan in some for session in scan.sessions}
        token_counts = count_splits(
            list(_pile_rows(folder, placed, scans)),
            {(c.name, *session): counts for c in components for session, counts in c.token_counts.items()},
            _recorded_seconds(tables["sessions"]),
            progress,
        )
        configs = [
            _default_config(placed, scans),
            *(_write_extra(folder, name, some) for name in EXTRA_SCHEMAS if (some := _only(tables[name], present))),
            write_token_counts(folder, token_counts),
            write_preview(folder, _rows(folder / s.path for some in placed.values() for s in some), PILE_SCHEMA),
        ]
        record = PileRecord(
            repository=repository,
            plan=settings.plan,
            seed=settings.seed,
            split_by=settings.split_by,
            test_size=settings.test_size,
            components=tuple(component.name for component in components),
            shards={split: tuple(placed[split]) for split in SPLITS if split in placed},
            token_counts=token_counts,
            citations={component.name: component.citation for component in components},
        )
        write_bytes(folder / BIBLIOGRAPHY, bibliography(record.citations).encode())
        write_bytes(folder / "README.md", pile_card(record, components, configs).encode())
        write_card_picture(folder, (shard.path for some in placed.values() for shard in some), synthetic=False)
        extra = [split.path for config in configs for split in config.splits.values()]
        made = ["README.md", BIBLIOGRAPHY, CARD_PICTURE]
        keep_only(folder, [*made, *(s.path for some in placed.values() for s in some), *extra])
    return record


def _place(folder: Path, store: Store, shard: StoredShard, number: int) -> ShardRecord:
    path = f"data/{shard.split}-{number:05d}-{shard.file.sha256[:8]}.parquet"
    fetch(store, shard.file, folder / path)
    return ShardRecord(path=path, rows=shard.rows, tokens=shard.tokens, bytes=shard.file.size, sha256=shard.file.sha256)


def _require_match_record(shard: StoredShard, scan: ShardScan) -> None:
    if (scan.rows, scan.tokens) != (shard.rows, shard.tokens):
        raise HubError(
            f"{shard.file.key} does not match its record",
            found=f"{scan.rows:,} rows, {scan.tokens:,} tokens",
            expected=f"{shard.rows:,} rows, {shard.tokens:,} tokens",
            remedy="materialize neural_pile/shards again",
        )


def _extra_tables(config: str, components: Iterable[PileComponent]) -> list[pa.Table]:
    """Tables of all components with a ``source_dataset`` column, one table per component that has any."""
    found = []
    for component in components:
        tables = list(component.tables(config))
        if tables:
            table = pa.concat_tables(tables)
            if _SOURCE.name in table.schema.names:  # a pile of another owner, of which this component is a part
                table = table.filter(pc.equal(table[_SOURCE.name], component.name)).drop_columns(_SOURCE.name)
            found.append(table.append_column(_SOURCE, pa.array([component.name] * table.num_rows, pa.string())))
    return found


def _known_units(tables: Iterable[pa.Table]) -> dict[SessionId, int]:
    """Units of each session, by (source_dataset, subject_id, session_id)."""
    columns = ("source_dataset", "subject_id", "session_id", "n_units")
    return {
        (source, subject, session): n_units
        for table in tables
        for source, subject, session, n_units in zip(*(table[name].to_pylist() for name in columns), strict=True)
    }


def _recorded_seconds(tables: Iterable[pa.Table]) -> dict[SessionId, float]:
    """Seconds that each session was observed; its length where its file does not say."""
    found = {}
    for table in tables:
        for row in table.drop_columns(["files"]).to_pylist():
            session = (row["source_dataset"], row["subject_id"], row["session_id"])
            found[session] = row.get("observed_s") or row["duration_s"]
    return found


def _pile_rows(
    folder: Path, placed: dict[str, list[ShardRecord]], scans: dict[str, list[ShardScan]]
) -> Iterator[PileRow]:
    for split, shards in placed.items():
        for shard, scan in zip(shards, scans[split], strict=True):
            for number, (session, tokens) in enumerate(zip(scan.row_sessions, scan.row_tokens, strict=True)):
                yield PileRow(folder / shard.path, number, split, session, tokens)


def _only(tables: Iterable[pa.Table], sessions: set[SessionId]) -> list[pa.Table]:
    """Rows of sessions in the pile: a component may have been published again since the pile was planned."""
    found = []
    for table in tables:
        ids = zip(*(table[name].to_pylist() for name in ("source_dataset", "subject_id", "session_id")), strict=True)
        chosen = table.filter(pa.array([session in sessions for session in ids], pa.bool_()))
        if chosen.num_rows:
            found.append(chosen)
    return found


def _write_extra(folder: Path, name: str, tables: Sequence[pa.Table]) -> Config:
    """Write the tables with the columns of the newest schema among them, null where a component lacks them."""
    known = [schema.append(_SOURCE) for schema in EXTRA_SCHEMAS[name]]
    schema = known[max(known.index(table.schema) for table in tables)]
    missing = [pa.Table.from_batches([], schema)]  # first, so that its order of columns is the result's
    aligned = (pa.concat_tables([*missing, table], promote_options="default") for table in tables)
    return write_config(folder, name, schema, aligned)


def _default_config(placed: dict[str, list[ShardRecord]], scans: dict[str, list[ShardScan]]) -> Config:
    splits = {
        split: Split(
            path=f"data/{split}-*",
            num_examples=sum(scan.rows for scan in scans[split]),
            num_bytes=sum(scan.arrow_bytes for scan in scans[split]),
        )
        for split in SPLITS
        if split in scans
    }
    return Config("default", PILE_SCHEMA, splits, sum(shard.bytes for some in placed.values() for shard in some))


def _rows(paths: Iterable[Path]) -> Iterator[Row]:
    """Rows of files in their order, as far as a preview shows them."""
    for path in paths:
        with RowReader(path) as reader:
            for number in range(reader.n_rows):
                yield read_preview(reader, number)


_TEXTS = ["subject_id", "session_id", "segment_id", "source_dataset"]


@dataclass(frozen=True)
class ShardScan:
    """Session and tokens of each row of a shard, and sums; ``arrow_bytes`` as `datasets` counts them."""

    row_sessions: tuple[SessionId, ...]
    row_tokens: tuple[int, ...]
    arrow_bytes: int

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
    for row, texts in enumerate(zip(*(ids[name].to_pylist() for name in _TEXTS), strict=True)):
        subject, session_id, _, source = texts
        session = (source, subject, session_id)
        sessions.append(session)
        if session not in n_units:
            n_units[session] = _count_units(path, row)
        units = n_units[session]
        arrow_bytes += row_arrow_bytes(units, groups[row].column(0).num_values // units if units else 0, texts)
    return ShardScan(tuple(sessions), tuple(group.column(0).num_values for group in groups), arrow_bytes)


def _count_units(path: Path, row: int) -> int:
    with RowReader(path) as reader:
        return reader.shape(row)[0]
