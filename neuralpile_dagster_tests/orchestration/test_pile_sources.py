"""The pile from the store, back from the hub, and with other people's repositories."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.hub.model import list_folder
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.publishing import publish_pile
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import MICE, House, failure_of, house


def require(result: dg.ExecuteInProcessResult) -> None:
    """The run succeeded, or this says why not."""
    assert result.success, failure_of(result)


def merge(made: House, **config: Any) -> Path:
    """Plan, make and publish the pile; give its folder."""
    ops = {"neural_pile__manifest": {"config": config}} if config else None
    require(made.run(names.PILE_MANIFEST, ops=ops))
    for shard in piles.planned_shards(made.store, made.settings):
        require(made.run(names.PILE_SHARDS, partitions=[shard]))
    require(made.run(names.PILE_HUB_DATASET))
    return made.hub_folder("neural-pile")


def rows_of(folder: Path) -> list[str]:
    """Digests of the files with rows, in order."""
    return [file.sha256 for file in list_folder(folder.resolve()) if file.path.startswith("data/")]


def test_the_pile_has_the_same_bytes_from_the_store_and_from_the_hub(new_house: Callable[..., House]):
    made = new_house()
    made.build()
    from_store = rows_of(merge(made, test_size=0.4, seed=3))
    counted = piles.require_published(made.store, made.settings).token_counts
    shutil.rmtree(made.settings.home / "store" / MICE.key / "spike_counts")
    assert rows_of(merge(made, test_size=0.4, seed=3, merge_from="hub")) == from_store
    assert piles.require_published(made.store, made.settings).token_counts == counted != ()


def publish_again(made: House) -> list[str]:
    """Publish the planned pile again; the lines that it says."""
    lines: list[str] = []
    publish_pile(made.store, made.settings, open_hub(made.settings), {MICE.name: MICE}, lines.append)
    return lines


@pytest.mark.parametrize("merge_from", ["store", "hub"])
def test_values_of_components_that_an_earlier_version_published_are_those_of_their_sessions_records(
    new_house: Callable[..., House], merge_from: str
):
    made = new_house()
    made.build()
    merge(made, split_by="sessions", test_size=0.4, merge_from=merge_from)
    counted = piles.require_published(made.store, made.settings).token_counts
    component = documents.require_published(made.store, MICE, made.settings)
    sessions = [session.model_copy(update={"token_counts": ()}) for session in component.sessions]
    old = component.model_copy(update={"sessions": tuple(sessions)})
    write_record(made.store, documents.published_path(MICE, made.settings), old)
    assert "token_counts" not in json.loads(made.store.read(documents.published_path(MICE, made.settings)) or b"")
    assert not [line for line in publish_again(made) if "counted the values" in line], "no row was decoded"
    assert piles.require_published(made.store, made.settings).token_counts == counted != ()


def test_values_of_sessions_made_again_since_the_plan_are_counted_from_its_rows(new_house: Callable[..., House]):
    made = new_house()
    made.build()
    merge(made, split_by="sessions", test_size=0.4)
    counted = piles.require_published(made.store, made.settings).token_counts
    component = documents.require_published(made.store, MICE, made.settings)
    first, *others = component.sessions
    again = first.model_copy(
        update={"counts": first.counts.model_copy(update={"sha256": "0" * 64}), "token_counts": (first.tokens,)}
    )
    shards = tuple(shard.model_copy(update={"sha256": "0" * 64}) for shard in component.shards)
    newer = component.model_copy(update={"sessions": (again, *others), "shards": shards})
    write_record(made.store, documents.published_path(MICE, made.settings), newer)
    assert len([line for line in publish_again(made) if "counted the values" in line]) == 1
    assert piles.require_published(made.store, made.settings).token_counts == counted


def test_a_repository_of_somebody_else_with_the_row_schema_can_be_merged(new_house: Callable[..., House]):
    made = new_house()
    made.build()
    hub = made.settings.home / "hub"
    theirs = hub / "other-lab" / "their-rats"
    (theirs / "data").mkdir(parents=True)
    for file in (made.hub_folder(MICE.name) / "data").iterdir():
        shutil.copy(file, theirs / "data" / file.name)
    merge(made, extra_repositories=["other-lab/their-rats"], test_size=0.2)
    published = piles.require_published(made.store, made.settings)
    assert published.components == (MICE.name, "their-rats")
    assert sum(shard.rows for shards in published.shards.values() for shard in shards) == 6


def test_a_repository_that_is_not_there_is_named(new_house: Callable[..., House]):
    made = new_house()
    made.build()
    ops = {"neural_pile__manifest": {"config": {"extra_repositories": ["nobody/nothing"]}}}
    result = made.run(names.PILE_MANIFEST, ops=ops)
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
