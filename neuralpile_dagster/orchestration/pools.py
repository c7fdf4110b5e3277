"""Dagster concurrency pools and batch sizes. Limits are set in dagster.yaml or the UI."""

from __future__ import annotations

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.kinds import AssetKind

ARCHIVE_POOL = "neuralpile_archive"
"""Steps that read from an archive; times the connections per step, this is the load of the archive."""
LARGE_POOL = "neuralpile_large_sessions"
"""Steps that read and bin sessions so large that a step needs 1 to 2 GB; they read from the archive as well."""
LARGE_TOKENS = 500_000_000
"""Tokens per session, as published, from which a dataset's sessions count as large."""
BATCH_TOKENS = 500_000_000
"""Tokens of a batch of short sessions: half a minute of one core, several times what a run takes to start."""
FEWEST, MOST = 10, 200
"""Sessions of a batch: few of long ones, which workers share; of the shortest, what a run's page can show."""
UNKNOWN = 15
"""Sessions of a batch when their length is unknown."""
LARGE_LIMIT = 2
"""Default limit of `LARGE_POOL`: as many steps as fit a machine with 8 GB."""
HUB_POOL = "neuralpile_hub"
"""Steps that publish."""


def session_pool(dataset: Dataset) -> str:
    """The pool of a dataset's sessions."""
    tokens = _tokens_per_session(dataset)
    return LARGE_POOL if tokens and tokens >= LARGE_TOKENS else ARCHIVE_POOL


def pool_of(kind: AssetKind, dataset: Dataset | None) -> str | None:
    """The pool of a kind of asset."""
    if kind.pool == "sessions" and dataset is not None:
        return session_pool(dataset)
    return {"archive": ARCHIVE_POOL, "sessions": ARCHIVE_POOL, "hub": HUB_POOL}[kind.pool] if kind.pool else None


def batch_size(dataset: Dataset) -> int:
    """Sessions per run of a backfill: short ones share a run's start-up, long ones are spread over workers."""
    tokens = _tokens_per_session(dataset)
    return UNKNOWN if tokens is None else min(max(FEWEST, round(BATCH_TOKENS / tokens)), MOST)


def _tokens_per_session(dataset: Dataset) -> float | None:
    tokens, sessions = dataset.tokens_published, dataset.sessions_due
    return tokens / sessions if tokens and sessions else None


def limit_pools(instance: dg.DagsterInstance) -> None:
    """Set the limits of pools that differ from the instance's default, unless a person has set them.

    Only on one machine, whose memory it is about: an instance of several keeps its events elsewhere than in SQLite,
    and its launcher knows the memory of the workers' machines.
    """
    from neuralpile_dagster.orchestration.private_storage import SqliteEventLogStorage

    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage) and storage.supports_global_concurrency_limits:
        chosen = {limit.name for limit in storage.get_pool_limits() if not limit.from_default}
        if LARGE_POOL not in chosen:
            storage.set_concurrency_slots(LARGE_POOL, LARGE_LIMIT)
