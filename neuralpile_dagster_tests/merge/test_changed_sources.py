"""A shard is written from the rows that were planned, or not at all; nothing made for another plan is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.shards import PileShard, build_shard, write_shard
from neuralpile_dagster.store import read_record, write_record
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster_tests.fixtures.components import source_from_records, store_session, stored, three_components


def rows_of(lengths: list[int], seed: int = 0) -> list[Row]:
    """Rows of one session of four units, with so many bins each."""
    rng = np.random.default_rng(seed)
    counts = [rng.poisson(0.4, (4, n_bins)).astype(np.uint8) for n_bins in lengths]
    return [Row(each, "sub-1", "ses-1", f"segment_{number}") for number, each in enumerate(counts)]


def test_a_source_with_other_counts_is_refused_though_its_ids_and_tokens_are_the_same(tmp_path: Path):
    store = stored(tmp_path)
    rows = rows_of([200, 100, 150])
    planned = store_session(store, "a/1", rows)
    plan = plan_pile([source_from_records("a", [planned])], seed=0, test_size=0.2)
    again = store_session(store, "a/1", [replace(row, counts=np.zeros_like(row.counts)) for row in rows])
    assert again.file.size != planned.file.size
    for shard in plan.record.shards:
        with pytest.raises(MergeError, match=r"a/1\.parquet has changed since the pile was planned"):
            write_shard(plan, shard.name, store.open, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_source_with_its_rows_in_another_order_is_refused_though_its_ids_and_size_are_the_same(tmp_path: Path):
    store = stored(tmp_path)
    rows = rows_of([200, 100, 150, 120])
    planned = store_session(store, "a/1", rows)
    plan = plan_pile([source_from_records("a", [planned])], seed=0, test_size=0.2)
    again = store_session(store, "a/1", [rows[1], rows[0], rows[3], rows[2]])
    assert again.file.size == planned.file.size
    for shard in plan.record.shards:
        with pytest.raises(MergeError, match=r"a/1\.parquet has changed since the pile was planned"):
            write_shard(plan, shard.name, store.open, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_shard_that_was_made_for_another_plan_is_written_again(tmp_path: Path):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=0, test_size=0.2, shard_bytes=60_000)
    name = plan.record.shards[0].name
    made = build_shard(store, "shards", plan, name, store.open)
    theirs = made.model_copy(update={"inputs": "of another plan"})
    write_record(store, f"shards/{name}.json", theirs)
    assert build_shard(store, "shards", plan, name, store.open) == made
    assert read_record(store, f"shards/{name}.json", PileShard) == made
