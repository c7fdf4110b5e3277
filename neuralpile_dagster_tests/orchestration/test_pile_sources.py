"""The pile from the store, back from the hub, and with other people's repositories."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.hub.model import list_folder
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.publishing import publish_pile
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.publish.token_counts import as_vector
from neuralpile_dagster.records import PileRecord
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    PILE_HUB_DATASET,
    PILE_MANIFEST,
    PILE_SHARDS,
    House,
    failure_of,
    house,
)


def require(result: dg.ExecuteInProcessResult) -> None:
    """The run succeeded, or this says why not."""
    assert result.success, failure_of(result)


def merge(made: House, **config: Any) -> Path:
    """Plan, make and publish the pile; give its folder."""
    ops = {"neural_pile__manifest": {"config": config}} if config else None
    require(made.run(PILE_MANIFEST, ops=ops))
    for shard in piles.planned_shards(made.store, NEURAL_PILE, made.settings):
        require(made.run(PILE_SHARDS, partitions=[shard]))
    require(made.run(PILE_HUB_DATASET))
    return made.hub_folder(made.settings.pile_name)


def rows_of(folder: Path) -> list[str]:
    """Digests of the files with rows, in order."""
    return [file.sha256 for file in list_folder(folder.resolve()) if file.path.startswith("data/")]


def test_the_pile_has_the_same_bytes_from_the_store_and_from_the_hub(built_house: Callable[..., House]):
    made = built_house()
    from_store = rows_of(merge(made, test_size=0.4, seed=3))
    counted = piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts
    shutil.rmtree(made.settings.home / "store" / MICE.key / "spike_counts")
    assert rows_of(merge(made, test_size=0.4, seed=3, merge_from="hub")) == from_store
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts == counted != ()


def publish_again(made: House) -> list[str]:
    """Publish the planned pile again; the lines that it says."""
    lines: list[str] = []
    publish_pile(made.store, NEURAL_PILE, made.settings, open_hub(made.settings), {MICE.name: MICE}, lines.append)
    return lines


@pytest.mark.parametrize("merge_from", ["store", "hub"])
def test_values_of_components_that_an_earlier_version_published_are_those_of_their_sessions_records(
    built_house: Callable[..., House], merge_from: str
):
    made = built_house()
    merge(made, split_by="sessions", test_size=0.4, merge_from=merge_from)
    counted = piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts
    component = documents.require_published(made.store, MICE, made.settings)
    sessions = [session.model_copy(update={"token_counts": ()}) for session in component.sessions]
    old = component.model_copy(update={"sessions": tuple(sessions)})
    write_record(made.store, documents.published_path(MICE, made.settings), old)
    assert "token_counts" not in json.loads(made.store.read(documents.published_path(MICE, made.settings)) or b"")
    assert not [line for line in publish_again(made) if "counted the values" in line], "no row was decoded"
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts == counted != ()


def test_values_of_sessions_made_again_since_the_plan_are_counted_from_its_rows(built_house: Callable[..., House]):
    made = built_house()
    merge(made, split_by="sessions", test_size=0.4)
    counted = piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts
    component = documents.require_published(made.store, MICE, made.settings)
    first, *others = component.sessions
    again = first.model_copy(
        update={"counts": first.counts.model_copy(update={"sha256": "0" * 64}), "token_counts": (first.tokens,)}
    )
    shards = tuple(shard.model_copy(update={"sha256": "0" * 64}) for shard in component.shards)
    newer = component.model_copy(update={"sessions": (again, *others), "shards": shards})
    write_record(made.store, documents.published_path(MICE, made.settings), newer)
    assert len([line for line in publish_again(made) if "counted the values" in line]) == 1
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).token_counts == counted


def test_a_repository_of_somebody_else_with_the_row_schema_can_be_merged(built_house: Callable[..., House]):
    made = built_house()
    hub = made.settings.home / "hub"
    theirs = hub / "other-lab" / "their-rats"
    (theirs / "data").mkdir(parents=True)
    for file in (made.hub_folder(MICE.name) / "data").iterdir():
        shutil.copy(file, theirs / "data" / file.name)
    merge(made, extra_repositories=["other-lab/their-rats"], test_size=0.2)
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    assert published.components == (MICE.name, "their-rats")
    assert sum(shard.rows for shards in published.shards.values() for shard in shards) == 6


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


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_rows_of_another_pile_keep_their_source_dataset_and_its_test_rows_are_taken_when_asked(
    built_house: Callable[..., House], splits: list[str]
):
    made = built_house()
    theirs = their_pile(made)
    pile = merge(made, extra_repositories=["other-lab/some-pile"], extra_splits=splits, test_size=0.2)
    found = labels_of(pile)
    expected = labels_of(theirs)
    if splits == ["train"]:
        (last,) = pq.read_table(theirs / "data" / "test-00000-of-00001.parquet").to_pylist()
        del expected[last["source_dataset"], last["session_id"], last["segment_id"]]
    assert {name: counts for name, counts in found.items() if name[0] in ("aa", "bb")} == expected
    assert {name[0] for name in found} == {MICE.name, "aa", "bb"}
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    assert published.components == (MICE.name, "bb", "aa")
    assert counted(published) == values_of(found)
    card = (pile / "README.md").read_text()
    assert ("rows were left out: bb (test), aa (test)" in card) == (splits == ["train"])
    assert "- aa: see the README of other-lab/some-pile" in card
    plan_id = piles.require_current(made.store, NEURAL_PILE, made.settings).plan_id
    for row in load_plan(made.store, piles.plan_path(NEURAL_PILE, made.settings, plan_id)).rows.to_pylist():
        assert (row["source_dataset"] == MICE.name) == (not row["file"].startswith("hub:"))


def test_sessions_and_units_of_another_pile_come_with_their_source_dataset(built_house: Callable[..., House]):
    made = built_house()
    their_pile(made)
    theirs = made.settings.home / "hub" / "other-lab" / "some-pile"
    sessions = pq.read_table(made.hub_folder(MICE.name) / "sessions" / "sessions.parquet")
    labelled = pa.concat_tables(
        sessions.append_column("source_dataset", pa.array([label] * sessions.num_rows)) for label in ("aa", "bb", "cc")
    )
    (theirs / "sessions").mkdir()
    pq.write_table(labelled, theirs / "sessions" / "sessions.parquet")
    pile = merge(made, extra_repositories=["other-lab/some-pile"], extra_splits=["train", "test"], test_size=0.2)
    found = pq.read_table(pile / "sessions" / "sessions.parquet").select(["source_dataset", "session_id"]).to_pylist()
    assert sorted({(row["source_dataset"], row["session_id"]) for row in found}) == sorted(
        {name[:2] for name in labels_of(pile)}
    )
    assert len(found) == len({tuple(row.values()) for row in found})


def test_a_source_dataset_that_two_sources_have_is_refused_by_name(built_house: Callable[..., House]):
    made = built_house()
    for name in ("lab-1/pile-1", "lab-2/pile-2"):
        their_pile(made, name)
    ops = {"neural_pile__manifest": {"config": {"extra_repositories": ["lab-1/pile-1", "lab-2/pile-2"]}}}
    result = made.run(PILE_MANIFEST, ops=ops)
    assert not result.success
    assert "aa, bb more than once" in failure_of(result)


@pytest.mark.parametrize("splits", [[], ["validation"]])
def test_splits_that_there_are_not_are_refused(built_house: Callable[..., House], splits: list[str]):
    made = built_house()
    result = made.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": {"extra_splits": splits}}})
    assert not result.success
    assert "extra_splits is invalid" in failure_of(result)


def test_the_pile_is_published_under_the_name_that_it_is_given(built_house: Callable[..., House]):
    made = built_house(pile_name="our-pile")
    merge(made, test_size=0.4)
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    assert published.repository == f"{made.settings.namespace}/our-pile"
    assert (made.hub_folder("our-pile") / "README.md").is_file()
    assert not made.hub_folder("neural-pile").exists()


def test_a_repository_that_is_not_there_is_named(built_house: Callable[..., House]):
    made = built_house()
    ops = {"neural_pile__manifest": {"config": {"extra_repositories": ["nobody/nothing"]}}}
    result = made.run(PILE_MANIFEST, ops=ops)
    assert not result.success
    assert "nobody/nothing" in failure_of(result)


def test_somebody_elses_repository_of_the_name_of_one_of_ours_is_not_taken_for_ours(
    tmp_path: Path, new_archive: Callable[[], Path]
):
    more = MICE.model_copy(update={"name": "more-mice"})
    with house(tmp_path, new_archive(), (MICE, more)) as made:
        for dataset in (MICE, more):
            made.build(dataset)
        theirs = made.settings.home / "hub" / "other-lab" / "more-mice" / "data"
        shutil.copytree((made.hub_folder("more-mice") / "data").resolve(), theirs)
        pile = merge(made, components=[MICE.name], extra_repositories=["other-lab/more-mice"], test_size=0.2)
        card = (pile / "README.md").read_text()
    assert "Repositories of other owners" in card
