"""Batches of shards: a broken one costs only itself, what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import StoreUnavailable
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.merge import plan as planning
from neuralpile_dagster.merge.shards import PileShard
from neuralpile_dagster.store import LocalStore, read_record
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_MANIFEST, PILE_SHARDS, SESSIONS, House, failure_of
from neuralpile_dagster_tests.fixtures.merging import planned_shards


@pytest.fixture
def planned(built_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> House:
    """An instance with a planned pile of three shards, each of one session's row."""
    monkeypatch.setitem(planning.plan_pile.__kwdefaults__, "shard_bytes", planning.FILE_OVERHEAD + 1)
    house = built_house()
    assert house.run(PILE_MANIFEST).success
    return house


def test_one_shard_whose_source_is_gone_costs_only_itself(planned: House) -> None:
    shards = planned_shards(planned.store, NEURAL_PILE, planned.settings)
    assert len(shards) == 3
    source = planned.store.root / documents.counts_folder(MICE, planned.settings) / f"{SESSIONS[1]}.parquet"
    hidden = source.rename(source.with_suffix(".away"))

    result = planned.run(PILE_SHARDS, partitions=shards)
    assert not result.success
    made = planned.made(PILE_SHARDS)
    (failed,) = set(shards) - made
    assert "1 of 3 shards of neural-pile failed; the others are done" in failure_of(result)
    assert f"{failed}: " in failure_of(result)
    assert source.name in failure_of(result)

    written = {name: shard_file(planned, name).stat().st_mtime_ns for name in made}
    hidden.rename(source)
    assert planned.run(PILE_SHARDS, partitions=shards).success
    assert planned.made(PILE_SHARDS) == set(shards)
    assert {name: shard_file(planned, name).stat().st_mtime_ns for name in made} == written


def test_a_store_that_is_away_for_a_moment_costs_a_shard_another_try(
    planned: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = planned_shards(planned.store, NEURAL_PILE, planned.settings)
    counts, reading, tried = documents.counts_folder(MICE, planned.settings), LocalStore.open, []

    def open_later(store: LocalStore, key: str) -> pa.NativeFile:
        if key.startswith(counts):
            tried.append(key)
            if len(tried) == 1:
                raise StoreUnavailable(f"{key} cannot be read", remedy="wait")
        return reading(store, key)

    monkeypatch.setattr(LocalStore, "open", open_later)
    result = planned.run(PILE_SHARDS, partitions=shards)
    assert result.success
    said = [entry.user_message for entry in planned.instance.all_logs(result.run_id)]
    assert [line.split(": ")[0] for line in said if "Trying again" in line] == [f"shard {shards[0]}"]


def test_a_shard_is_recorded_with_the_digest_of_its_file_as_data_version(planned: House) -> None:
    shards = planned_shards(planned.store, NEURAL_PILE, planned.settings)
    result = planned.run(PILE_SHARDS, partitions=shards)
    made = [event.materialization for event in result.all_events if event.is_step_materialization]
    assert [event.partition for event in made] == shards  # each once
    for event in made:
        record = shard_record(planned, str(event.partition))
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == record.file.sha256[:32]
        assert event.tags["dagster/input_data_version/neural_pile/manifest"] == record.inputs
        assert event.metadata["source_version"].value == record.inputs
        assert event.metadata["rows_of_components"].value == {MICE.name: 1}
        assert "dagster/column_schema" in event.metadata


def shard_record(house: House, name: str) -> PileShard:
    folder = piles.shards_folder(NEURAL_PILE, house.settings, name.split("-")[0])
    record = read_record(house.store, f"{folder}/{name}.json", PileShard)
    assert record is not None
    return record


def shard_file(house: House, name: str) -> Path:
    return house.store.root / shard_record(house, name).file.key
