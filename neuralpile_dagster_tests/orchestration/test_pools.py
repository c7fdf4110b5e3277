"""Pools: which steps share one, and their limits."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.orchestration.describe import (
    ARCHIVE_POOL,
    LARGE_LIMIT,
    LARGE_POOL,
    batch_size,
    session_pool,
)
from neuralpile_dagster.orchestration.resources import limit_pools, open_instance
from neuralpile_dagster.settings import Settings

LARGE = {"vbn", "shield", "vcn", "vcn-2", "v2h", "petersen", "oddball", "illusion"}


def test_datasets_of_large_sessions_have_a_pool_of_their_own() -> None:
    pools = {dataset.name: session_pool(dataset) for dataset in RODENT}
    assert {name for name, pool in pools.items() if pool == LARGE_POOL} == LARGE
    assert set(pools.values()) == {LARGE_POOL, ARCHIVE_POOL}


def test_a_new_home_limits_large_sessions_and_keeps_the_limit_that_a_person_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    settings = Settings(tmp_path, str(tmp_path / "store"))

    def limit() -> int:
        with open_instance(settings) as instance:
            return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}[LARGE_POOL]

    assert limit() == LARGE_LIMIT
    with open_instance(settings) as instance:
        instance.event_log_storage.set_concurrency_slots(LARGE_POOL, 7)
    assert limit() == 7


def test_long_sessions_are_shared_among_workers_in_small_batches_and_short_ones_share_a_run() -> None:
    sizes = {dataset.name: batch_size(dataset) for dataset in RODENT}
    assert sizes["vbn"] == sizes["steinmetz"] == 10
    assert sizes["gonzalez"] == 200 >= sizes["giocomo"] > 100 > sizes["finkelstein"] > 10
    assert batch_size(RODENT[0].model_copy(update={"tokens_published": None})) == 15


def test_an_instance_of_several_machines_keeps_its_own_limits() -> None:
    with dg.DagsterInstance.ephemeral() as instance:  # whose events are not in SQLite files either
        limit_pools(instance)
        assert instance.event_log_storage.get_pool_limits() == []
