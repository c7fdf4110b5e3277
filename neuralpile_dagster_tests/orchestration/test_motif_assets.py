"""Motifs of a small pile through Dagster: histograms, table, vocabulary, tokens, and what is published of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.load import load_piles
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import motifs as counting
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.ledger.pile_analyses.model import PileTask, PlannedPile, require_planned
from neuralpile_dagster.ledger.pile_analyses.rows import pile_analyses_of
from neuralpile_dagster.ledger.pile_analyses.standing import pile_standings
from neuralpile_dagster.ledger.status import piles_status
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.progress import silent
from neuralpile_dagster.store import write_record
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    PILE_HUB_DATASET,
    PILE_MANIFEST,
    PILE_SHARDS,
    House,
    copy_of,
)

CATALOG = "motif_shapes: [[1, 15]]\nvocabulary_sizes: [40]\n"
KILLED = "20"
"""The bucket whose run is killed."""


@dataclass
class Made:
    """An instance with a published pile and everything that is made of it."""

    house: House
    pile: Pile
    before: dict[str, int]
    """Modification times of what a killed run left."""

    @property
    def of(self) -> PlannedPile:
        return require_planned(self.house.store, self.pile, self.house.datasets, self.house.settings)

    def key(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([self.pile.key, name])

    def folder(self, ending: str) -> Path:
        return self.house.hub_folder(f"neural-pile-{ending}")

    def rows(self, split: str) -> Iterator[np.ndarray]:
        """Counts of the published pile's rows."""
        for path in sorted((self.house.hub_folder("neural-pile") / "data").glob(f"{split}-*")):
            with RowReader(path) as reader:
                yield from (reader.row(number).counts for number in range(reader.n_rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[Made]:
    """A pile of three sessions; a run of its buckets was killed, then all was made as `build --merge` does."""
    with (
        copy_of(first_built, tmp_path_factory.mktemp("motifs") / "copy") as house,
        pytest.MonkeyPatch.context() as patch,
    ):
        (house.settings.home / "catalog.yaml").write_text(CATALOG)
        house.datasets = (MICE.model_copy(update={"motif_shapes": ((1, 15),)}),)
        (pile,) = load_piles(house.settings, house.datasets)
        assert house.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": {"test_size": 0.3}}}).success
        assert house.run(PILE_SHARDS, partitions=piles.planned_shards(house.store, pile, house.settings)).success
        assert house.run(PILE_HUB_DATASET).success
        sessions = sorted(house.made(names.spike_counts_key(MICE)))
        assert house.run(dg.AssetKey([MICE.key, "motifs_1x15"]), partitions=sessions).success
        whole = counting.make_bucket

        def killed(task: counting.MotifTask, folder: str, bucket: str) -> object:
            if bucket == KILLED:
                raise KeyboardInterrupt
            return whole(task, folder, bucket)

        patch.setattr(counting, "make_bucket", killed)
        assert not house.run(dg.AssetKey([pile.key, "motif_buckets_1x15"]), partitions=["16", "31"]).success
        patch.undo()
        before = modified(house.store.root / pile.key / "motif_buckets_1x15")
        launcher = Launcher(house.settings, house.instance, house.job, datasets=house.datasets)
        launcher.made_of(pile)
        assert launcher.outcome.failed == {}
        assert launcher.outcome.warnings == {}
        yield Made(house, pile, before)


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.iterdir())}


def test_a_killed_run_keeps_its_buckets_and_the_others_are_made_after_it(made: Made) -> None:
    assert sorted({name.split(".")[0] for name in made.before}) == ["16", "17", "18", "19"]
    after = modified(made.house.store.root / made.pile.key / "motif_buckets_1x15")
    assert {name: after[name] for name in made.before} == made.before
    standings = pile_standings(made.house.store, made.pile, made.house.datasets, made.house.settings)
    assert [standing.analysis.name for standing in standings if not standing.complete] == []
    lines = piles_status(made.house.store, [made.pile], made.house.datasets, made.house.settings)
    assert "neural-pile motif_buckets_1x15: 64 of 64 done, 0 failed, 0 to do" in lines


def test_the_published_table_is_that_of_a_counter_over_the_pile_that_is_published(made: Made) -> None:
    counted = Counter[bytes]()
    for counts in made.rows("train"):
        for unit in counts:
            padded = np.pad(unit, (0, -len(unit) % 15)).reshape(-1, 15)
            counted.update(patch.tobytes() for patch in padded)
    expected = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    (path,) = (made.folder("1x15") / "data").iterdir()
    table = pq.read_table(path)
    assert table.schema.names[:3] == ["patch", "frequency", "probability"]
    found = [(bytes(row["patch"]), row["frequency"]) for row in table.to_pylist()]
    assert found == expected
    assert sum(table["probability"].to_pylist()) == pytest.approx(1)
    tail = pq.read_table(made.folder("1x15") / "tail" / "tail.parquet").to_pylist()
    assert sum(row["motifs"] for row in tail) == len(expected)
    assert tail[0]["motifs"] == sum(frequency == 1 for frequency in counted.values())


def test_every_check_of_motifs_passed(made: Made) -> None:
    graph = made.house.job.asset_layer.asset_graph
    checks = [key for key in graph.asset_check_keys if key.asset_key.path[-1].startswith(("motifs_", "tokens_"))]
    assert len(checks) > 6
    for key in checks:
        said = made.house.checks(key.asset_key, key.name)
        assert [evaluation.passed for evaluation in said] == [True], key


def test_the_assets_hang_together(made: Made) -> None:
    graph = made.house.job.asset_layer.asset_graph
    parents = {
        key.path[-1]: {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
        if key.path[0] == made.pile.key and "1x15" in key.path[-1]
    }
    assert parents["motif_buckets_1x15"] == {"neural_pile/manifest", "tiny_mice/motifs_1x15"}
    assert parents["motifs_1x15"] == {"neural_pile/motif_buckets_1x15"}
    assert parents["motifs_hub_dataset_1x15"] == {"neural_pile/motifs_1x15", "neural_pile/hub_dataset"}


def test_the_page_of_the_table_shows_its_figure_and_coverage(made: Made) -> None:
    event = made.house.instance.get_latest_materialization_event(made.key("motifs_1x15"))
    assert event is not None
    assert event.asset_materialization is not None
    facts = event.asset_materialization.metadata
    assert str(facts["most_frequent"].value).startswith("![the 16 most frequent motifs](data:image/png;base64,")
    assert len(str(facts["most_frequent"].value)) < 100_000
    coverage = facts["coverage"]
    assert isinstance(coverage, dg.TableMetadataValue)
    assert [dict(record.data) for record in coverage.records] == [
        {"first motifs": str(facts["rows"].value), "share of all patches": "100.000000%"}
    ]


@pytest.fixture(scope="module")
def again(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home with everything of motifs made anew, without Dagster, partitions the other way round."""
    home = tmp_path_factory.mktemp("again") / "home"
    shutil.copytree(made.house.settings.home, home, symlinks=True)
    rows = pile_analyses_of(made.pile)
    for row in rows:
        shutil.rmtree(home / "store" / made.pile.key / row.name)
    hub = LocalHub(home / "hub", "local")
    settings = type(made.house.settings)(home=home, store=str(home / "store"), archive="sample")
    store = type(made.house.store)(home / "store")
    of = require_planned(store, made.pile, made.house.datasets, settings)
    for row in rows:
        for key in reversed(of.keys(row)):
            inputs = row.inputs(of, key)
            assert inputs is not None
            task = PileTask(of, key, row.folder(made.pile, settings), inputs, lambda: hub, silent)
            write_record(store, row.record_key(made.pile, settings, key), row.make(task))  # type: ignore[arg-type]
    return home


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".json")
    }


def test_another_process_and_another_order_give_the_same_bytes(made: Made, again: Path) -> None:
    for row in pile_analyses_of(made.pile):
        folder = Path(made.pile.key) / row.name
        assert contents(again / "store" / folder) == contents(made.house.store.root / folder)
    for name in sorted(path.name for path in (again / "hub" / "local").glob("neural-pile-*")):
        one, other = ((home / "hub" / "local" / name).resolve() for home in (again, made.house.settings.home))
        assert one.name == other.name, "a version is named after its contents"
        assert contents(one) == contents(other)
