"""The merged pile as a folder of files, ready to publish: shards, units and sessions of its components, preview, card.

The order of rows and the bytes of shards are decided in `merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card_parts import BIBLIOGRAPHY, Config, Split, bibliography
from neuralpile_dagster.publish.component import keep_only
from neuralpile_dagster.publish.configs import (
    EXTRA_SCHEMAS,
    SOURCE,
    STREAMED,
    read_preview,
    write_config,
    write_preview,
)
from neuralpile_dagster.publish.pile_card import PileComponent, pile_card
from neuralpile_dagster.publish.samples import CARD_PICTURE, write_card_picture
from neuralpile_dagster.publish.segments import Clock, ShardScan, pile_segments, scan_shard
from neuralpile_dagster.publish.token_counts import PileRow, SessionId, count_splits, write_token_counts
from neuralpile_dagster.records import PileRecord, ShardRecord, SplitFacts, SplitRules, StoredFile
from neuralpile_dagster.store import Store, fetch
from neuralpile_dagster.tables.rows import Row, RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

SPLITS = ("train", "valid", "test")


class StoredShard(Protocol):
    """A shard of the pile in the store, e.g. `neuralpile_dagster.merge.shards.PileShard`."""

    @property
    def name(self) -> str:
        """``<plan>-<split>-<number>``."""
        ...

    @property
    def split(self) -> str:
        """``train``, ``valid`` or ``test``."""
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
    """Settings of a pile: ``plan`` is its plan's digest, ``split_by`` ``"rows"``, ``"sessions"``, ...

    ``as_published`` is what its datasets have in the published pile, in words; empty where that is not known.
    ``annotations`` is the hash of those of its components, for its record.
    """

    plan: str
    seed: int
    split_by: str
    test_size: float
    rules: SplitRules = field(default_factory=SplitRules)
    annotations: str = ""
    title: str = "Neural pile"
    as_published: str = ""


@dataclass(frozen=True, eq=False)
class PileSplits:
    """What is published of a pile's splits: the ``splits`` table, and what `PileRecord` says of them."""

    table: pa.Table
    facts: tuple[SplitFacts, ...]
    benchmarks: Mapping[str, Mapping[str, int]]
    promoted: Mapping[str, str] = field(default_factory=dict)


def write_pile(
    folder: Path,
    store: Store,
    shards: Sequence[StoredShard],
    components: Sequence[PileComponent],
    settings: PileSettings,
    *,
    repository: str,
    splits: PileSplits | None = None,
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
    splits : PileSplits, optional
        Written as the config ``splits``.
    progress : callable

    Raises
    ------
    HubError
        There are no shards, or one is not what its record says.
    StoreError, TableError
        A shard is damaged or gone; names it.
    """
    if not shards:
        raise HubError("the pile has no shards", remedy="materialize the pile's shards")
    tables = {name: _extra_tables(name, components) for name in EXTRA_SCHEMAS if name not in STREAMED}
    known = _known_units(tables["sessions"])
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        placed: dict[str, list[ShardRecord]] = {}
        scans: dict[str, list[ShardScan]] = {}
        for shard in shards:
            earlier = placed.setdefault(shard.split, [])
            earlier.append(_place(folder, store, shard))
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
            *(_write_extra(folder, name, some) for name in tables if (some := _only(tables[name], present))),
            *_write_streamed(folder, components, present),
            _write_segments(folder, placed, scans, tables["sessions"]),
            *([write_config(folder, "splits", splits.table.schema, [splits.table])] if splits else []),
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
            annotations=settings.annotations,
            rules=settings.rules,
            splits=splits.facts if splits else (),
            benchmarks={name: dict(counts) for name, counts in splits.benchmarks.items()} if splits else {},
        )
        write_bytes(folder / BIBLIOGRAPHY, bibliography(record.citations).encode())
        write_bytes(
            folder / "README.md",
            pile_card(
                record,
                components,
                configs,
                splits.promoted if splits else {},
                title=settings.title,
                as_published=settings.as_published,
            ).encode(),
        )
        write_card_picture(folder, (shard.path for some in placed.values() for shard in some), synthetic=False)
        extra = [split.path for config in configs for split in config.splits.values()]
        made = ["README.md", BIBLIOGRAPHY, CARD_PICTURE]
        keep_only(folder, [*made, *(s.path for some in placed.values() for s in some), *extra])
    return record


def _place(folder: Path, store: Store, shard: StoredShard) -> ShardRecord:
    number = shard.name.rpartition("-")[2]  # not its place: an empty shard that fills would move all others
    path = f"data/{shard.split}-{number}-{shard.file.sha256[:8]}.parquet"
    fetch(store, shard.file, folder / path)
    return ShardRecord(path=path, rows=shard.rows, tokens=shard.tokens, bytes=shard.file.size, sha256=shard.file.sha256)


def _require_match_record(shard: StoredShard, scan: ShardScan) -> None:
    if (scan.rows, scan.tokens) != (shard.rows, shard.tokens):
        raise HubError(
            f"{shard.file.key} does not match its record",
            found=f"{scan.rows:,} rows, {scan.tokens:,} tokens",
            expected=f"{shard.rows:,} rows, {shard.tokens:,} tokens",
            remedy="materialize the pile's shards again",
        )


def _extra_tables(config: str, components: Iterable[PileComponent]) -> list[pa.Table]:
    """Tables of all components with a ``source_dataset`` column, one table per component that has any."""
    found = []
    for component in components:
        tables = list(component.tables(config))
        if tables:
            found.append(_of_component(pa.concat_tables(tables), component.name))
    return found


def _of_component(table: pa.Table, name: str) -> pa.Table:
    """Rows of a component, with its name as ``source_dataset``."""
    import pyarrow.compute as pc

    if SOURCE.name in table.schema.names:  # a pile of another owner, of which this component is a part
        table = table.filter(pc.equal(table[SOURCE.name], name)).drop_columns(SOURCE.name)
    return table.append_column(SOURCE, pa.array([name] * table.num_rows, pa.string()))


def _write_streamed(
    folder: Path, components: Sequence[PileComponent], sessions: Iterable[SessionId]
) -> Iterator[Config]:
    """Write the tables in `STREAMED` of sessions in the pile, as far as there are any."""
    import pyarrow.compute as pc

    present: dict[str, set[str]] = {}
    for source, _, session in sessions:
        present.setdefault(source, set()).add(session)

    def rows(config: str) -> Iterator[pa.Table]:
        for component in components:
            known = pa.array(sorted(present.get(component.name, ())), pa.string())
            for table in component.tables(config):
                chosen = table.filter(pc.is_in(table["session_id"], known))
                if (chosen := _of_component(chosen, component.name)).num_rows:
                    yield chosen

    for config in STREAMED:
        tables = rows(config)
        if (first := next(tables, None)) is not None:
            yield write_config(folder, config, EXTRA_SCHEMAS[config][-1].append(SOURCE), chain([first], tables))


def _write_segments(
    folder: Path,
    placed: dict[str, list[ShardRecord]],
    scans: dict[str, list[ShardScan]],
    sessions: Iterable[pa.Table],
) -> Config:
    clocks = {}
    for table in sessions:
        for row in table.drop_columns(["files"]).to_pylist():
            session = (row["source_dataset"], row["subject_id"], row["session_id"])
            clocks[session] = Clock(row.get("origin_s"), row["bin_width_s"])
    segments = pile_segments(
        [
            row
            for split, shards in placed.items()
            for shard, scan in zip(shards, scans[split], strict=True)
            for row in scan.placed(split, shard.path)
        ],
        clocks,
    )
    return write_config(folder, "segments", segments.schema, [segments])


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
    known = [schema.append(SOURCE) for schema in EXTRA_SCHEMAS[name]]
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
