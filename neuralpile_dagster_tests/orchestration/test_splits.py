"""A pile whose splits stay, from the launchpad to the hub and back: memory, checks, and what a page shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.ledger import piles
from neuralpile_dagster.ledger.splits import earlier_path
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.merge.splits import settings_of, share_of
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.testing.nwb import write_units_nwb
from neuralpile_dagster_tests.fixtures.house import MICE, House, failure_of, house, trains_of

RULES = {"split_by": "sessions", "split_rule": "hash", "test_size": 0.3, "valid_size": 0.2}


def plan(made: House, **config: Any) -> dg.ExecuteInProcessResult:
    return made.run(names.PILE_MANIFEST, ops={"neural_pile__manifest": {"config": config}})


def planned(made: House) -> PilePlan:
    plan_id = piles.require_current(made.store, made.settings).plan_id
    return load_plan(made.store, piles.plan_path(made.settings, plan_id))


def publish(made: House) -> None:
    for shard in piles.planned_shards(made.store, made.settings):
        assert made.run(names.PILE_SHARDS, partitions=[shard]).success
    done = made.run(names.PILE_HUB_DATASET)
    assert done.success, failure_of(done)


def published_splits(made: House) -> dict[str, str]:
    table = pq.read_table(made.hub_folder("neural-pile") / "splits" / "splits.parquet")
    return dict(zip(table["session_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def metadata_of(made: House, key: dg.AssetKey) -> dict[str, Any]:
    event = made.instance.get_latest_materialization_event(key)
    assert event is not None and event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, new_archive: Callable[[], Path]) -> Iterator[House]:
    """A pile of the three sessions, split by hash and published."""
    archive = new_archive()
    with house(tmp_path_factory.mktemp("splits"), archive) as made:
        made.build()
        assert plan(made, **RULES).success
        publish(made)
        yield made


def test_three_sessions_fill_three_splits_and_the_plan_says_which_was_moved(made: House) -> None:
    record = planned(made).record
    splits = published_splits(made)
    assert sorted(splits.values()) == ["test", "train", "valid"]
    u = {session: share_of(0, MICE.name, session) for session in splits}
    due = {session: "test" if u[session] < 0.3 else "valid" if u[session] < 0.5 else "train" for session in u}
    assert {f"{MICE.name}/{s}": splits[s] for s in splits if splits[s] != due[s]} == record.promoted != {}
    shown = metadata_of(made, names.PILE_MANIFEST)
    assert all(name in shown["promoted"] for name in record.promoted)
    table = {row.data["of each split"]: row.data for row in shown["splits"].records}
    assert {table[what]["test"] for what in ("sessions", "subjects", "datasets")} == {"1"}
    assert shown["follows"] == "no published splits of the same seed and rule"
    assert metadata_of(made, names.PILE_HUB_DATASET)["splits"] == shown["splits"]
    card = (made.hub_folder("neural-pile") / "README.md").read_text()
    assert "Moved to a split that would be empty" in card and "data/valid-00000" not in card


def test_a_home_without_a_plan_goes_on_with_the_splits_on_the_hub_when_a_session_comes(
    made: House, new_archive: Callable[[], Path]
) -> None:
    before, earlier = published_splits(made), planned(made).record
    shutil.rmtree(made.settings.home / "store" / "neural_pile")
    extra = made.archive / MICE.source.folder / "sub-B" / "sub-B_ses-4.nwb"
    # the same spikes as the session that is in test
    number = sorted(before).index(next(session for session, split in before.items() if split == "test"))
    write_units_nwb(extra, trains_of(number), subject_id="B")
    made.build()
    assert plan(made, **RULES).success
    record = planned(made).record
    assert record.follows == f"local/neural-pile, plan {earlier.plan_id}"
    assert record.promoted.items() >= earlier.promoted.items()
    publish(made)
    after = published_splits(made)
    assert {session: after[session] for session in before} == before
    assert after["sub-B_ses-4"] == "test"
    kept = pq.read_table(made.settings.home / "store" / earlier_path(made.settings, record.plan_id))
    stated = settings_of(kept)
    assert stated is not None and stated.plan == earlier.digest


def test_what_is_held_out_of_the_pile_is_in_no_row_of_it(made: House) -> None:
    train = next(session for session, split in published_splits(made).items() if split == "train")
    entry = f"session:{MICE.name}/{train}"
    assert plan(made, **{**RULES, "valid_size": 0.0}, hold_out=[entry], held_out_go_to="leave_out").success
    found = set(planned(made).rows["session_id"].to_pylist())
    assert train not in found and found
    shown = metadata_of(made, names.PILE_MANIFEST)
    assert (shown["hold_out"], shown["held_out_go_to"], shown["held_out_sessions"]) == (entry, "leave_out", "1")
    assert piles.plan_config(made.store, made.settings)["neural_pile__manifest"]["config"]["split_rule"] == "hash"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hold_out": ["dataset:rats"]}, "dataset:rats names nothing in this pile.*one of tiny-mice"),
        ({"hold_out": ["benchmark:nothing"]}, "one of bwb_eval"),
        ({"test_size": 0.5, "valid_size": 0.5}, "together less than 1"),
        ({"split_by": "subjects"}, "set split_rule: hash"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(made: House, config: dict[str, Any], message: str) -> None:
    assert re.search(message, failure_of(plan(made, **config)))
