"""What the pile lacks: decided by comparing digests of plan, shards and publication, not by whether they are there."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.due import PileDue, pile_due, published_components
from neuralpile_dagster.merge.plan import save_plan
from neuralpile_dagster.merge.shards import PileShard, build_shard
from neuralpile_dagster.records import Model, PileRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, read_record, write_record
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.fixtures.sessions import DATASET

OTHER = "0123456789abcdef" * 4


class Ledger:
    """A pile that is planned, merged and published in a store."""

    def __init__(self, home: Path) -> None:
        pile = Pile(home)
        self.store: LocalStore = pile.store
        self.settings = Settings(home=home, store=str(pile.store.root))
        self.datasets: list[Dataset] = [DATASET.model_copy(update={"name": name}) for name in ("mice", "rats")]
        self.digest = pile.plan.record.digest
        self.shards = tuple(shard.name for shard in pile.plan.record.shards)
        for dataset, record in zip(self.datasets, pile.records, strict=True):
            write_record(self.store, documents.published_path(dataset, self.settings), record)
        plan_id = pile.plan.record.plan_id
        save_plan(self.store, piles.plan_path(NEURAL_PILE, self.settings, plan_id), pile.plan)
        self.folder = piles.shards_folder(NEURAL_PILE, self.settings, plan_id)
        for name in self.shards:
            build_shard(self.store, self.folder, pile.plan, name, self.store.open)
        inputs = piles.inputs_digest(published_components(self.store, self.datasets, self.settings))
        current = piles.CurrentPlan(plan_id=plan_id, inputs=inputs, repositories={}, left_out={}, synthetic=False)
        write_record(self.store, piles.current_path(NEURAL_PILE, self.settings), current)
        published = pile.write(home / "staging" / "neural-pile")
        write_record(self.store, piles.published_path(NEURAL_PILE, self.settings), published)

    def due(self) -> PileDue | None:
        return pile_due(self.store, NEURAL_PILE, self.datasets, self.settings)

    def copied_to(self, home: Path) -> Ledger:
        """An equal one of its own."""
        other = copy.copy(self)
        other.store = LocalStore(shutil.copytree(self.store.root, home / "store"))
        other.settings = Settings(home=home, store=str(other.store.root))
        return other


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """One that nobody changes."""
    return Ledger(tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def ledger(made: Ledger, tmp_path: Path) -> Ledger:
    """One to change."""
    return made.copied_to(tmp_path)


def change(ledger: Ledger, key: str, kind: type[Model], **changes: Any) -> None:
    """Change fields of a stored record."""
    record = read_record(ledger.store, key, kind)
    assert record is not None
    write_record(ledger.store, key, record.model_copy(update=changes))


def test_a_pile_that_was_made_from_everything_published_lacks_nothing(ledger: Ledger):
    assert ledger.due() is None


def test_a_pile_published_from_another_plan_is_published_again(ledger: Ledger):
    key = piles.published_path(NEURAL_PILE, ledger.settings)
    change(ledger, key, PileRecord, plan=OTHER)
    assert ledger.due() == PileDue(False, (), True, ledger.digest)


def test_a_shard_of_another_plan_is_made_again(ledger: Ledger):
    second = ledger.shards[1]
    key = f"{ledger.folder}/{second}.json"
    change(ledger, key, PileShard, inputs=OTHER)
    assert ledger.due() == PileDue(False, (second,), False, ledger.digest)


def test_a_shard_whose_file_was_cut_is_made_again(ledger: Ledger):
    record = read_record(ledger.store, f"{ledger.folder}/{ledger.shards[0]}.json", PileShard)
    assert record is not None
    path = ledger.store.root / record.file.key
    path.write_bytes(path.read_bytes()[:-1])
    assert ledger.due() == PileDue(False, (ledger.shards[0],), False, ledger.digest)


def test_publications_that_changed_since_the_plan_are_planned_again(ledger: Ledger):
    key = piles.current_path(NEURAL_PILE, ledger.settings)
    change(ledger, key, piles.CurrentPlan, inputs=OTHER)
    due = ledger.due()
    assert due is not None
    assert due.plan
    assert due.inputs not in (OTHER, ledger.digest)


def test_a_pile_that_was_given_another_name_is_published_under_it(ledger: Ledger):
    ledger.settings = replace(ledger.settings, pile_name="our-pile")
    due = ledger.due()
    assert due is not None
    assert due == PileDue(False, (), True, due.inputs)
    assert due.inputs != ledger.digest, "automation asks for the same inputs only once"
