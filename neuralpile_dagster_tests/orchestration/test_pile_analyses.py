"""The socket for what is made of a planned pile, tried with rows that no pile has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.ledger import documents, kinds, motif_rows
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis, PileTask, PlannedPile
from neuralpile_dagster.ledger.status import PileAnalysisStanding, pile_standings, piles_status
from neuralpile_dagster.merge import plan as planning
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import current_sensor
from neuralpile_dagster.records import Model, StoredFile
from neuralpile_dagster.store import Store, put_file, read_record
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    House,
    copy_of,
    failure_of,
)
from neuralpile_dagster_tests.fixtures.merging import merge, planned_shards


class Spikes(Model):
    """Spikes of a shard, or of all."""

    inputs: str
    files: tuple[StoredFile, ...] = ()
    spikes: int


class Rows:
    """Spikes per shard, their sum, and something in 64 buckets; ``refused`` partitions fail with what is given."""

    def __init__(self) -> None:
        self.refused: dict[str, BaseException] = {}
        self.made: list[str] = []
        self.of_shards = self._row("spikes_of_shards", kinds.PILE_SHARDS, partitions="shards", make=self._of_shard)
        self.total = self._row("spikes_of_all", self.of_shards, make=self._total)
        self.buckets = self._row("spikes_in_buckets", kinds.PILE_MANIFEST, partitions="buckets", make=self._bucket)

    def _row(self, name: str, *upstream: kinds.AssetKind, **facts: Any) -> PileAnalysis:
        def inputs(of: PlannedPile, key: str) -> str | None:
            return hashlib.sha256(f"{name} {of.plan.digest}".encode()).hexdigest()

        return PileAnalysis(
            name=name,
            text="Spikes, for a test",
            badges=frozenset({"json"}),
            version="1",
            upstream=upstream,
            record=Spikes,
            inputs=inputs,
            numbers=lambda record: {"spikes": record.spikes},
            tables=lambda record: {"table": [{"spikes": record.spikes}]},
            says=lambda record: f"{record.spikes} spikes in all",
            per_run=2,
            **facts,
        )

    def _note(self, task: PileTask) -> None:
        if task.key in self.refused:
            raise self.refused[task.key]
        self.made.append(task.key)

    def _of_shard(self, task: PileTask) -> Spikes:
        self._note(task)
        with task.of.store.open(key := task.of.shards[task.key].file.key) as stream, RowReader(stream, key) as reader:
            spikes = sum(int(reader.row(number).counts.sum()) for number in range(reader.n_rows))
        file, _ = put_file(task.of.store, f"{task.path}.txt", lambda path: path.write_text(str(spikes)))
        return Spikes(inputs=task.inputs, files=(file,), spikes=spikes)

    def _total(self, task: PileTask) -> Spikes:
        self._note(task)
        spikes = sum(record.spikes for record in task.of.records(self.of_shards).values())
        return Spikes(inputs=task.inputs, spikes=spikes)

    def _bucket(self, task: PileTask) -> Spikes:
        self._note(task)
        return Spikes(inputs=task.inputs, spikes=0)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Rows of every pile, in this test."""
    made = Rows()
    monkeypatch.setattr(motif_rows, "FAMILIES", (lambda pile: (made.of_shards, made.total),))
    return made


@pytest.fixture(scope="module")
def first_merged(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """An instance with a published pile of three shards, for others to begin with."""
    with (
        copy_of(first_built, tmp_path_factory.mktemp("merged") / "copy") as house,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(planning.plan_pile.__kwdefaults__, "shard_bytes", planning.FILE_OVERHEAD + 1)
        merge(house)
        yield house


@pytest.fixture
def merged(rows: Rows, first_merged: House, tmp_path: Path) -> Iterator[House]:
    """A copy of it, with the rows of this test."""
    with copy_of(first_merged, tmp_path / "copy") as house:
        yield house


def shards_of(house: House) -> list[str]:
    return planned_shards(house.store, NEURAL_PILE, house.settings)


def standings(house: House) -> dict[str, PileAnalysisStanding]:
    found = pile_standings(house.store, NEURAL_PILE, house.datasets, house.settings)
    return {each.analysis.name: each for each in found}


def test_a_partition_that_failed_costs_only_itself_and_is_made_alone_later(merged: House, rows: Rows) -> None:
    shards, asset = shards_of(merged), names.asset_key(NEURAL_PILE, rows.of_shards)
    rows.refused[shards[1]] = StoreError("the disk is loud")
    result = merged.run(asset, partitions=shards)
    assert "1 of 3 partitions of neural-pile spikes_of_shards failed; the others are done" in failure_of(result)
    assert merged.made(asset) == set(shards) - {shards[1]}
    state = standings(merged)["spikes_of_shards"]
    assert (state.done, list(state.failed), state.due) == (2, [shards[1]], {}), "not due until something changes"
    assert standings(merged)["spikes_of_all"].behind == "spikes_of_shards"
    total = merged.run(names.asset_key(NEURAL_PILE, rows.total))
    assert "found: neural_pile/spikes_of_shards is not complete" in failure_of(total)
    lines = piles_status(merged.store, [NEURAL_PILE], merged.datasets, merged.settings)
    assert lines[1:] == [
        "neural-pile spikes_of_shards: 2 of 3 done, 1 failed, 0 to do",
        f"failed neural-pile spikes_of_shards {shards[1]}: the disk is loud.",
        "neural-pile spikes_of_all: 0 done, 0 failed, 1 to do: neural_pile/spikes_of_shards is not complete",
    ]

    rows.refused.clear()
    rows.made.clear()
    again = merged.run(asset, partitions=shards)
    assert again.success
    assert rows.made == [shards[1]]
    facts = [event.materialization.metadata for event in again.all_events if event.is_step_materialization]
    assert [fact["reused"].value for fact in facts] == [True, False, True]
    assert "dagster/uri" in facts[0]
    assert merged.run(names.asset_key(NEURAL_PILE, rows.total)).success
    assert all(state.complete for state in standings(merged).values())
    assert documents.read_failures(merged.store, NEURAL_PILE, merged.settings, "spikes_of_shards") == {}


def test_a_run_that_is_killed_keeps_what_it_made_and_the_next_makes_the_rest(merged: House, rows: Rows) -> None:
    shards, asset = shards_of(merged), names.asset_key(NEURAL_PILE, rows.of_shards)
    rows.refused[shards[1]] = KeyboardInterrupt()
    assert not merged.run(asset, partitions=shards).success
    state = standings(merged)["spikes_of_shards"]
    assert (state.done, set(state.due), state.failed) == (1, set(shards[1:]), {})
    rows.refused.clear()
    assert merged.run(asset, partitions=shards).success
    assert rows.made == shards, "each once"


def test_a_file_that_is_gone_makes_its_partition_due_again(merged: House, rows: Rows) -> None:
    shards, asset = shards_of(merged), names.asset_key(NEURAL_PILE, rows.of_shards)
    assert merged.run(asset, partitions=shards).success
    merged.store.delete(f"neural_pile/spikes_of_shards/{shards[2]}.txt")
    assert set(standings(merged)["spikes_of_shards"].due) == {shards[2]}


def test_the_sensor_asks_for_them_in_order_once_the_pile_is_published(merged: House, rows: Rows) -> None:
    sensor = current_sensor(merged.datasets, [NEURAL_PILE])
    annotations = names.asset_key(MICE, kinds.AssetKind("annotations", "", frozenset(), ""))
    assert merged.run(annotations, partitions=sorted(merged.made(names.spike_counts_key(MICE)))).success
    assert merged.run(names.hub_dataset_key(MICE), checks=False).success
    steps = []
    for _ in range(5):
        resources = {"instance": InstanceResource(merged.settings)}
        with dg.build_sensor_context(merged.instance, resources=resources) as context:
            asked = sensor(context)
        for request in asked.run_requests or () if isinstance(asked, dg.SensorResult) else ():
            selected = cast(list[dg.AssetKey], request.asset_selection)
            job = merged.job.get_subset(asset_selection=set(selected), asset_check_selection=set())
            assert job.execute_in_process(
                instance=merged.instance,
                tags=request.tags,
                run_config={"loggers": {"progress": {}}},
            ).success
            steps.append(selected[0].path[1])
    assert steps == ["hub_dataset", "spikes_of_shards", "spikes_of_shards", "spikes_of_all"], "three shards, two a run"


def test_what_is_made_of_a_pile_is_made_by_a_merge(merged: House, rows: Rows) -> None:
    shards = shards_of(merged)
    rows.refused[shards[0]] = StoreError("the disk is loud")
    launcher = Launcher(merged.settings, merged.instance, merged.job, datasets=merged.datasets)
    launcher.made_of(NEURAL_PILE)
    assert launcher.outcome.failed == {f"neural-pile spikes_of_shards {shards[0]}": "the disk is loud."}
    rows.refused.clear()
    launcher = Launcher(merged.settings, merged.instance, merged.job, datasets=merged.datasets)
    launcher.made_of(NEURAL_PILE)
    assert launcher.outcome.failed == {}
    total = read_record(merged.store, "neural_pile/spikes_of_all/all.json", Spikes)
    assert total is not None
    assert launcher.outcome.made == [f"{total.spikes} spikes in all"]
    assert rows.made == [*shards[1:], shards[0], "all"]


def test_the_job_for_failures_makes_failed_partitions_again(merged: House, rows: Rows) -> None:
    shards, asset = shards_of(merged), names.asset_key(NEURAL_PILE, rows.of_shards)
    rows.refused[shards[1]] = StoreError("the disk is loud")
    assert not merged.run(asset, partitions=shards).success
    rows.refused.clear()
    rows.made.clear()
    job = build_definitions(merged.settings, merged.datasets).resolve_job_def("retry_failed")
    assert job.execute_in_process(instance=merged.instance).success
    assert rows.made == [shards[1]]
    assert merged.made(asset) == set(shards)
    assert standings(merged)["spikes_of_shards"].complete


def test_buckets_are_partitions_that_are_always_there(
    rows: Rows, built: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motif_rows, "FAMILIES", (lambda pile: (rows.buckets,),))
    defined = build_definitions(built.settings, built.datasets).resolve_assets_def(
        names.asset_key(NEURAL_PILE, rows.buckets)
    )
    assert defined.partitions_def is not None
    assert list(defined.partitions_def.get_partition_keys())[::63] == ["00", "63"]
    assert {key.to_user_string() for key in defined.dependency_keys} == {"neural_pile/manifest"}
    assert set(defined.group_names_by_key.values()) == {"neural_pile"}


class NoStore:
    """Fails whoever looks into it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the store's {name} was asked for")


def test_a_pile_without_such_rows_has_no_such_asset_and_costs_nothing(built: House) -> None:
    store = cast(Store, NoStore())
    assert pile_standings(store, NEURAL_PILE, built.datasets, built.settings) == ()
    Launcher(built.settings, built.instance, built.job).made_of(NEURAL_PILE)
    keys = {key for key in built.job.asset_layer.asset_graph.get_all_asset_keys() if key.path[0] == NEURAL_PILE.key}
    assert keys == {names.asset_key(NEURAL_PILE, kind) for kind in kinds.PILE_KINDS}


def test_a_shard_of_an_older_plan_is_refused_and_leaves_no_failure(merged: House, rows: Rows) -> None:
    name = names.shard_partitions(NEURAL_PILE).name
    assert name is not None
    merged.instance.add_dynamic_partitions(name, ["00000000-train-00000"])
    asset = names.asset_key(NEURAL_PILE, rows.of_shards)
    result = merged.run(asset, partitions=["00000000-train-00000"])
    assert "a partition of an older plan" in failure_of(result)
    assert standings(merged)["spikes_of_shards"].failed == {}
