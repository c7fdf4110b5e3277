"""The merged pile as a folder of files, ready to publish: shards, units and sessions of its components, preview, card.

The order of rows and the bytes of shards are decided in `merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import SPLITS, PileShard, PlanRecord
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
from neuralpile_dagster.publish.segments import Clock, PlacedSegment, SessionId, pile_segments, scan_shard
from neuralpile_dagster.publish.token_counts import count_splits, write_token_counts
from neuralpile_dagster.records import PileRecord, ShardRecord, SplitFacts
from neuralpile_dagster.store import Store, fetch
from neuralpile_dagster.tables.rows import Row, RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA


@dataclass(frozen=True, eq=False)
class PileSplits:
    """What is published of a pile's splits: the ``splits`` table, and what `PileRecord` says of them."""

    table: pa.Table
    facts: tuple[SplitFacts, ...]
    benchmarks: Mapping[str, Mapping[str, int]]


def write_pile(
    folder: Path,
    store: Store,
    plan: PlanRecord,
    shards: Sequence[PileShard],
    components: Sequence[PileComponent],
    *,
    repository: str,
    title: str = "Neural pile",
    as_published: str = "",
    annotations: str = "",
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
    plan : PlanRecord
    shards : sequence of PileShard
        In the plan's order.
    components : sequence of PileComponent
        In the plan's order.
    repository : str
        ``namespace/name``.
    title : str
    as_published : str
        What its datasets have in the published pile, in words; empty where that is not known.
    annotations : str
        Hash of those of its components, for its record.
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
    sessions = _by_id(tables["sessions"])
    known = {session: row["n_units"] for session, row in sessions.items()}
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        placed: dict[str, list[ShardRecord]] = {}
        rows: list[PlacedSegment] = []
        for shard in shards:
            record_of_shard = _place(folder, store, shard)
            found = scan_shard(folder, record_of_shard.path, shard.split, known)
            _require_match_record(shard, found)
            placed.setdefault(shard.split, []).append(record_of_shard)
            rows += found
            progress(f"{folder.name}: {record_of_shard.path}, {plural(shard.rows, 'row')}, {shard.file.size:,} bytes")
        paths = [shard.path for some in placed.values() for shard in some]
        present = {row.session for row in rows}
        token_counts = count_splits(
            folder,
            rows,
            {(c.name, *session): counts for c in components for session, counts in c.token_counts.items()},
            {session: row.get("observed_s") or row["duration_s"] for session, row in sessions.items()},
            progress,
        )
        clocks = {session: Clock(row.get("origin_s"), row["bin_width_s"]) for session, row in sessions.items()}
        segments = pile_segments(rows, clocks)
        configs = [
            _default_config(placed, rows),
            *(_write_extra(folder, name, some) for name in tables if (some := _only(tables[name], present))),
            *_write_streamed(folder, components, present),
            write_config(folder, "segments", segments.schema, [segments]),
            *([write_config(folder, "splits", splits.table.schema, [splits.table])] if splits else []),
            write_token_counts(folder, token_counts),
            write_preview(folder, _rows(folder / path for path in paths), PILE_SCHEMA),
        ]
        record = PileRecord(
            repository=repository,
            plan=plan.digest,
            seed=plan.seed,
            split_by=plan.split_by,
            test_size=plan.test_size,
            components=tuple(component.name for component in components),
            shards={split: tuple(placed[split]) for split in SPLITS if split in placed},
            token_counts=token_counts,
            citations={component.name: component.citation for component in components},
            annotations=annotations,
            rules=plan.rules,
            splits=splits.facts if splits else (),
            benchmarks={name: dict(counts) for name, counts in splits.benchmarks.items()} if splits else {},
        )
        write_bytes(folder / BIBLIOGRAPHY, bibliography(record.citations).encode())
        card = pile_card(record, components, configs, plan.promoted, title=title, as_published=as_published)
        write_bytes(folder / "README.md", card.encode())
        write_card_picture(folder, paths, synthetic=False)
        extra = [split.path for config in configs for split in config.splits.values()]
        keep_only(folder, ["README.md", BIBLIOGRAPHY, CARD_PICTURE, *paths, *extra])
    return record


def _place(folder: Path, store: Store, shard: PileShard) -> ShardRecord:
    number = shard.name.rpartition("-")[2]  # not its place: an empty shard that fills would move all others
    path = f"data/{shard.split}-{number}-{shard.file.sha256[:8]}.parquet"
    fetch(store, shard.file, folder / path)
    return ShardRecord(path=path, rows=shard.rows, tokens=shard.tokens, bytes=shard.file.size, sha256=shard.file.sha256)


def _require_match_record(shard: PileShard, found: Sequence[PlacedSegment]) -> None:
    tokens = sum(row.tokens for row in found)
    if (len(found), tokens) != (shard.rows, shard.tokens):
        raise HubError(
            f"{shard.file.key} does not match its record",
            found=f"{len(found):,} rows, {tokens:,} tokens",
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


def _by_id(tables: Iterable[pa.Table]) -> dict[SessionId, dict[str, Any]]:
    """Rows of the ``sessions`` tables, without the sessions' files."""
    rows = (row for table in tables for row in table.drop_columns(["files"]).to_pylist())
    return {(row["source_dataset"], row["subject_id"], row["session_id"]): row for row in rows}


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


def _default_config(placed: Mapping[str, Sequence[ShardRecord]], rows: Sequence[PlacedSegment]) -> Config:
    splits = {
        split: Split(
            path=f"data/{split}-*",
            num_examples=sum(shard.rows for shard in placed[split]),
            num_bytes=sum(row.arrow_bytes for row in rows if row.split == split),
        )
        for split in SPLITS
        if split in placed
    }
    return Config("default", PILE_SCHEMA, splits, sum(shard.bytes for some in placed.values() for shard in some))


def _rows(paths: Iterable[Path]) -> Iterator[Row]:
    """Rows of files in their order, as far as a preview shows them."""
    for path in paths:
        with RowReader(path) as reader:
            for number in range(reader.n_rows):
                yield read_preview(reader, number)
