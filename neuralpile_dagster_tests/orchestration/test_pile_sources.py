"""The pile from the store, back from the hub, and with other people's repositories."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.publishing import publish_pile
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.publish.token_counts import as_vector
from neuralpile_dagster.records import PileRecord, TokenCounts
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_MANIFEST, House, copy_of, failure_of
from neuralpile_dagster_tests.fixtures.merging import merge, rows_of


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[dict[str, House]]:
    """Instances with one pile of the mice, from their store and from the hub alone; nobody changes them."""
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(copy_of(first_built, tmp_path_factory.mktemp("merged") / name))
            for name in ("store", "hub")
        }
        for name, instance in made.items():
            counts, elsewhere = instance.store.root / MICE.key / "spike_counts", instance.store.root / "elsewhere"
            if name == "hub":
                counts.rename(elsewhere)
            merge(instance, split_by="sessions", test_size=0.4, seed=3, merge_from=name)
            if name == "hub":
                elsewhere.rename(counts)
        yield made


def token_counts(made: House) -> tuple[TokenCounts, ...]:
    return piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts


def test_the_pile_has_the_same_bytes_from_the_store_and_from_the_hub(merges: dict[str, House]):
    store, hub = merges.values()
    assert len(rows_of(store.hub_folder("neural-pile"))) == 2
    assert rows_of(store.hub_folder("neural-pile")) == rows_of(hub.hub_folder("neural-pile"))
    assert token_counts(store) == token_counts(hub) != ()


def publish_again(made: House) -> list[str]:
    """Publish the planned pile again; the lines that it says."""
    lines: list[str] = []
    publish_pile(made.store, NEURAL_PILE, made.settings, open_hub(made.settings), {MICE.name: MICE}, lines.append)
    return lines


@pytest.mark.parametrize("merge_from", ["store", "hub"])
def test_values_of_components_that_an_earlier_version_published_are_those_of_their_sessions_records(
    merges: dict[str, House], merge_from: str, tmp_path: Path
):
    with copy_of(merges[merge_from], tmp_path / "copy") as made:
        counted = token_counts(made)
        component = documents.require_published(made.store, MICE, made.settings)
        sessions = [session.model_copy(update={"token_counts": ()}) for session in component.sessions]
        old = component.model_copy(update={"sessions": tuple(sessions)})
        write_record(made.store, documents.published_path(MICE, made.settings), old)
        assert "token_counts" not in json.loads(made.store.read(documents.published_path(MICE, made.settings)) or b"")
        assert not [line for line in publish_again(made) if "counted the values" in line], "no row was decoded"
        assert token_counts(made) == counted != ()


def test_values_of_sessions_made_again_since_the_plan_are_counted_from_its_rows(
    merges: dict[str, House], tmp_path: Path
):
    with copy_of(merges["store"], tmp_path / "copy") as made:
        counted = token_counts(made)
        component = documents.require_published(made.store, MICE, made.settings)
        first, *others = component.sessions
        again = first.model_copy(
            update={"counts": first.counts.model_copy(update={"sha256": "0" * 64}), "token_counts": (first.tokens,)}
        )
        shards = tuple(shard.model_copy(update={"sha256": "0" * 64}) for shard in component.shards)
        newer = component.model_copy(update={"sessions": (again, *others), "shards": shards})
        write_record(made.store, documents.published_path(MICE, made.settings), newer)
        assert len([line for line in publish_again(made) if "counted the values" in line]) == 1
        assert token_counts(made) == counted


@pytest.fixture(scope="module")
def with_rats(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """A pile of a name of its own, of the mice and of somebody else's rats."""
    with copy_of(first_built, tmp_path_factory.mktemp("rats") / "copy", pile_name="our-pile") as made:
        theirs = made.settings.home / "hub" / "other-lab" / "their-rats"
        shutil.copytree((made.hub_folder(MICE.name) / "data").resolve(), theirs / "data")
        merge(made, extra_repositories=["other-lab/their-rats"], test_size=0.2)
        yield made


def test_a_repository_of_somebody_else_with_the_row_schema_can_be_merged(with_rats: House):
    published = piles.require_published(with_rats.store, NEURAL_PILE, with_rats.settings)
    assert published.components == (MICE.name, "their-rats")
    assert sum(shard.rows for shards in published.shards.values() for shard in shards) == 6


def test_the_pile_is_published_under_the_name_that_it_is_given(with_rats: House):
    published = piles.require_published(with_rats.store, NEURAL_PILE, with_rats.settings)
    assert published.repository == f"{with_rats.settings.namespace}/our-pile"
    assert (with_rats.hub_folder("our-pile") / "README.md").is_file()
    assert not with_rats.hub_folder("neural-pile").exists()


def their_pile(made: House, hub_name: str = "other-lab/some-pile") -> Path:
    """A pile of another owner: our rows, labelled as two datasets, the last of them in the test split."""
    folder = made.settings.home / "hub" / hub_name
    (folder / "data").mkdir(parents=True)
    ours = made.hub_folder(MICE.name)
    rows = pq.read_table(ours / "data")

    def labelled(table: pa.Table) -> pa.Table:
        labels = pa.array(["aa" if n % 2 else "bb" for n in range(table.num_rows)])
        return table.append_column("source_dataset", labels)

    rows = labelled(rows)
    pq.write_table(rows.slice(0, rows.num_rows - 1), folder / "data" / "train-00000-of-00001.parquet", row_group_size=1)
    pq.write_table(rows.slice(rows.num_rows - 1), folder / "data" / "test-00000-of-00001.parquet", row_group_size=1)
    return folder


def labels_of(folder: Path) -> dict[tuple[str, ...], bytes]:
    """Counts of all rows by source_dataset, session and segment."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "data").resolve().iterdir()))
    ids = zip(*(table[n].to_pylist() for n in ("source_dataset", "session_id", "segment_id")), strict=True)
    counts = (bytes(np.concatenate(row).astype(np.uint8)) for row in table["spike_counts"].to_pylist())
    return dict(zip(ids, counts, strict=True))


def values_of(rows: dict[tuple[str, ...], bytes]) -> dict[str, list[int]]:
    """Tokens of each value, by source_dataset."""
    joined = {name[0]: b"".join(counts for other, counts in rows.items() if other[0] == name[0]) for name in rows}
    return {
        name: np.bincount(np.frombuffer(all_of, np.uint8), minlength=256).tolist() for name, all_of in joined.items()
    }


def counted(published: PileRecord) -> dict[str, list[int]]:
    """The same, of its record."""
    found: dict[str, np.ndarray] = {}
    for part in published.token_counts:
        found[part.source_dataset] = found.get(part.source_dataset, 0) + as_vector(part.counts)
    return {name: vector.tolist() for name, vector in found.items()}


@dataclass(frozen=True)
class Theirs:
    """The mice merged with the pile of another owner, whose rows and sessions are ours under other labels."""

    made: House
    folder: Path
    pile: Path


@pytest.fixture(scope="module", params=[["train"], ["train", "test"]], ids=" and ".join)
def theirs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, first_built: House
) -> Iterator[Theirs]:
    """The mice merged with the train split of another pile, and with both of its splits."""
    with copy_of(first_built, tmp_path_factory.mktemp("theirs") / "copy") as made:
        folder = their_pile(made)
        if "test" in request.param:
            ours = pq.read_table(made.hub_folder(MICE.name) / "sessions" / "sessions.parquet")
            labels = [pa.array([label] * ours.num_rows) for label in ("aa", "bb", "cc")]
            (folder / "sessions").mkdir()
            pq.write_table(
                pa.concat_tables(ours.append_column("source_dataset", label) for label in labels),
                folder / "sessions" / "sessions.parquet",
            )
        extra = {"extra_repositories": ["other-lab/some-pile"], "extra_splits": request.param}
        yield Theirs(made, folder, merge(made, **extra, test_size=0.2))


def test_rows_of_another_pile_keep_their_source_dataset_and_its_test_rows_are_taken_when_asked(theirs: Theirs):
    made, found, expected = theirs.made, labels_of(theirs.pile), labels_of(theirs.folder)
    only_train = not (theirs.folder / "sessions").exists()
    if only_train:
        (last,) = pq.read_table(theirs.folder / "data" / "test-00000-of-00001.parquet").to_pylist()
        del expected[last["source_dataset"], last["session_id"], last["segment_id"]]
    assert {name: counts for name, counts in found.items() if name[0] in ("aa", "bb")} == expected
    assert {name[0] for name in found} == {MICE.name, "aa", "bb"}
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    assert published.components == (MICE.name, "bb", "aa")
    assert counted(published) == values_of(found)
    card = (theirs.pile / "README.md").read_text()
    assert ("rows were left out: bb (test), aa (test)" in card) == only_train
    assert "- aa: see the README of other-lab/some-pile" in card
    plan_id = piles.require_current(made.store, NEURAL_PILE, made.settings).plan_id
    for row in load_plan(made.store, piles.plan_path(NEURAL_PILE, made.settings, plan_id)).rows.to_pylist():
        assert (row["source_dataset"] == MICE.name) == (not row["file"].startswith("hub:"))


@pytest.mark.parametrize("theirs", [["train", "test"]], indirect=True, ids=" and ".join)
def test_sessions_and_units_of_another_pile_come_with_their_source_dataset(theirs: Theirs):
    sessions = pq.read_table(theirs.pile / "sessions" / "sessions.parquet")
    found = sessions.select(["source_dataset", "session_id"]).to_pylist()
    assert sorted({(row["source_dataset"], row["session_id"]) for row in found}) == sorted(
        {name[:2] for name in labels_of(theirs.pile)}
    )
    assert len(found) == len({tuple(row.values()) for row in found})


def test_a_source_dataset_that_two_sources_have_is_refused_by_name(built: House):
    for name in ("lab-1/pile-1", "lab-2/pile-2"):
        their_pile(built, name)
    assert "aa, bb more than once" in refused(built, extra_repositories=["lab-1/pile-1", "lab-2/pile-2"])


@pytest.mark.parametrize("splits", [[], ["validation"]])
def test_splits_that_there_are_not_are_refused(built: House, splits: list[str]):
    assert "extra_splits is invalid" in refused(built, extra_splits=splits)


def test_a_repository_that_is_not_there_is_named(built: House):
    assert "nobody/nothing" in refused(built, extra_repositories=["nobody/nothing"])


def refused(made: House, **config: Any) -> str:
    """Why a pile cannot be planned so."""
    result = made.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": config}})
    assert not result.success
    return failure_of(result)


def test_somebody_elses_repository_of_the_name_of_one_of_ours_is_not_taken_for_ours(built_house: Callable[..., House]):
    made, more = built_house(), MICE.model_copy(update={"name": "more-mice"})
    made.datasets = (MICE, more)
    ours = documents.require_published(made.store, MICE, made.settings)
    named = {"dataset": more.name, "repository": f"{made.settings.namespace}/{more.name}"}
    write_record(made.store, documents.published_path(more, made.settings), ours.model_copy(update=named))
    for folder in (made.hub_folder(more.name), made.settings.home / "hub" / "other-lab" / more.name):
        shutil.copytree((made.hub_folder(MICE.name) / "data").resolve(), folder / "data")
    pile = merge(made, components=[MICE.name], extra_repositories=["other-lab/more-mice"], test_size=0.2)
    assert "Repositories of other owners" in (pile / "README.md").read_text()
