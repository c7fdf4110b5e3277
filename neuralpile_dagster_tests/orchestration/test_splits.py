"""A pile whose splits stay, from the launchpad to the hub and back: memory, checks, and what a page shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.benchmarks import load_benchmarks
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.checks import pile as checks
from neuralpile_dagster.checks.registry import CHECKS
from neuralpile_dagster.cli import main
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.ledger.splits import read_earlier_splits
from neuralpile_dagster.merge.model import PilePlan, PlanRecord, settings_of
from neuralpile_dagster.merge.plan import load_plan, plan_pile
from neuralpile_dagster.merge.splits import share_of
from neuralpile_dagster.orchestration import launch
from neuralpile_dagster.orchestration.assets.pile import PileConfig
from neuralpile_dagster.orchestration.checks import results
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.runs import Outcome
from neuralpile_dagster.records import HeldOutGoTo, Order, SplitBy, SplitRule
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    PILE_HUB_DATASET,
    PILE_MANIFEST,
    PILE_SHARDS,
    House,
    copy_of,
    failure_of,
    neuralpile,
    trains_of,
)
from neuralpile_dagster_tests.fixtures.merging import planned_shards
from neuralpile_dagster_tests.merge.test_plan import source
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

RULES = {"split_by": "sessions", "split_rule": "hash", "test_size": 0.3, "valid_size": 0.2}


def plan(made: House, **config: Any) -> dg.ExecuteInProcessResult:
    return made.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": config}})


def planned(made: House) -> PilePlan:
    plan_id = piles.require_current(made.store, NEURAL_PILE, made.settings).plan_id
    return load_plan(made.store, piles.plan_path(NEURAL_PILE, made.settings, plan_id))


def publish(made: House, checks: bool = False) -> None:
    assert made.run(PILE_SHARDS, partitions=planned_shards(made.store, NEURAL_PILE, made.settings)).success
    done = made.run(PILE_HUB_DATASET, checks=checks)
    assert done.success, failure_of(done)


def published_splits(made: House) -> dict[str, str]:
    table = pq.read_table(made.hub_folder("neural-pile") / "splits" / "splits.parquet")
    return dict(zip(table["session_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def metadata_of(made: House, key: dg.AssetKey) -> dict[str, Any]:
    event = made.instance.get_latest_materialization_event(key)
    assert event is not None and event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """A pile of the three sessions, split by hash and published."""
    with copy_of(first_built, tmp_path_factory.mktemp("splits") / "copy") as made:
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
    shown = metadata_of(made, PILE_MANIFEST)
    assert all(name in shown["promoted"] for name in record.promoted)
    table = {row.data["of each split"]: row.data for row in shown["splits"].records}
    assert {table[what]["test"] for what in ("sessions", "subjects", "datasets")} == {"1"}
    assert shown["follows"] == "no published splits of the same seed and rule"
    assert metadata_of(made, PILE_HUB_DATASET)["splits"] == shown["splits"]
    card = (made.hub_folder("neural-pile") / "README.md").read_text()
    assert "Moved to a split that would be empty" in card and "data/valid-00000" not in card


@dataclass(frozen=True)
class Grown:
    """The pile after a twin of its test session came and the home lost its plan; ``before``, ``earlier``: as it was."""

    made: House
    before: dict[str, str]
    earlier: PlanRecord


@pytest.fixture(scope="module")
def grown(made: House) -> Grown:
    before, earlier = published_splits(made), planned(made).record
    shutil.rmtree(made.settings.home / "store" / "neural_pile")
    extra = made.archive / MICE.source.folder / "sub-B" / "sub-B_ses-4.nwb"
    # the same spikes as the session that is in test
    number = sorted(before).index(next(session for session, split in before.items() if split == "test"))
    write_units_nwb(extra, trains_of(number), subject_id="B")
    made.discover()
    assert made.batch([extra.stem]).success
    assert made.publish(checks=False).success
    assert plan(made, **RULES).success
    publish(made, checks=True)
    return Grown(made, before, earlier)


def test_a_home_without_a_plan_goes_on_with_the_splits_on_the_hub_when_a_session_comes(grown: Grown) -> None:
    made, before, earlier = grown.made, grown.before, grown.earlier
    record = planned(made).record
    assert record.follows == f"local/neural-pile, plan {earlier.plan_id}"
    assert record.promoted.items() >= earlier.promoted.items()
    after = published_splits(made)
    assert {session: after[session] for session in before} == before
    assert after["sub-B_ses-4"] == "test"
    kept = read_earlier_splits(made.store, NEURAL_PILE, made.settings, record.plan_id)
    assert kept is not None
    stated = settings_of(kept)
    assert stated is not None and stated.plan == earlier.digest
    for name in (name for name, check in CHECKS.items() if check.layer == "pile"):
        assert made.checks(PILE_HUB_DATASET, name)[0].passed, name
    verdict = checks.split_is_stable(planned(made), kept)
    assert (verdict.passed, verdict.found, verdict.details["compared_with"]) == (
        True,
        "no session moved",
        earlier.plan_id,
    )


def with_splits(plan: PilePlan, splits: dict[str, str]) -> pa.Table:
    """Its splits table, with these sessions elsewhere."""
    assert plan.splits is not None
    changed = [
        splits.get(session, split)
        for session, split in zip(plan.splits["session_id"].to_pylist(), plan.splits["split"].to_pylist(), strict=True)
    ]
    return plan.splits.set_column(6, plan.splits.schema.field("split"), pa.array(changed, pa.string()))


def test_a_session_in_another_split_than_it_was_published_in_is_an_error_of_the_hash_rule(made: House) -> None:
    plan = planned(made)
    moved, split = next(iter(published_splits(made).items()))
    earlier = with_splits(plan, {moved: "train" if split != "train" else "test"})
    verdict = checks.split_is_stable(plan, earlier)
    assert (verdict.passed, verdict.details["moved"], verdict.severity) == (False, 1, None)
    assert moved in verdict.found and "1 session moved" in verdict.found
    for change in (
        {"seed": 5},
        {"split_by": "subjects"},
        {"test_size": 0.31},
        {"rules": plan.record.rules.model_copy(update={"valid_size": 0.1})},
        {"rules": plan.record.rules.model_copy(update={"hold_out": ("dataset:x",)})},
    ):
        other = PilePlan(plan.record.model_copy(update=change), plan.rows, plan.splits)
        assert "not compared" in checks.split_is_stable(other, earlier).found
    assert "not compared" in checks.split_is_stable(plan, None).found


def test_a_permutation_that_draws_another_split_is_only_warned_of(made: House) -> None:
    rows = [source("mice", [1] * n) for n in (40, 41)]
    before, now = (plan_pile([one], seed=0, split_by="sessions", test_size=0.2) for one in rows)
    verdict = checks.split_is_stable(now, before.splits)
    assert (verdict.passed, verdict.severity) == (False, "warn")
    assert "set split_rule: hash" in verdict.remedy
    (result,) = results({"split_is_stable": verdict}, NEURAL_PILE)
    assert result.severity == dg.AssetCheckSeverity.WARN
    by_rows = [plan_pile([one], seed=0, test_size=0.2) for one in rows]
    assert "not compared: split by rows" in checks.split_is_stable(by_rows[1], by_rows[0].splits).found


def test_twins_and_animals_in_two_splits_are_named(grown: Grown) -> None:
    plan = planned(grown.made)
    assert checks.train_and_test_disjoint(plan).passed
    assert plan.splits is not None
    twin = next(row for row in plan.splits.to_pylist() if row["twin_of"])
    apart = PilePlan(plan.record, plan.rows, with_splits(plan, {twin["session_id"]: "train"}))
    verdict = checks.train_and_test_disjoint(apart)
    assert not verdict.passed and twin["twin_of"] in verdict.found
    by_subject = PilePlan(plan.record.model_copy(update={"split_by": "subjects"}), plan.rows, plan.splits)
    assert "sub-A" in checks.train_and_test_disjoint(by_subject).found


def test_a_session_that_is_not_where_its_hash_says_fails_unless_it_was_promoted_or_held_out(made: House) -> None:
    plan = planned(made)
    assert checks.split_sizes(plan).passed
    bare = plan.record.model_copy(update={"promoted": {}})
    verdict = checks.split_sizes(PilePlan(bare, plan.rows, plan.splits))
    assert not verdict.passed
    assert all(name.removeprefix(f"{MICE.name}/") in verdict.found for name in plan.record.promoted)
    empty = plan.record.model_copy(update={"splits": {"train": plan.record.totals}})
    found = checks.split_sizes(PilePlan(empty, plan.rows, plan.splits)).found
    assert "no rows in test" in found and "no rows in valid" in found


def test_evaluation_sessions_in_train_are_warned_of_with_their_number(made: House) -> None:
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    lists = load_benchmarks(made.settings)
    assert checks.benchmarks_in_train(published, lists).found == "no session of a list in this pile"
    counts = {"valid": 0, "test": 1, "left_out": 0}
    found = {
        "neds_test": {"sessions": 5, "train": 4, **counts},
        "neds_train": {"sessions": 44, "train": 43, **counts},
        "bwb_eval": {"sessions": 1, "train": 0, **counts},
    }
    verdict = checks.benchmarks_in_train(published.model_copy(update={"benchmarks": found}), lists)
    assert (verdict.passed, verdict.found) == (False, "neds_test: 4 of 5 sessions in train")
    assert verdict.details["lists"]["neds_train"] == "43 of 44 sessions in train"
    held = {**found, "neds_test": {"sessions": 5, "train": 0, **counts}}
    assert checks.benchmarks_in_train(published.model_copy(update={"benchmarks": held}), lists).passed
    old = published.model_copy(update={"splits": (), "benchmarks": {}})
    assert "not compared" in checks.benchmarks_in_train(old, lists).found


def test_the_command_lines_choices_replace_those_of_the_last_pile_and_stay(made: House) -> None:
    launcher = Launcher(made.settings, made.instance, made.job)
    launcher.pile(NEURAL_PILE, [MICE.name], {"order": "hash", "valid_size": 0.0})
    assert launcher.outcome.failed == {}
    rules = planned(made).record.rules
    assert (rules.split_rule, rules.order, rules.valid_size) == ("hash", "hash", 0.0)
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    assert published.rules == rules and published.shards.keys() == {"train", "test"}
    assert (
        piles.plan_config(made.store, NEURAL_PILE, made.settings)["neural_pile__manifest"]["config"]["order"] == "hash"
    )


def test_options_of_the_command_line_are_the_run_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(launch, "build", lambda *_, **options: given.update(options) or Outcome())
    options = ("--seed", "0", "--split-by", "subjects", "--split-rule", "hash", "--test-size", "0.1")
    options += ("--hold-out", "benchmark:bwb_eval", "--hold-out", "dataset:x", "--held-out-go-to", "leave_out")
    ran = neuralpile("build", "li", "--merge", *options, "--order", "hash", NEURALPILE_HOME=tmp_path)
    assert ran.code == 0
    assert given["choices"] == {
        "seed": 0,
        "split_by": "subjects",
        "split_rule": "hash",
        "test_size": 0.1,
        "hold_out": ["benchmark:bwb_eval", "dataset:x"],
        "held_out_go_to": "leave_out",
        "order": "hash",
    }
    config = PileConfig(**given["choices"])
    assert config.model_dump().items() >= given["choices"].items()
    neuralpile("build", "li", "--merge", "--hold-out", "", NEURALPILE_HOME=tmp_path)
    assert given["choices"] == {"hold_out": []}
    refused = neuralpile("build", "li", "--valid-size", "0.1", NEURALPILE_HOME=tmp_path)
    assert refused.code == 2 and "--valid-size is for --merge" in refused.err


@pytest.mark.parametrize(
    ("name", "values"),
    [("split_by", SplitBy), ("split_rule", SplitRule), ("order", Order), ("held_out_go_to", HeldOutGoTo)],
)
def test_the_launchpad_the_command_line_and_rows_offer_the_same_choices(name: str, values: Any) -> None:
    in_launchpad = list(get_args(PileConfig.model_fields[name].annotation))
    (option,) = [parameter for parameter in main.commands["build"].params if parameter.name == name]
    assert in_launchpad == list(option.type.choices) == list(get_args(values))
    assert Pile.model_fields[name].annotation == values


def test_what_is_held_out_of_the_pile_is_in_no_row_of_it(made: House) -> None:
    train = next(session for session, split in published_splits(made).items() if split == "train")
    entry = f"session:{MICE.name}/{train}"
    assert plan(made, **{**RULES, "valid_size": 0.0}, hold_out=[entry], held_out_go_to="leave_out").success
    found = set(planned(made).rows["session_id"].to_pylist())
    assert train not in found and found
    shown = metadata_of(made, PILE_MANIFEST)
    assert (shown["hold_out"], shown["held_out_go_to"], shown["held_out_sessions"]) == (entry, "leave_out", "1")
    assert (
        piles.plan_config(made.store, NEURAL_PILE, made.settings)["neural_pile__manifest"]["config"]["split_rule"]
        == "hash"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hold_out": ["dataset:rats"]}, "dataset:rats names nothing in this pile.*one of tiny-mice"),
        ({"hold_out": ["benchmark:nothing"]}, "one of bwb_eval"),
        ({"hold_out": ["benchmark:nlb"]}, "no session of the benchmark nlb in it; expected: a benchmark with sessions"),
        ({"test_size": 0.5, "valid_size": 0.5}, "together less than 1"),
        ({"split_by": "subjects"}, "set split_rule: hash"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(made: House, config: dict[str, Any], message: str) -> None:
    assert re.search(message, failure_of(plan(made, **config)))
