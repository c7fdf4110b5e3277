"""Checks of what lies on the hub, on a local hub that somebody meddled with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralpile_dagster.checks.dataset import card_counts_equal_footers, hub_equals_record, users_read_what_was_made
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.records import ShardRecord
from neuralpile_dagster_tests.fixtures.house import MICE, House


@pytest.fixture
def hub(built: House, tmp_path: Path) -> LocalHub:
    """A copy of the hub with the mice."""
    shutil.copytree(built.settings.home / "hub", tmp_path / "hub", symlinks=True)
    return LocalHub(tmp_path / "hub", "local")


@pytest.fixture
def shards(built: House) -> tuple[ShardRecord, ...]:
    return documents.require_published(built.store, MICE, built.settings).shards


def shard_of(hub: LocalHub) -> Path:
    return next((hub.path("tiny-mice") / "data").iterdir())


def edit_card(hub: LocalHub, old: str, new: str) -> None:
    card = hub.path("tiny-mice") / "README.md"
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new))


def test_what_was_published_passes(hub: LocalHub, shards: tuple[ShardRecord, ...]) -> None:
    assert card_counts_equal_footers(hub, "tiny-mice").passed
    assert hub_equals_record(hub, "tiny-mice", shards).passed


def test_a_card_with_another_number_of_rows_fails_with_both_numbers(hub: LocalHub) -> None:
    edit_card(hub, "num_examples: 3", "num_examples: 4")
    verdict = card_counts_equal_footers(hub, "tiny-mice")
    assert (verdict.passed, verdict.expected, verdict.found) == (False, "train 3", "train 4")


@pytest.mark.parametrize(
    ("old", "new"),
    [("---\n", "no yaml\n"), ("dataset_info:", "other_info:"), ("num_examples:", "examples:"), ("---\n", "---\n{[\n")],
)
def test_a_card_that_datasets_would_not_understand_fails(hub: LocalHub, old: str, new: str) -> None:
    edit_card(hub, old, new)
    verdict = card_counts_equal_footers(hub, "tiny-mice")
    assert not verdict.passed
    assert verdict.found


def test_a_card_that_is_gone_fails(hub: LocalHub) -> None:
    (hub.path("tiny-mice") / "README.md").unlink()
    verdict = card_counts_equal_footers(hub, "tiny-mice")
    assert not verdict.passed
    assert "README.md" in verdict.found


def test_a_shard_that_is_gone_fails_and_is_named(hub: LocalHub, shards: tuple[ShardRecord, ...]) -> None:
    shard = shard_of(hub)
    shard.unlink()
    verdict = hub_equals_record(hub, "tiny-mice", shards)
    assert (verdict.passed, verdict.expected) == (False, "1 shard as recorded")
    assert shard.name in verdict.found
    assert not card_counts_equal_footers(hub, "tiny-mice").passed


def test_a_flipped_byte_in_a_published_shard_fails(hub: LocalHub, shards: tuple[ShardRecord, ...]) -> None:
    shard = shard_of(hub)
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    verdict = hub_equals_record(hub, "tiny-mice", shards)
    assert not verdict.passed
    assert shard.name in verdict.found
    assert verdict.remedy.startswith("materialize hub_dataset again: it compares every file")


def test_what_the_remedy_says_repairs_a_damaged_repository(built_house: Callable[..., House]) -> None:
    made = built_house()
    shard = next((made.hub_folder("tiny-mice") / "data").iterdir())
    right = shard.read_bytes()
    shard.write_bytes(right[:-1] + b"?")
    assert made.run(names.hub_dataset_key(MICE), checks=False).success
    assert next((made.hub_folder("tiny-mice") / "data").iterdir()).read_bytes() == right


def test_a_shard_that_somebody_added_fails_and_is_named(hub: LocalHub, shards: tuple[ShardRecord, ...]) -> None:
    shutil.copy(shard_of(hub), shard_of(hub).with_name("train-99999.parquet"))
    verdict = hub_equals_record(hub, "tiny-mice", shards)
    assert not verdict.passed
    assert "data/train-99999.parquet" in verdict.found


def test_a_repository_that_is_gone_fails(hub: LocalHub, shards: tuple[ShardRecord, ...]) -> None:
    hub.path("tiny-mice").unlink()
    assert not hub_equals_record(hub, "tiny-mice", shards).passed
    assert not card_counts_equal_footers(hub, "tiny-mice").passed


def test_what_users_read_is_what_was_made(built: House):
    folder = built.settings.home / "staging" / MICE.name
    assert users_read_what_was_made(open_hub(built.settings), MICE.name, folder).passed


def test_a_publication_that_is_not_the_folder_it_was_made_from_fails(built: House, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(built.settings.home / "staging" / MICE.name, other)
    (other / "README.md").write_text("another card")
    verdict = users_read_what_was_made(open_hub(built.settings), MICE.name, other)
    assert not verdict.passed
    assert "README.md" in str(verdict.found)


def test_on_a_machine_without_the_folder_nothing_is_compared_and_that_is_said(built: House, tmp_path: Path):
    verdict = users_read_what_was_made(open_hub(built.settings), MICE.name, tmp_path / "nowhere")
    assert verdict.passed
    assert "not compared" in str(verdict.found)
