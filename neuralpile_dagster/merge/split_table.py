"""The ``splits`` table of a pile, one row per session, and what each split holds.

Which split a session is in is decided in `splits`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from neuralpile_dagster.merge.model import LEFT_OUT, SETTINGS, SPLITS, PilePlan, PlanRecord, SplitSettings
from neuralpile_dagster.merge.splits import (
    Decision,
    SessionId,
    SessionIdentity,
    identity_of_ids,
    session_hashes,
)
from neuralpile_dagster.records import SplitFacts
from neuralpile_dagster.tables.schemas import SPLITS_SCHEMA

LEFT_OUT_NAME = "left_out"
_IDS = ("source_dataset", "subject_id", "session_id")


def splits_table(
    sessions: Sequence[SessionId],
    identities: Sequence[SessionIdentity],
    row_session: np.ndarray,
    row_tokens: np.ndarray,
    decision: Decision,
    settings: SplitSettings,
) -> pa.Table:
    """The ``splits`` table, one row per session in the order given, with its settings in the schema's metadata.

    ``row_session`` and ``row_tokens`` are integers of shape (n_rows,): number of each row's session, and its tokens.
    """
    n = len(sessions)
    lowest, highest = np.full(n, len(SPLITS), np.int8), np.full(n, LEFT_OUT, np.int8)
    np.minimum.at(lowest, row_session, decision.row_splits)
    np.maximum.at(highest, row_session, decision.row_splits)
    names = [*SPLITS, LEFT_OUT_NAME]  # LEFT_OUT is -1
    split = [names[low] if low == high else None for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)]
    tokens = np.zeros(n, np.int64)
    np.add.at(tokens, row_session, row_tokens)
    metadata = {SETTINGS: json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode()}
    return pa.table(
        [
            *([session[part] for session in sessions] for part in range(3)),
            [identity.subject for identity in identities],
            tokens,
            decision.u,
            split,
            [list(identity.benchmarks) for identity in identities],
            decision.twin_of,
        ],
        schema=SPLITS_SCHEMA.with_metadata(metadata),
    )


def describe_plan(
    plan: PilePlan, identities: Mapping[SessionId, SessionIdentity]
) -> tuple[tuple[SplitFacts, ...], dict[str, dict[str, int]]]:
    """What each split holds, and the sessions of each benchmark by split."""
    splits = splits_of_rows(plan.record, plan.rows, identities) if plan.splits is None else plan.splits
    return describe_splits(plan.rows, identities), benchmark_splits(plan.rows, splits)


def describe_splits(rows: pa.Table, identities: Mapping[SessionId, SessionIdentity]) -> tuple[SplitFacts, ...]:
    """What each split of a plan's ``rows`` holds; a session in several has its hours divided by tokens."""
    parts: dict[str, list[tuple[SessionIdentity, int, int, SessionId]]] = defaultdict(list)
    totals: dict[SessionId, int] = defaultdict(int)
    for split, session, tokens, n_rows in _parts(rows):
        parts[split].append((identities.get(session) or identity_of_ids(session), tokens, n_rows, session))
        totals[session] += tokens

    def hours(part: Iterable[tuple[SessionIdentity, int, int, SessionId]]) -> float | None:
        seconds = 0.0
        for known, tokens, _, session in part:
            if known.seconds is None:
                return None
            seconds += known.seconds * tokens / max(totals[session], 1)
        return seconds / 3600

    return tuple(
        SplitFacts(
            split=split,
            rows=sum(n for _, _, n, _ in parts[split]),
            sessions=len(parts[split]),
            subjects=len({(known.dataset, known.subject) for known, *_ in parts[split]}),
            datasets=len({known.dataset for known, *_ in parts[split]}),
            tokens=sum(tokens for _, tokens, _, _ in parts[split]),
            hours=hours(parts[split]),
        )
        for split in SPLITS
        if split in parts
    )


def _parts(rows: pa.Table) -> list[tuple[str, SessionId, int, int]]:
    """Each session in each split of a plan's ``rows``: split, session, tokens, number of rows."""
    columns = ["split", *_IDS]
    grouped = rows.group_by(columns).aggregate([("tokens", "sum"), ("tokens", "count")])
    values = (grouped[name].to_pylist() for name in (*columns, "tokens_sum", "tokens_count"))
    return [(split, (*ids,), tokens, n_rows) for split, *ids, tokens, n_rows in zip(*values, strict=True)]


def benchmark_splits(rows: pa.Table, splits: pa.Table) -> dict[str, dict[str, int]]:
    """Sessions of each benchmark: ``sessions``, and how many have rows in each split; sorted by name.

    ``rows`` are those of the plan, ``splits`` is its ``splits`` table.
    """
    present: dict[SessionId, list[str]] = defaultdict(list)
    for split, session, _, _ in _parts(rows):
        present[session].append(split)
    found: dict[str, dict[str, int]] = {}
    columns = (splits[name].to_pylist() for name in (*_IDS, "benchmarks"))
    for *ids, benchmarks in zip(*columns, strict=True):
        for name in benchmarks:
            counts = found.setdefault(name, {"sessions": 0, **dict.fromkeys(SPLITS, 0), LEFT_OUT_NAME: 0})
            counts["sessions"] += 1
            for split in present.get((*ids,), [LEFT_OUT_NAME]):
                counts[split] += 1
    return dict(sorted(found.items()))


def splits_of_sessions(plan: PilePlan) -> dict[SessionId, str | None]:
    """Split of every session, from the plan's rows; None where they are in several."""
    found: dict[SessionId, str | None] = {}
    for split, session, _, _ in _parts(plan.rows):
        found[session] = None if session in found else split
    return found


def splits_of_rows(record: PlanRecord, rows: pa.Table, identities: Mapping[SessionId, SessionIdentity]) -> pa.Table:
    """The ``splits`` table of a plan that stores none, whose splits are those of a permutation; sorted by ids."""
    named: list[SessionId] = list(zip(*(rows[name].to_pylist() for name in _IDS), strict=True))
    sessions = sorted(set(named))
    numbers = {session: number for number, session in enumerate(sessions)}
    known = [identities.get(session) or identity_of_ids(session) for session in sessions]
    u, twin_of = session_hashes(record.seed, sessions, known)
    decision = Decision(
        row_splits=np.array([SPLITS.index(split) for split in rows["split"].to_pylist()], np.int8),
        held_out=np.zeros(rows.num_rows, bool),
        u=u,
        twin_of=twin_of,
    )
    settings = SplitSettings(
        plan=record.digest, seed=record.seed, split_by=record.split_by, test_size=record.test_size, rules=record.rules
    )
    row_session = np.array([numbers[session] for session in named], np.int64)
    return splits_table(sessions, known, row_session, rows["tokens"].to_numpy(), decision, settings)
