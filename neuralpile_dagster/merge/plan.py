"""The pile's plan: from components, seed and split, the order of all rows and the boundaries of the shards.

A plan is a pure function of its inputs (by hash, the splits published last are one). With it, any of its shards can be
written alone, with the same bytes on every machine and in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import (
    SPLITS,
    EarlierSplits,
    PilePlan,
    PlannedShard,
    PlannedSource,
    PlanRecord,
    SourceFile,
    SplitSettings,
    Totals,
    settings_of,
)
from neuralpile_dagster.merge.order import permutation
from neuralpile_dagster.merge.shards import (
    FILE_OVERHEAD,
    MAX_SHARD_ROWS,
    ROW_OVERHEAD,
    SHARD_BYTES,
    count_shards,
    cut,
    cut_by_hash,
)
from neuralpile_dagster.merge.sources import PileSource
from neuralpile_dagster.merge.split_table import splits_table
from neuralpile_dagster.merge.splits import (
    SessionId,
    SessionIdentity,
    decide,
    identity_of_ids,
    share_of,
)
from neuralpile_dagster.records import SplitBy, SplitRules, StoredFile
from neuralpile_dagster.store import Store, open_verified, put_file, read_record, write_record
from neuralpile_dagster.tables.footer import damaged

CODE_VERSION = f"2 pyarrow {pa.__version__}"
"""Raise the number when the order, the split, the cutting of shards or the bytes of a shard change."""


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
    segment: tuple[str, ...]

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
            segment=tuple(chain.from_iterable(s.row_segment for s in sources)),
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
    rules: SplitRules = SplitRules(),  # noqa: B008 (frozen)
    identities: Mapping[SessionId, SessionIdentity] | None = None,
    held_out: Collection[SessionId] = (),
    earlier: EarlierSplits | None = None,
) -> PilePlan:
    """Fix the order of all rows, the split and the shards.

    Parameters
    ----------
    sources : sequence of PileSource
        In catalog order; no ``source_dataset`` is in two of them.
    seed : int
        At least 0.
    split_by : {"rows", "sessions", "subjects", "datasets"}
        ``rows`` as published; else no session (subject, dataset) is in two splits. The last two need
        ``split_rule: hash``.
    test_size : float
        Share of the rows, sessions, ... that become test.
    shard_bytes : int
        A shard's file is at most that large, unless one row alone is larger; in ``order: hash`` on average.
    rules : SplitRules
        By default as published.
    identities : mapping of SessionId to SessionIdentity, optional
        What is known of sessions beyond their ids.
    held_out : collection of SessionId
        What ``rules.hold_out`` names.
    earlier : EarlierSplits, optional
        The splits published last, of which the hash rule keeps twins and promotions, and ``order: hash`` the number
        of shards.

    Raises
    ------
    MergeError
        A setting is invalid; names it.
    """
    _check(sources, split_by, shard_bytes, rules)
    rows = _AllRows.of(sources)
    ids = [session for source in sources for session in source.session_ids]
    known = [(identities or {}).get(session) or identity_of_ids(session) for session in ids]
    settings = SplitSettings(seed=seed, split_by=split_by, test_size=test_size, rules=rules)
    decided = decide(ids, known, rows.session, rows.segment, settings, held_out, earlier)
    row_hash = _row_hash(seed, rows, ids, known) if rules.order == "hash" else None
    order = permutation(len(rows.file), seed) if row_hash is None else np.argsort(row_hash, kind="stable")
    parts = arrange(decided.row_splits, order)
    n_shards = _n_shards(rows, parts, shard_bytes, seed, earlier) if row_hash is not None else {}
    made_of = [CODE_VERSION, seed, split_by, float(test_size), shard_bytes, *(source.digest for source in sources)]
    if rules != SplitRules():
        splits = hashlib.sha256(decided.row_splits.tobytes()).hexdigest()
        made_of += [json.dumps(rules.model_dump(mode="json"), sort_keys=True), splits, json.dumps(n_shards)]
    digest = hashlib.sha256("\n".join(map(str, made_of)).encode()).hexdigest()
    record = PlanRecord(
        plan_id=digest[:8],
        digest=digest,
        code_version=CODE_VERSION,
        seed=seed,
        split_by=split_by,
        test_size=test_size,
        shard_bytes=shard_bytes,
        sources=_planned_sources(sources, rows, parts),
        totals=rows.totals(np.concatenate(list(parts.values()))),
        splits={split: rows.totals(part) for split, part in parts.items()},
        shards=_shards(digest[:8], rows, parts, shard_bytes, row_hash, n_shards),
        files=tuple(file for source in sources for file in source.files),
        rules=rules,
        promoted=decided.promoted,
        held_out=rows.totals(np.flatnonzero(decided.held_out)) if decided.held_out.any() else None,
        follows=decided.follows,
    )
    memory = {"plan": digest, "promoted": decided.promoted, "n_shards": n_shards}
    table = splits_table(ids, known, rows.session, rows.tokens, decided, settings.model_copy(update=memory))
    return PilePlan(record, _table(sources, record.files, rows, parts), table)


def _check(sources: Sequence[PileSource], split_by: str, shard_bytes: int, rules: SplitRules) -> None:
    names = [name for source in sources for name in source.datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not sources or twice:
        raise MergeError(
            "the components to merge are invalid",
            found=f"{', '.join(twice)} more than once" if twice else "none",
            expected="at least one, and each source_dataset from one of them: it distinguishes the rows of components",
            remedy="correct the list of components and extra repositories",
        )
    check_rule(split_by, rules.split_rule)
    if shard_bytes <= FILE_OVERHEAD:
        raise MergeError("shard_bytes is invalid", found=f"{shard_bytes:,}", expected=f"more than {FILE_OVERHEAD:,}")


def check_rule(split_by: str, split_rule: str) -> None:
    """Raise `MergeError` when the rule cannot split by that."""
    if split_by not in get_args(SplitBy):
        raise MergeError("split_by is invalid", found=str(split_by), expected=f"one of {', '.join(get_args(SplitBy))}")
    if split_by in ("subjects", "datasets") and split_rule == "permutation":
        raise MergeError(
            f"split_by: {split_by} needs the hash rule", found="split_rule: permutation", remedy="set split_rule: hash"
        )


def _planned_sources(
    sources: Sequence[PileSource], rows: _AllRows, parts: dict[str, np.ndarray]
) -> tuple[PlannedSource, ...]:
    def totals(number: int, part: np.ndarray) -> Totals:
        return rows.totals(part[rows.dataset[part] == number])

    every = np.concatenate(list(parts.values()))
    digests = {name: source.digest for source in sources for name in source.datasets}
    return tuple(
        PlannedSource(
            name=name,
            digest=digests[name],
            totals=totals(number, every),
            splits={split: totals(number, part) for split, part in parts.items()},
        )
        for number, name in enumerate(rows.datasets)
        if number in rows.dataset[every]
    )


def _row_hash(seed: int, rows: _AllRows, ids: Sequence[SessionId], known: Sequence[SessionIdentity]) -> np.ndarray:
    """Place of each row by hash: of its own names, so that no other row moves it."""
    names = zip(rows.session.tolist(), rows.segment, strict=True)
    return np.array([share_of(seed, known[s].dataset, ids[s][2], segment) for s, segment in names])


def _n_shards(
    rows: _AllRows, parts: dict[str, np.ndarray], limit: int, seed: int, earlier: EarlierSplits | None
) -> dict[str, int]:
    """Number of shards of each split; those that are published are never fewer, as long as rows are placed by hash."""
    stated = settings_of(earlier.table) if earlier else None
    before = stated.n_shards if stated and (stated.seed, stated.rules.order) == (seed, "hash") else {}
    return {
        split: count_shards(rows.bytes[part], limit - FILE_OVERHEAD, ROW_OVERHEAD, MAX_SHARD_ROWS, before.get(split, 1))
        for split, part in parts.items()
    }


def _shards(
    plan_id: str,
    rows: _AllRows,
    parts: dict[str, np.ndarray],
    limit: int,
    row_hash: np.ndarray | None,
    n_shards: dict[str, int],
) -> tuple[PlannedShard, ...]:
    shards = []
    before = 0
    for split, part in parts.items():
        sizes, tokens = rows.bytes[part], rows.tokens[part]
        if row_hash is None:
            cuts = cut(sizes, limit - FILE_OVERHEAD, ROW_OVERHEAD, MAX_SHARD_ROWS)
            numbered = [(number, start, stop) for number, (start, stop) in enumerate(cuts)]
        else:
            numbered = cut_by_hash(row_hash[part], n_shards[split])
        for number, start, stop in numbered:
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
    sources: Sequence[PileSource], files: Sequence[SourceFile], rows: _AllRows, parts: dict[str, np.ndarray]
) -> pa.Table:
    order = np.concatenate(list(parts.values()))
    split = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    sessions = [session for source in sources for session in source.sessions]

    def texts(numbers: np.ndarray, values: Sequence[str]) -> pa.Array:
        return pa.array(values, pa.string()).take(pa.array(numbers.astype(np.int32))).dictionary_encode()

    session = rows.session[order]
    return pa.table(
        {
            "split": texts(split, list(parts)),
            "source_dataset": texts(rows.dataset[order], rows.datasets),
            "file": texts(rows.file[order], [file.name for file in files]),
            "row": rows.number[order],
            "subject_id": texts(session, [subject for subject, _ in sessions]),
            "session_id": texts(session, [name for _, name in sessions]),
            "tokens": rows.tokens[order],
            "bytes": rows.bytes[order],
        }
    )


def arrange(row_splits: np.ndarray, order: np.ndarray) -> dict[str, np.ndarray]:
    """Split rows that are in order.

    Parameters
    ----------
    row_splits : numpy.ndarray, int8, shape (n_rows,)
        `TRAIN`, `VALID`, `TEST` or `LEFT_OUT`.
    order : numpy.ndarray, int64, shape (n_rows,)
        Numbers of all rows.

    Returns
    -------
    dict of str to numpy.ndarray, int64, shape (n_rows_of_split,)
        Numbers of the rows of each split that has any.
    """
    ordered = row_splits[order]
    parts = {name: order[ordered == number] for number, name in enumerate(SPLITS)}
    return {name: part for name, part in parts.items() if len(part)}


def save_plan(store: Store, key: str, plan: PilePlan) -> PlanRecord:
    """Store a plan under ``<key>.rows.parquet`` and, after that, ``<key>.json``; returns the record stored.

    Its splits are stored under ``<key>.splits.parquet`` where they are not those of the published pile.
    """
    files = {"rows_file": _write(store, f"{key}.rows.parquet", plan.rows)}
    if plan.splits is not None and plan.record.rules != SplitRules():
        files["splits_file"] = _write(store, f"{key}.splits.parquet", plan.splits)
    record = plan.record.model_copy(update=files)
    write_record(store, f"{key}.json", record)
    return record


def load_plan(store: Store, key: str) -> PilePlan:
    """Read a stored plan; raises `MergeError` when there is none."""
    record = read_record(store, f"{key}.json", PlanRecord)
    if record is None or record.rows_file is None:
        raise MergeError(f"{store.uri(key + '.json')}: there is no such plan", remedy="materialize the pile's manifest")
    rows, splits = (_read(store, file) if file else None for file in (record.rows_file, record.splits_file))
    assert rows is not None
    return PilePlan(record, rows, splits)


def _write(store: Store, key: str, table: pa.Table) -> StoredFile:
    return put_file(store, key, lambda path: pq.write_table(table, path, compression="zstd"))[0]


def _read(store: Store, stored: StoredFile) -> pa.Table:
    with open_verified(store, stored) as file, damaged(store.uri(stored.key)):
        return pq.read_table(file)
