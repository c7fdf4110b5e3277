"""Motifs of a small pile through Dagster: histograms, table, vocabulary, tokens, and what is published of them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from neuralpile_dagster.catalog.load import load_piles
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.checks.motifs import MadeEvidence, read_evidence
from neuralpile_dagster.checks.registry import CHECKS
from neuralpile_dagster.errors import HubError
from neuralpile_dagster.hub import list_folder
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import motifs as counting
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.pile_analyses import ALL, PileAnalysis, PileTask, PlannedPile, require_planned
from neuralpile_dagster.ledger.status import pile_standings, piles_status
from neuralpile_dagster.motifs import Tokenizer, decode, encode
from neuralpile_dagster.motifs import vocabulary as vocabularies
from neuralpile_dagster.motifs.records import VocabularyRecord
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks import latest_event, refusals_of_made, target_of
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.progress import silent
from neuralpile_dagster.store import Store, write_record
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    PILE_HUB_DATASET,
    PILE_MANIFEST,
    PILE_SHARDS,
    House,
    copy_of,
)
from neuralpile_dagster_tests.fixtures.huggingface import hub_for, published, quiet
from neuralpile_dagster_tests.fixtures.merging import planned_shards
from neuralpile_dagster_tests.servers.hf_hub import HubServer

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
        assert house.run(PILE_SHARDS, partitions=planned_shards(house.store, pile, house.settings)).success
        assert house.run(PILE_HUB_DATASET, checks=False).success
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
    assert parents["motif_vocabulary_1x15_40"] == {"neural_pile/motifs_1x15"}
    assert parents["tokens_1x15_40"] == {
        "neural_pile/shards",
        "neural_pile/motif_vocabulary_1x15_40",
        "neural_pile/motif_map_1x15_40",
    }
    assert parents["tokens_hub_dataset_1x15_40"] == {"neural_pile/tokens_1x15_40", "neural_pile/hub_dataset"}


def test_the_ui_calls_nothing_unsynced(made: Made) -> None:
    graph, loading = made.house.job.asset_layer.asset_graph, LoadingContextForTest(made.house.instance)
    stale = CachingStaleStatusResolver(made.house.instance, graph, loading_context=loading)
    found = {}
    for row in pile_analyses_of(made.pile):
        key = made.key(row.name)
        for partition in made.of.keys(row):
            found[row.name, partition] = stale.get_status(key, None if partition == ALL else partition)
    assert {place: status for place, status in found.items() if status != StaleStatus.FRESH} == {}


def test_the_page_of_the_table_shows_its_figure_and_coverage(made: Made) -> None:
    event = made.house.instance.get_latest_materialization_event(made.key("motifs_1x15"))
    assert event is not None
    assert event.asset_materialization is not None
    facts = event.asset_materialization.metadata
    assert str(facts["most_frequent"].value).startswith("![the 16 most frequent motifs](data:image/png;base64,")
    assert len(str(facts["most_frequent"].value)) < 100_000
    assert str(facts["summary"].value).startswith(f"**{facts['motifs'].value} motifs**, ")
    coverage = facts["coverage"]
    assert isinstance(coverage, dg.TableMetadataValue)
    assert [dict(record.data) for record in coverage.records] == [
        {"first motifs": str(facts["rows"].value), "share of all patches": "100.000000%"}
    ]


def test_tokens_decode_to_the_counts_to_the_share_that_the_table_states(made: Made) -> None:
    tokenizer = Tokenizer.load(made.folder("1x15-40"))
    assert tokenizer.bin_width_s == 0.02
    (path,) = (made.folder("1x15") / "data").iterdir()
    stated = sum(pq.read_table(path)["probability"].to_pylist()[:39])
    for split, rows in (("train", 2), ("test", 1)):
        (path,) = (made.folder("1x15-40") / "data").glob(f"{split}-*")
        table, same, patches = pq.read_table(path), 0, 0
        assert table.num_rows == rows
        for row, counts in zip(table.to_pylist(), made.rows(split), strict=True):
            tokens = np.array(row["tokens"], np.uint16)
            assert tokens.shape == (len(counts), -(-counts.shape[1] // 15))
            assert row["n_bins"] == counts.shape[1]
            assert np.array_equal(tokens, encode(counts, tokenizer)), "with the maps and without"
            decoded = decode(tokens, tokenizer, row["n_bins"])
            padding = ((0, 0), (0, -counts.shape[1] % 15))
            whole = decode(tokens, tokenizer, 15 * tokens.shape[1])
            equal = (whole == np.pad(counts, padding)).reshape(*tokens.shape, 15).all(axis=2)
            assert np.array_equal(decoded, whole[:, : counts.shape[1]])
            same, patches = same + int(equal.sum()), patches + equal.size
        if split == "train":
            assert same / patches == pytest.approx(stated, abs=1e-12)
        assert (
            f"| {split} | {rows} | {patches} | {same / patches:.6%} |"
            in (made.folder("1x15-40") / "README.md").read_text()
        )


@pytest.mark.parametrize("ending", ["1x15", "1x15-40"])
def test_the_code_on_a_card_runs(made: Made, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.folder(ending)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names_of_code: dict[str, Any] = {}
    for block in blocks:
        alone: dict[str, Any] = {}
        code = block.replace(f"hf://datasets/local/{folder.name}", str(folder.resolve()))
        exec(compile(code, f"{ending}/README.md", "exec"), alone)
        names_of_code |= alone
    assert "A bin is 20 ms." in (folder / "README.md").read_text()
    if ending == "1x15":
        assert names_of_code["patches"].shape[1:] == (1, 15)
    else:
        assert np.array_equal(names_of_code["decoded"], names_of_code["counts"])
        assert (names_of_code["tokens_of_mine"] == names_of_code["tokenizer"].silent_id).all()
        assert names_of_code["tokenizer"].bin_width_s == 0.02, "so that the width on the card is compared"
        assert "encode(mine, tokenizer, bin_width_s=0.02)" in blocks[0]


@pytest.mark.parametrize("ending", ["1x15", "1x15-40"])
def test_a_hugging_face_hub_takes_the_same_files(made: Made, ending: str, tmp_path: Path) -> None:
    folder = made.folder(ending).resolve()
    with HubServer(tmp_path / "server") as server:
        done = hub_for(server).publish(f"neural-pile-{ending}", folder, quiet)
        assert published(server, f"lab/neural-pile-{ending}").keys() >= contents(folder).keys()
        assert {file.path: file.sha256 for file in done.files} == {
            file.path: file.sha256 for file in list_folder(folder)
        }


def test_a_repository_of_spike_counts_is_not_replaced(made: Made, tmp_path: Path) -> None:
    hub = LocalHub(tmp_path / "hub", "local")
    hub.publish("neural-pile-1x15", made.house.hub_folder("tiny-mice").resolve(), silent)
    before = hub.files("neural-pile-1x15")
    row = next(row for row in pile_analyses_of(made.pile) if row.name == "motifs_hub_dataset_1x15")
    task = PileTask(made.of, "all", "anywhere", "inputs", lambda: hub, silent)
    with pytest.raises(HubError, match="holds spike counts of a dataset"):
        row.make(task)
    assert hub.files("neural-pile-1x15") == before


def test_publications_that_are_gone_from_the_hub_are_published_again(made: Made, tmp_path: Path) -> None:
    repositories = [made.folder(ending) for ending in ("1x15", "1x15-40")]
    before = [contents(repository.resolve()) for repository in repositories]
    for repository in repositories:
        shutil.move(repository.resolve(), tmp_path / repository.name)
        repository.unlink()
    launcher = Launcher(made.house.settings, made.house.instance, made.house.job, datasets=made.house.datasets)
    launcher.made_of(made.pile)
    assert launcher.outcome.failed == {}
    assert [contents(repository.resolve()) for repository in repositories] == before


def test_what_is_published_in_one_hub_is_due_in_another(made: Made) -> None:
    elsewhere = replace(made.house.settings, hub="hf", namespace=made.house.settings.namespace)
    standings = pile_standings(made.house.store, made.pile, made.house.datasets, elsewhere)
    due = {standing.analysis.name for standing in standings if standing.due}
    assert due == {"motifs_hub_dataset_1x15", "tokens_hub_dataset_1x15_40"}


def evidence_of(made: Made, name: str) -> MadeEvidence:
    row = next(row for row in pile_analyses_of(made.pile) if row.name == name)
    return read_evidence(made.of, row, LocalHub(made.house.settings.home / "hub", "local"))


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("motif_frequencies_sum_to_patches", {"patches": 1}),
        ("motif_spikes_conserved", {"spikes": 1}),
        ("motif_table_in_order", {"patches": 1}),
    ],
)
def test_a_table_that_disagrees_with_the_rows_fails_its_check(made: Made, check: str, change: dict[str, int]) -> None:
    evidence = evidence_of(made, "motifs_1x15")
    wrong = {name: getattr(evidence.record, name) + more for name, more in change.items()}
    changed = replace(evidence, record=evidence.record.model_copy(update=wrong))
    assert CHECKS[check].run(evidence).passed
    assert not CHECKS[check].run(changed).passed


def test_nothing_is_made_of_a_table_that_fails_a_blocking_check(made: Made) -> None:
    asset, instance = made.key("motifs_1x15"), made.house.instance

    def judge(passed: bool) -> None:
        verdict = dg.AssetCheckEvaluation(
            asset_key=asset,
            check_name="motif_table_in_order",
            passed=passed,
            metadata={},
            description=None if passed else "expected order, found none",
            target_materialization_data=target_of(latest_event(instance, asset)),
        )
        instance.report_runless_asset_event(verdict)

    judge(passed=False)
    launcher = Launcher(made.house.settings, instance, made.house.job, datasets=made.house.datasets)
    launcher.made_of(made.pile)
    assert launcher.outcome.failed == {"neural_pile/motifs_1x15 motif_table_in_order": "expected order, found none"}
    assert launcher.outcome.made == []
    judge(passed=True)
    (row,) = (row for row in pile_analyses_of(made.pile) if row.name == "motifs_1x15")
    assert refusals_of_made(instance, made.pile, row) == {}


def test_histograms_with_other_silence_fail_their_check(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = evidence_of(made, "motifs_1x15")
    monkeypatch.setattr("neuralpile_dagster.motifs.histogram.count_silent", lambda counts, shape: 1)
    verdict = CHECKS["silence_counted_again"].run(evidence)
    assert "1 instead of" in verdict.found
    assert not verdict.passed


def test_tokens_of_another_vocabulary_fail_their_checks(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = evidence_of(made, "tokens_hub_dataset_1x15_40")
    records = PlannedPile.records

    def fewer(of: PlannedPile, row: PileAnalysis) -> dict[str, Any]:
        found = records(of, row).items()
        return {key: record.model_copy(update={"exact_tokens": record.exact_tokens - 1}) for key, record in found}

    monkeypatch.setattr(PlannedPile, "records", fewer)
    assert not CHECKS["lossless_share_as_stated"].run(evidence).passed
    monkeypatch.undo()
    read = vocabularies.read_vocabulary

    def turned(store: Store, record: VocabularyRecord) -> vocabularies.Vocabulary:
        known = read(store, record)
        return replace(known, patches=np.roll(known.patches, 1, axis=0))

    monkeypatch.setattr(vocabularies, "read_vocabulary", turned)
    verdict = CHECKS["tokens_decode_to_counts"].run(evidence)
    assert "patches of the vocabulary decode to another patch" in verdict.found
    assert not verdict.passed


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
    """Files but records, which say when."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".json")
    }


def test_another_order_of_partitions_gives_the_same_bytes(made: Made, again: Path) -> None:
    for row in pile_analyses_of(made.pile):
        folder = Path(made.pile.key) / row.name
        assert contents(again / "store" / folder) == contents(made.house.store.root / folder)
    for name in sorted(path.name for path in (again / "hub" / "local").glob("neural-pile-*")):
        one, other = ((home / "hub" / "local" / name).resolve() for home in (again, made.house.settings.home))
        assert one.name == other.name, "a version is named after its contents"
        assert contents(one) == contents(other)
