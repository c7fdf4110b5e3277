"""Buckets and table of a pile hold the motifs of the rows that it trains on, and of no others."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import ConfigurationError, MergeError, TableError
from neuralpile_dagster.files import sha256_of
from neuralpile_dagster.ledger.analyses import AnalysisTask, analysis_inputs, motif_analysis
from neuralpile_dagster.ledger.motifs import MotifTask, make_bucket, make_table, trained_numbers
from neuralpile_dagster.merge.model import PilePlan, SourceFile
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.sources import PileSource, source_from_parquet
from neuralpile_dagster.motifs.counts import bucket_of_keys, bucket_of_patches, keys_of
from neuralpile_dagster.motifs.histogram import count_silent
from neuralpile_dagster.motifs.records import BUCKETS, MotifShape, TableRecord
from neuralpile_dagster.motifs.table import read_bucket, read_top
from neuralpile_dagster.records import CountsRecord, SplitRules
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, write_record
from neuralpile_dagster.tables.rows import Row, read_counts
from neuralpile_dagster.tables.schemas import PILE_SCHEMA
from neuralpile_dagster_tests.fixtures.components import hash_of, source_from_records, store_session
from neuralpile_dagster_tests.fixtures.motifs import as_counter, oracle
from neuralpile_dagster_tests.fixtures.row_files import synthetic_rows, write_foreign
from neuralpile_dagster_tests.fixtures.sessions import DATASET, manifest_of

SHAPE = MotifShape(1, 15)
SOME = BUCKETS[5:11]
NUMBERS = count()
LENGTHS = {"mice": [3, 1, 7, 2, 4], "rats": [5, 6, 1]}
FOREIGN = "hub:somebody/other-pile:data/train-00000.parquet"


@dataclass
class World:
    """Two components in a store with their histograms, and the rows of another owner's repository."""

    folder: Path
    shape: MotifShape = SHAPE
    records: dict[str, list[CountsRecord]] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "store")
        self.settings = Settings(home=self.folder, store=str(self.store.root))
        for name, lengths in LENGTHS.items():
            self.records[name] = [self._session(name, number, length) for number, length in enumerate(lengths)]
        foreign = synthetic_rows(9, seed=77, session="ses-x", subject="sub-x")
        foreign[4].counts.reshape(-1)[:2] = (16, 255)
        path = write_foreign(self.folder / "other.parquet", foreign, PILE_SCHEMA, rows_per_group=4)
        self.foreign = SourceFile(name=FOREIGN, size=path.stat().st_size, sha256=sha256_of(path))
        self.rows[FOREIGN] = foreign

    def _session(self, name: str, number: int, length: int) -> CountsRecord:
        rows = synthetic_rows(length, hash_of(name, number), f"ses-{number}", f"sub-{number % 2}")
        rows[0].counts.reshape(-1)[0] = 100 + number  # of no key
        key = f"{name}/spike_counts/ses-{number}"
        record = store_session(self.store, key, rows)
        kept = sum(int(row.counts.sum()) for row in rows)
        record = record.model_copy(update={"stats": record.stats.model_copy(update={"spikes_kept": kept})})
        write_record(self.store, f"{key}.json", record)
        self.rows[record.file.key] = rows
        self.count(name, f"ses-{number}", record)
        return record

    def count(self, name: str, key: str, counts: CountsRecord) -> None:
        """Make a session's histogram as its batch does."""
        dataset, analysis = DATASET.model_copy(update={"name": name}), motif_analysis(self.shape)
        (session,) = manifest_of(key).sessions
        inputs = analysis_inputs(analysis, dataset, session, counts)
        assert inputs is not None
        folder = analysis.folder(dataset, self.settings)
        files: Any = None
        task = AnalysisTask(self.store, dataset, self.settings, session, folder, inputs, counts, files)
        write_record(self.store, analysis.record_key(dataset, self.settings, key), analysis.make(task))

    def open_file(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self.folder / "other.parquet")) if name == FOREIGN else self.store.open(name)

    def sources(self, foreign: bool = False) -> list[PileSource]:
        ours = [source_from_records(name, records) for name, records in self.records.items()]
        return [*ours, source_from_parquet("somebody/other-pile", [self.foreign], self.open_file)] if foreign else ours

    def task(self, plan: PilePlan) -> MotifTask:
        return MotifTask(self.store, NEURAL_PILE, self.settings, self.shape, plan, self.open_file)

    def trained(self, plan: PilePlan) -> list[np.ndarray]:
        columns = (plan.rows[name].to_pylist() for name in ("split", "file", "row"))
        return [self.rows[file][row].counts for split, file, row in zip(*columns, strict=True) if split == "train"]

    def copied_to(self, folder: Path) -> World:
        """An equal world of its own."""
        other = copy.copy(self)
        other.folder, other.store = shutil.copytree(self.folder, folder), LocalStore(folder / "store")
        other.settings, other.rows = Settings(home=folder, store=str(other.store.root)), dict(self.rows)
        return other


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, PilePlan]:
    """A world with all buckets of a plan; not to be changed."""
    world = World(tmp_path_factory.mktemp("motifs"))
    plan = plan_pile(world.sources(foreign=True), seed=5, test_size=0.2)
    summed(world, plan, BUCKETS)
    return world, plan


@pytest.fixture
def world(whole: tuple[World, PilePlan], tmp_path: Path) -> World:
    """One to change."""
    return whole[0].copied_to(tmp_path / "world")


def summed(world: World, plan: PilePlan, buckets: Sequence[str]) -> Counter[bytes]:
    """Some buckets of a plan."""
    task = world.task(plan)
    records = [make_bucket(task, "buckets", bucket) for bucket in buckets]
    return as_counter(part for r in records for part in read_bucket(world.store, r.file, world.shape))


def expected_in(world: World, plan: PilePlan, buckets: Sequence[str]) -> Counter[bytes]:
    """The motifs of some buckets, by a Counter."""
    found = oracle(world.trained(plan), world.shape)
    del found[bytes(world.shape.cells)]
    return Counter({patch: n for patch, n in found.items() if BUCKETS[bucket_of(patch, world.shape)] in buckets})


def bucket_of(patch: bytes, shape: MotifShape) -> int:
    cells = np.frombuffer(patch, np.uint8)[None]
    with_key = shape.has_keys and cells.max() <= 15
    return int((bucket_of_keys(keys_of(cells)) if with_key else bucket_of_patches(cells))[0])


HELD_OUT = {("mice", "sub-0", "ses-2"), ("rats", "sub-1", "ses-1")}
PLANS: dict[str, dict[str, Any]] = {
    "rows": {"split_by": "rows", "test_size": 0.2},
    "sessions": {"split_by": "sessions", "test_size": 0.3},
    "rows, with valid": {"split_by": "rows", "test_size": 0.2, "rules": SplitRules(valid_size=0.3)},
    "hash, sessions left out": {
        "split_by": "rows",
        "test_size": 0.2,
        "rules": SplitRules(split_rule="hash", hold_out=("session:*",), held_out_go_to="leave_out"),
        "held_out": HELD_OUT,
    },
}


@pytest.mark.parametrize(("name", "foreign"), list(zip(PLANS, [False, False, True, True], strict=True)))
def test_the_buckets_hold_the_motifs_of_the_rows_in_train(world: World, name: str, foreign: bool):
    plan = plan_pile(world.sources(foreign), seed=5, **PLANS[name])
    assert summed(world, plan, SOME) == expected_in(world, plan, SOME)
    expected = oracle(world.trained(plan), SHAPE)
    silent = expected.pop(bytes(15))
    found = trained_numbers(world.task(plan))
    assert found.silent == silent == sum(count_silent(row, SHAPE) for row in world.trained(plan))
    assert found.patches == found.expected_patches == expected.total() + silent
    assert found.spikes == found.expected_spikes == sum(int(row.sum()) for row in world.trained(plan))
    assert (found.rows, found.tokens) == (plan.record.splits["train"].rows, plan.record.splits["train"].tokens)


def test_all_buckets_together_hold_every_motif(whole: tuple[World, PilePlan]):
    world, plan = whole
    assert summed(world, plan, BUCKETS) == expected_in(world, plan, BUCKETS)


def test_shapes_without_keys_are_summed_as_well(tmp_path: Path):
    world = World(tmp_path, MotifShape(2, 10))
    plan = plan_pile(world.sources(foreign=True), seed=5, test_size=0.3)
    assert summed(world, plan, SOME) == expected_in(world, plan, SOME)


def test_what_is_read_back_from_the_hub_is_counted_from_there(world: World):
    files = {f"hub:local/mice:{name}": record.file for name, record in enumerate(world.records["mice"])}
    listed = [SourceFile(name=name, size=file.size, sha256=file.sha256) for name, file in files.items()]
    world.rows |= {name: world.rows[file.key] for name, file in files.items()}
    opener = world.open_file

    def open_file(name: str) -> pa.NativeFile:
        return opener(files[name].key if name in files else name)

    world.open_file = open_file  # type: ignore[method-assign]
    sources = [source_from_parquet("local/mice", listed, open_file), source_from_records("rats", world.records["rats"])]
    plan = plan_pile(sources, seed=1, test_size=0.2)
    for record in world.records["mice"]:
        world.store.delete(f"mice/motifs_1x15/{record.session_id}.json")
    assert summed(world, plan, SOME) == expected_in(world, plan, SOME)


def test_any_order_and_number_of_workers_give_the_same_bytes(whole: tuple[World, PilePlan], tmp_path: Path):
    (alone, plan), others = whole, whole[0].copied_to(tmp_path / "others")
    for key in [*others.store.keys("buckets"), *others.store.keys("neural_pile")]:
        others.store.delete(key)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda bucket: make_bucket(others.task(plan), "buckets", bucket), reversed(SOME)))
    assert len(list(others.store.keys("buckets"))) == 2 * len(SOME)
    for key in [*others.store.keys("buckets"), *others.store.keys("neural_pile")]:
        assert others.store.read(key) == alone.store.read(key)


def test_what_is_current_is_not_made_again_and_single_rows_serve_later_plans(world: World):
    plan = plan_pile(world.sources(foreign=True), seed=5, test_size=0.2)
    world.open_file = lambda name: pytest.fail(f"{name} was opened")  # type: ignore[method-assign]
    made = (world.store.root / "buckets/07.parquet").stat()
    assert make_bucket(world.task(plan), "buckets", "07").bucket == 7
    assert (world.store.root / "buckets/07.parquet").stat() == made
    later = replace(plan, record=plan.record.model_copy(update={"digest": "of a later plan"}))
    assert (
        make_bucket(world.task(later), "buckets", "08").inputs != make_bucket(world.task(plan), "buckets", "09").inputs
    )


def test_a_session_without_a_histogram_is_named(world: World):
    plan = plan_pile(world.sources(), seed=5, test_size=0.2)
    world.store.delete("rats/motifs_1x15/ses-1.json")
    with pytest.raises(
        ConfigurationError,
        match=r"the motifs \(1x15\) of session ses-1 of rats are missing; .* materialize rats/motifs_1x15 of that",
    ):
        make_bucket(world.task(plan), "buckets", "00")


def test_a_session_whose_histogram_is_of_other_counts_is_named(world: World):
    plan = plan_pile(world.sources(), seed=5, test_size=0.2)
    world._session("rats", 1, 2)
    with pytest.raises(
        ConfigurationError,
        match=rf"session ses-1 of rats are not those of the counts in the plan {plan.record.plan_id}; "
        r".*newer than the plan, neural_pile/manifest first",
    ):
        make_bucket(world.task(plan), "buckets", "00")


def test_a_foreign_file_that_changed_is_refused(world: World):
    plan = plan_pile(world.sources(foreign=True), seed=8, test_size=0.2)
    path = world.folder / "other.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(MergeError, match=r"other-pile:data/train-00000.parquet has changed since the pile was planned"):
        make_bucket(world.task(plan), "buckets", "00")


def test_counts_that_are_not_what_their_record_says_have_no_histogram(world: World):
    record = world.records["mice"][0]
    wrong = record.model_copy(update={"stats": record.stats.model_copy(update={"spikes_kept": 3})})
    with pytest.raises(TableError, match=r"ses-0.parquet does not hold what its record says; .* expected: 3 spikes"):
        world.count("mice", "ses-0", wrong)


def test_a_table_waits_for_all_buckets_of_its_plan(world: World):
    plan = plan_pile(world.sources(foreign=True), seed=5, test_size=0.2)
    other = plan_pile(world.sources(), seed=6, test_size=0.2)
    make_bucket(world.task(other), "buckets", "03")
    with pytest.raises(
        ConfigurationError,
        match=r"1 of 64 buckets missing or of another plan, e.g. 03; .* materialize neural_pile/motif_buckets_1x15",
    ):
        make_table(world.task(plan), "table", "buckets", 10)


@pytest.fixture
def tabled(whole: tuple[World, PilePlan]) -> Callable[[int], tuple[TableRecord, list[dict[str, Any]], Counter[bytes]]]:
    """Makes a table of so many rows; gives its record, its rows, and all motifs with silence."""
    world, plan = whole

    def make(top: int) -> tuple[TableRecord, list[dict[str, Any]], Counter[bytes]]:
        record = make_table(world.task(plan), f"tables/{next(NUMBERS)}", "buckets", top)
        with world.store.open(record.file.key) as file:
            return record, pq.read_table(file).to_pylist(), oracle(world.trained(plan), SHAPE)

    return make


@pytest.mark.parametrize("top", [1, 2, 30, 150, 400, 100_000])
def test_the_table_is_in_order_of_frequency_and_then_of_bytes(tabled: Any, top: int):
    record, rows, expected = tabled(top)
    order = sorted(expected.items(), key=lambda motif: (-motif[1], motif[0]))[:top]
    assert [(bytes(row["patch"]), row["frequency"]) for row in rows] == order
    assert [row["probability"] for row in rows] == [count / expected.total() for _, count in order]
    assert (record.rows, record.motifs, record.patches) == (len(order), len(expected), expected.total())
    assert record.silent == expected[bytes(15)]
    assert record.spikes == sum(sum(patch) * count for patch, count in expected.items())


def test_the_tail_holds_every_motif_by_its_frequency(whole: tuple[World, PilePlan], tabled: Any):
    record, _, expected = tabled(5)
    with whole[0].store.open(record.tail_file.key) as file:
        tail = pq.read_table(file).to_pylist()
    assert [(row["least_frequency"], row["greatest_frequency"]) for row in tail][:4] == [
        (1, 1),
        (2, 2),
        (3, 10),
        (11, 100),
    ]
    for row in tail:
        inside = [n for n in expected.values() if row["least_frequency"] <= n <= row["greatest_frequency"]]
        assert (row["motifs"], row["patches"]) == (len(inside), sum(inside))
        assert row["probability"] == sum(inside) / expected.total()
    assert sum(row["motifs"] for row in tail) == len(expected)
    assert sum(row["patches"] for row in tail) == expected.total()


def test_coverage_is_the_share_of_the_first_motifs_as_far_as_the_table_goes(
    monkeypatch: pytest.MonkeyPatch, tabled: Any
):
    monkeypatch.setattr("neuralpile_dagster.motifs.table.COVERAGE", (1, 3, 20, 10**6))
    record, _, expected = tabled(100_000)
    ordered = sorted(expected.values(), reverse=True)
    shares = [(n, pytest.approx(sum(ordered[:n]) / expected.total())) for n in (1, 3, 20, 10**6)]
    assert list(record.coverage) == shares
    assert list(tabled(19)[0].coverage) == shares[:2]


def test_the_first_motifs_are_read_for_the_figure(whole: tuple[World, PilePlan], tabled: Any):
    record, rows, _ = tabled(1_000)
    patches, frequencies, probabilities = read_top(whole[0].store, record, 16)
    assert patches.shape == (16, 1, 15)
    assert patches.reshape(16, 15).tolist() == [row["patch"] for row in rows[:16]]
    assert frequencies.tolist() == [row["frequency"] for row in rows[:16]]
    assert probabilities.tolist() == [row["probability"] for row in rows[:16]]


def rows_of(path: Path, rows: list[int]) -> Iterator[list[list[int]]]:
    with pa.OSFile(str(path)) as file:
        yield from (counts.tolist() for counts in read_counts(file, path.name, rows))


def test_rows_of_a_foreign_file_are_read_by_number(world: World):
    expected = [row.counts.tolist() for row in world.rows[FOREIGN]]
    path = world.folder / "other.parquet"
    assert list(rows_of(path, [8, 0, 5])) == [expected[0], expected[5], expected[8]]
    with pytest.raises(TableError, match=r"other.parquet has no such rows; found: 9 rows"):
        list(rows_of(path, [9]))
