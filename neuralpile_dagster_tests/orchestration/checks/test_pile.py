"""Checks of the merged pile: a real pile of two components, and doctored plans and records of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE, PUBLISHED_TOKEN_SHARES
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.checks import pile as checks
from neuralpile_dagster.checks.dataset import hub_equals_record
from neuralpile_dagster.checks.registry import CHECKS, judge
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.records import PileRecord, TokenCounts
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_HUB_DATASET, House, house
from neuralpile_dagster_tests.fixtures.merging import RATS, merge, require, write_rats

MAX_TOKENS = 500  # some 20 rows of the mice's 3 sessions and the rat's one


@dataclass(frozen=True)
class Pile:
    """A published pile."""

    house: House
    plan: PilePlan
    published: PileRecord
    hub: LocalHub
    name: str


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory, new_archive: Callable[[], Path]) -> Iterator[Pile]:
    archive, both = new_archive(), (MICE, RATS)
    write_rats(archive)
    with house(tmp_path_factory.mktemp("pile"), archive, both, max_tokens=MAX_TOKENS) as made:
        require(made.run(*map(names.manifest_key, both)))
        for dataset in both:
            require(made.batch(names.known_sessions(made.instance, dataset), dataset))
        require(made.run(*map(names.hub_dataset_key, both), checks=False))
        merge(made, checks=True, split_by="sessions", test_size=0.3)
        published = piles.require_published(made.store, NEURAL_PILE, made.settings)
        plan = load_plan(made.store, piles.plan_path(NEURAL_PILE, made.settings, published.plan[:8]))
        hub = open_hub(made.settings)
        assert isinstance(hub, LocalHub)
        yield Pile(made, plan, published, hub, piles.repository_name(NEURAL_PILE, made.settings))


def doctored(plan: PilePlan, rows: pa.Table) -> PilePlan:
    return PilePlan(plan.record, rows)


def test_a_right_pile_passes_every_check(pile: Pile) -> None:
    evidence = checks.read_evidence(pile.house.store, NEURAL_PILE, pile.house.settings, pile.hub)
    verdicts = judge("pile", evidence)
    assert {name: v.passed for name, v in verdicts.items()} == {
        name: True for name, check in CHECKS.items() if check.layer == "pile"
    }


def test_the_checks_ran_with_the_run_that_published(pile: Pile) -> None:
    for name in (name for name, check in CHECKS.items() if check.layer == "pile"):
        assert [said.passed for said in pile.house.checks(PILE_HUB_DATASET, name)] == [True], name


def test_tokens_that_are_not_the_sum_of_the_components_fail_with_both_numbers(pile: Pile) -> None:
    (shard, *rest), *_ = pile.published.shards.values()
    shards = {**pile.published.shards, "train": (shard.model_copy(update={"tokens": shard.tokens + 5}), *rest)}
    verdict = checks.tokens_equal_components(pile.published.model_copy(update={"shards": shards}), pile.plan)
    assert (verdict.passed, verdict.found - verdict.expected) == (False, 5)
    assert verdict.details["components"].keys() == {f"{name}-max{MAX_TOKENS}" for name in ("tiny-mice", "tiny-rats")}


@pytest.mark.parametrize("change", ["a row twice", "a row less"])
def test_a_row_twice_or_not_at_all_fails(pile: Pile, change: str) -> None:
    n = pile.plan.rows.num_rows
    chosen = [0, *range(n - 1)] if change == "a row twice" else list(range(n - 1))
    verdict = checks.every_row_exactly_once(doctored(pile.plan, pile.plan.rows.take(chosen)))
    assert (verdict.passed, verdict.expected) == (False, f"{n} rows, each once")
    assert f"{n - 1} of them different" in verdict.found


def test_a_session_in_train_and_test_fails_and_is_named(pile: Pile) -> None:
    splits = pile.plan.rows["split"].to_pylist()
    splits[0] = "test"
    plan = doctored(pile.plan, with_column(pile.plan.rows, "split", splits))
    verdict = checks.train_and_test_disjoint(plan)
    assert not verdict.passed
    assert pile.plan.rows["session_id"][0].as_py() in verdict.found


def test_a_split_by_rows_lets_one_session_be_in_both(pile: Pile) -> None:
    splits = pile.plan.rows["split"].to_pylist()
    splits[0] = "test"
    by_rows = pile.plan.record.model_copy(update={"split_by": "rows"})
    plan = PilePlan(by_rows, with_column(pile.plan.rows, "split", splits))
    assert checks.train_and_test_disjoint(plan).passed


def test_a_test_split_of_another_size_than_asked_for_fails(pile: Pile) -> None:
    asked = pile.plan.record.model_copy(update={"test_size": 0.6})
    verdict = checks.split_sizes(PilePlan(asked, pile.plan.rows))
    assert (verdict.passed, verdict.expected, verdict.found) == (
        False,
        "3 of 4 sessions in test",
        "2 of 4 sessions in test",
    )


@pytest.mark.parametrize("order", ["one after the other", "in turn"])
def test_components_that_are_not_mixed_fail(pile: Pile, order: str) -> None:
    n = 400
    sources = np.repeat(["a", "b"], n // 2) if order == "one after the other" else np.tile(["a", "b"], n // 2)
    assert not checks.shuffled(of_sources(pile, sources)).passed


def test_components_in_a_random_order_pass_whatever_their_sizes(pile: Pile) -> None:
    rng = np.random.default_rng(0)
    for sizes in ((200, 200), (390, 10), (400,), (1, 1), (1,), (100, 200, 50, 50)):
        sources = np.repeat([f"c{i}" for i in range(len(sizes))], sizes)
        assert checks.shuffled(of_sources(pile, rng.permutation(sources))).passed, sizes


def test_a_published_shard_that_somebody_changed_fails(pile: Pile, tmp_path: Path) -> None:
    shutil.copytree(pile.hub.root, tmp_path / "hub", symlinks=True)
    hub = LocalHub(tmp_path / "hub", pile.hub.namespace)
    shard = next((hub.path(pile.name) / "data").glob("test-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    verdict = hub_equals_record(hub, pile.name, checks.shards_of(pile.published))
    assert not verdict.passed
    assert shard.name in verdict.found


def with_column(rows: pa.Table, name: str, values: list[str]) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values).dictionary_encode())


def of_sources(pile: Pile, sources: np.ndarray) -> PilePlan:
    n = len(sources)
    train = pa.array(["train"] * n).dictionary_encode()
    rows = pa.table({"split": train, "source_dataset": pa.array(sources.tolist()).dictionary_encode()})
    return PilePlan(pile.plan.record, rows)


def rodent_counts(change: float = 0.0) -> tuple[TokenCounts, ...]:
    """Token counts of a pile of the 25 datasets like the published one, a share of ``change`` moved from 1 to 0."""
    shares = np.array([*PUBLISHED_TOKEN_SHARES, 1 - sum(PUBLISHED_TOKEN_SHARES)])
    shares[:2] += (change, -change)
    sizes = [10_000_000 * (1 + number) for number in range(len(RODENT))]
    return tuple(
        TokenCounts(
            source_dataset=dataset.name, split="train", counts=tuple(np.round(shares * size).astype(int).tolist())
        )
        for dataset, size in zip(RODENT, sizes, strict=True)
    )


@pytest.fixture
def compare(pile: Pile, tmp_path: Path) -> Callable[..., Any]:
    def run(parts: tuple[TokenCounts, ...], **environment: str) -> Any:
        settings = Settings.from_environment({"NEURALPILE_HOME": str(tmp_path), **environment})
        return checks.counts_as_published(pile.published.model_copy(update={"token_counts": parts}), settings)

    return run


@pytest.mark.parametrize("change", [0.0, 0.9e-4, -0.9e-4])
def test_a_rodent_pile_with_the_published_shares_of_values_passes(compare: Callable[..., Any], change: float) -> None:
    others = TokenCounts(source_dataset="my-own", split="train", counts=(0, 10**12))
    test = TokenCounts(source_dataset="vbn", split="test", counts=(0, 10**12))
    verdict = compare((*rodent_counts(change), others, test))
    assert verdict.passed and "not compared" not in verdict.found
    assert verdict.details["train_tokens"] == pytest.approx(10_000_000 * 25 * 13, abs=1000)


@pytest.mark.parametrize("change", [1.1e-4, -1.1e-4])
def test_a_rodent_pile_with_other_shares_of_values_is_warned_of(compare: Callable[..., Any], change: float) -> None:
    verdict = compare(rodent_counts(change))
    assert not verdict.passed
    assert verdict.details["differences"][:2] == pytest.approx([change, -change], abs=1e-6)


def test_another_pile_is_not_compared_with_the_published_one(pile: Pile, compare: Callable[..., Any]) -> None:
    wrong = rodent_counts(0.01)
    assert not compare(wrong).passed and not compare(wrong, NEURALPILE_MAX_TOKENS="10000000").passed
    for verdict, why in (
        (compare(wrong[1:]), "1 of the 25 published datasets missing (vbn)"),
        (compare(()), "did not count the values"),
        (compare(wrong, NEURALPILE_BIN_WIDTH="0.01"), "bins of 10 ms"),
        (compare(pile.published.token_counts), "25 of the 25"),
    ):
        assert verdict.passed and why in verdict.found


def test_a_pile_of_smaller_segments_is_compared_as_well(compare: Callable[..., Any]) -> None:
    renamed = tuple(
        part.model_copy(update={"source_dataset": f"{part.source_dataset}-max5000"}) for part in rodent_counts(0.01)
    )
    assert not compare(renamed, NEURALPILE_MAX_TOKENS="5000").passed
