"""The pile's plan: from components, seed and split, the order of all rows and the boundaries of the shards.

A plan is a pure function of its inputs. With it, any of its shards can be
written alone, with the same bytes on every machine and in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import (
    SPLITS,
    PilePlan,
    PlannedShard,
    PlannedSource,
    PlanRecord,
    SourceFile,
    SplitBy,
    Totals,
)
from neuralpile_dagster.merge.order import cut, split_rows, split_sessions
from neuralpile_dagster.merge.sources import PileSource
from neuralpile_dagster.store import Store, put_file, read_record, write_record
from neuralpile_dagster.tables.footer import damaged

CODE_VERSION = f"2 pyarrow {pa.__version__}"
"""Raise the number when the order, the split, the cutting of shards or the bytes of a shard change."""

SHARD_BYTES = 500_000_000
MAX_SHARD_ROWS = 10_000
"""Bounds memory: writing or reading a file takes ~5 kB of metadata per row group. Real shards have ~500."""
ROW_OVERHEAD = 10_240
"""Bytes allowed for what a row adds to its encoded size: gaps (8.3 kB), ``source_dataset``, footer, index (~0.9 kB)."""
FILE_OVERHEAD = 16_384
"""Bytes allowed for what a file adds: schema and Arrow schema (~2 kB)."""


@dataclass(frozen=True, eq=False)
class _AllRows:
    """The rows of all sources, one source after another; numbers index ``datasets``, files and sessions."""

    datasets: tuple[str, ...]
    dataset: np.ndarray
    file: np.ndarray
    number: np.ndarray
    session: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @classmethod
    def of(cls, sources: Sequence[PileSource]) -> _AllRows:
        def shifted(rows: list[np.ndarray], counts: list[int]) -> np.ndarray:
            starts = np.cumsum([0, *counts[:-1]])
            return np.concatenate([row + start for row, start in zip(rows, starts, strict=True)]).astype(np.int32)

        numbers: dict[str, int] = {}
        of_sessions = [numbers.setdefault(name, len(numbers)) for s in sources for name in s.session_datasets]
        session = shifted([s.row_session for s in sources], [len(s.sessions) for s in sources])
        return cls(
            datasets=tuple(numbers),
            dataset=np.array(of_sessions, np.int32)[session],
            file=shifted([s.row_file for s in sources], [len(s.files) for s in sources]),
            number=np.concatenate([s.row_number for s in sources]),
            session=session,
            tokens=np.concatenate([s.row_tokens for s in sources]),
            bytes=np.concatenate([s.row_bytes for s in sources]),
        )

    def totals(self, chosen: np.ndarray) -> Totals:
        return Totals(
            rows=len(chosen),
            sessions=len(np.unique(self.session[chosen])),
            tokens=int(self.tokens[chosen].sum()),
            bytes=int(self.bytes[chosen].sum()),
        )


def plan_pile(
    sources: Sequence[PileSource],
    *,
    seed: int,
    split_by: SplitBy = "rows",
    test_size: float = 0.01,
    shard_bytes: int = SHARD_BYTES,
) -> PilePlan:
    """Fix the order of all rows, the split and the shards.

    Parameters
    ----------
    sources : sequence of PileSource
        In catalog order; no ``source_dataset`` is in two of them.
    seed : int
        At least 0.
    split_by : {"rows", "sessions"}
        ``rows`` as published; with ``sessions`` no session is in both splits.
    test_size : float
        Share of the rows or sessions that become test.
    shard_bytes : int
        A shard's file is at most that large, unless one row alone is larger.

    Raises
    ------
    MergeError
        A setting is invalid; names it.
    """
    _check(sources, split_by, shard_bytes)
    rows = _AllRows.of(sources)
    if split_by == "rows":
        train, test = split_rows(len(rows.file), seed, test_size)
    else:
        train, test = split_sessions(rows.session, seed, test_size)
    settings = [CODE_VERSION, seed, split_by, float(test_size), shard_bytes, *(source.digest for source in sources)]
    digest = hashlib.sha256("\n".join(map(str, settings)).encode()).hexdigest()
    order = np.concatenate([train, test])
    parts = {"train": train, "test": test}
    record = PlanRecord(
        plan_id=digest[:8],
        digest=digest,
        code_version=CODE_VERSION,
        seed=seed,
        split_by=split_by,
        test_size=test_size,
        shard_bytes=shard_bytes,
        sources=_planned_sources(sources, rows, parts),
        totals=rows.totals(order),
        splits={split: rows.totals(parts[split]) for split in SPLITS},
        shards=_shards(digest[:8], rows, parts, shard_bytes),
        files=tuple(file for source in sources for file in source.files),
    )
    return PilePlan(record, _table(sources, record.files, rows, order, len(train)))


def _check(sources: Sequence[PileSource], split_by: str, shard_bytes: int) -> None:
    names = [name for source in sources for name in source.datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not sources or twice:
        raise MergeError(
            "the components to merge are invalid",
            found=f"{', '.join(twice)} more than once" if twice else "none",
            expected="at least one, and each source_dataset from one of them: it distinguishes the rows of components",
            remedy="correct the list of components and extra repositories",
        )
    if split_by not in ("rows", "sessions"):
        raise MergeError("split_by is invalid", found=str(split_by), expected="rows or sessions")
    if shard_bytes <= FILE_OVERHEAD:
        raise MergeError("shard_bytes is invalid", found=f"{shard_bytes:,}", expected=f"more than {FILE_OVERHEAD:,}")


def _planned_sources(
    sources: Sequence[PileSource], rows: _AllRows, parts: dict[str, np.ndarray]
) -> tuple[PlannedSource, ...]:
    def of(split: np.ndarray) -> list[np.ndarray]:
        by_dataset = split[np.argsort(rows.dataset[split], kind="stable")]
        ends = np.cumsum(np.bincount(rows.dataset[split], minlength=len(rows.datasets)))
        return np.split(by_dataset, ends[:-1])

    chosen = {split: of(part) for split, part in parts.items()}
    every = of(np.arange(len(rows.dataset)))
    digests = {name: source.digest for source in sources for name in source.datasets}
    return tuple(
        PlannedSource(
            name=name,
            digest=digests[name],
            totals=rows.totals(every[number]),
            splits={split: rows.totals(chosen[split][number]) for split in SPLITS},
        )
        for number, name in enumerate(rows.datasets)
    )


def _shards(plan_id: str, rows: _AllRows, parts: dict[str, np.ndarray], limit: int) -> tuple[PlannedShard, ...]:
    shards = []
    before = 0
    for split in SPLITS:
        sizes, tokens = rows.bytes[parts[split]], rows.tokens[parts[split]]
        for number, (start, stop) in enumerate(cut(sizes, limit - FILE_OVERHEAD, ROW_OVERHEAD, MAX_SHARD_ROWS)):
            shards.append(
                PlannedShard(
                    name=f"{plan_id}-{split}-{number:05d}",
                    split=split,
                    start=before + start,
                    stop=before + stop,
                    tokens=int(tokens[start:stop].sum()),
                    bytes=int(sizes[start:stop].sum()),
                )
            )
        before += len(sizes)
    return tuple(shards)


def _table(
    sources: Sequence[PileSource], files: Sequence[SourceFile], rows: _AllRows, order: np.ndarray, n_train: int
) -> pa.Table:
    sessions = [session for source in sources for session in source.sessions]

    def texts(numbers: np.ndarray, values: Sequence[str]) -> pa.Array:
        return pa.array(values, pa.string()).take(pa.array(numbers.astype(np.int32))).dictionary_encode()

    session = rows.session[order]
    return pa.table(
        {
            "split": texts(np.arange(len(order)) >= n_train, SPLITS),
            "source_dataset": texts(rows.dataset[order], rows.datasets),
            "file": texts(rows.file[order], [file.name for file in files]),
            "row": rows.number[order],
            "subject_id": texts(session, [subject for subject, _ in sessions]),
            "session_id": texts(session, [name for _, name in sessions]),
            "tokens": rows.tokens[order],
            "bytes": rows.bytes[order],
        }
    )


def save_plan(store: Store, key: str, plan: PilePlan) -> PlanRecord:
    """Store a plan under ``<key>.rows.parquet`` and, after that, ``<key>.json``; returns the record stored."""
    rows_file, _ = put_file(
        store, f"{key}.rows.parquet", lambda path: pq.write_table(plan.rows, path, compression="zstd")
    )
    record = plan.record.model_copy(update={"rows_file": rows_file})
    write_record(store, f"{key}.json", record)
    return record


def load_plan(store: Store, key: str) -> PilePlan:
    """Read a stored plan; raises `MergeError` when there is none."""
    record = read_record(store, f"{key}.json", PlanRecord)
    if record is None or record.rows_file is None:
        raise MergeError(f"{store.uri(key + '.json')}: there is no such plan", remedy="materialize the pile's manifest")
    with store.open(record.rows_file.key) as file, damaged(store.uri(record.rows_file.key)):
        return PilePlan(record, pq.read_table(file))
