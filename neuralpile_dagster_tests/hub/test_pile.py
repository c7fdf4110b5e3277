from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from neuralpile_dagster.errors import HubError, StoreError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.merge.split_table import splits_of_rows
from neuralpile_dagster.publish.configs import hub_tables
from neuralpile_dagster.publish.pile import PileSplits
from neuralpile_dagster.records import PileRecord, ShardRecord, SplitFacts, SplitRules
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, PUBLISHED_SESSIONS_SCHEMA, SESSIONS_SCHEMA, UNITS_SCHEMA
from neuralpile_dagster_tests.fixtures.hub_folders import contents, silent
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.fixtures.sessions import counts_of


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Pile:
    """A pile that nobody changes."""
    return Pile(tmp_path_factory.mktemp("pile"))


@dataclass(frozen=True)
class Written:
    """The pile as it is published; nobody changes it."""

    folder: Path
    record: PileRecord


@pytest.fixture(scope="module")
def written(pile: Pile, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written") / "pile"
    return Written(folder, pile.write(folder))


@pytest.fixture
def own(pile: Pile, tmp_path: Path) -> Pile:
    """A pile to change."""
    return pile.copied_to(tmp_path / "own")


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n", 2)[1])
    return found


def test_load_dataset_gives_train_and_test_with_the_contracts_features(written: Written, load: Callable[..., Any]):
    import datasets

    folder = written.folder
    splits = load(folder)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 9, "test": 3}
    assert splits["train"].features == datasets.Features.from_arrow_schema(PILE_SCHEMA)
    rows = [row for split in splits.values() for row in split]
    assert {(row["source_dataset"], row["session_id"]) for row in rows} == {
        ("mice", "s1"), ("mice", "s2"), ("rats", "r1"), ("rats", "r2"),
    }  # fmt: skip
    for row in rows:
        start = 40 * int(row["segment_id"].removeprefix("segment_"))
        n_units = 4 if row["source_dataset"] == "mice" else 7
        expected = counts_of(row["session_id"], n_units, 100)[:, start : start + 40]
        np.testing.assert_array_equal(np.array(row["spike_counts"], np.uint8), expected)
    assert len(list(load(folder, split="test", streaming=True))) == 3


def test_tables_of_an_older_version_are_merged_with_null_in_newer_columns(
    tmp_path: Path, pile: Pile, load: Callable[..., Any]
):
    before = {"units": UNITS_SCHEMA, "sessions": SESSIONS_SCHEMA}

    def of_before(config: str) -> list[pa.Table]:
        tables = hub_tables(pile.hub, "mice")(config)
        return [table.select(before[config].names) for table in tables] if config in before else []

    mice, rats = pile.components()
    pile.write(tmp_path / "pile", components=[replace(mice, tables=of_before), rats])
    sessions = load(tmp_path / "pile", "sessions", split="train")
    assert sessions.column_names == [*PUBLISHED_SESSIONS_SCHEMA.names, "source_dataset"]
    assert sessions["origin_s"] == [None, None, 0.0, 0.0]
    assert sessions["session_id"] == ["s1", "s2", "r1", "r2"]
    assert load(tmp_path / "pile", "units", split="train").column_names[-2:] == ["order", "source_dataset"]


def test_the_metadata_numbers_are_those_of_the_files(written: Written, load: Callable[..., Any]):
    folder = written.folder
    default = next(info for info in metadata(folder)["dataset_info"] if info["config_name"] == "default")
    loaded = load(folder)
    for split in default["splits"]:
        files = list((folder / "data").glob(f"{split['name']}-*"))
        assert split["num_examples"] == sum(pq.read_metadata(file).num_rows for file in files)
        assert split["num_bytes"] == loaded[split["name"]].info.splits[split["name"]].num_bytes
    assert default["download_size"] == sum(file.stat().st_size for file in (folder / "data").iterdir())


def test_units_and_sessions_of_all_components_are_there_with_their_source(written: Written, load: Callable[..., Any]):
    folder = written.folder
    units = load(folder, "units", split="train")
    assert units.column_names[-1] == "source_dataset"
    assert [(u["source_dataset"], u["session_id"]) for u in units] == (
        [("mice", "s1")] * 4 + [("mice", "s2")] * 4 + [("rats", "r1")] * 7 + [("rats", "r2")] * 7
    )
    sessions = load(folder, "sessions", split="train")
    assert list(zip(sessions["source_dataset"], sessions["session_id"], strict=True)) == [
        ("mice", "s1"), ("mice", "s2"), ("rats", "r1"), ("rats", "r2"),
    ]  # fmt: skip
    preview = load(folder, "preview", split="train")
    assert preview.column_names == PILE_SCHEMA.names and len(preview) == 8


def test_the_same_inputs_give_the_same_bytes_and_stale_files_go(tmp_path: Path, pile: Pile, written: Written):
    first = written.record
    (tmp_path / "b" / "data").mkdir(parents=True)
    (tmp_path / "b" / "data" / "train-00000-deadbeef.parquet").write_bytes(b"stale")
    assert pile.write(tmp_path / "b") == first
    assert contents(written.folder) == contents(tmp_path / "b")
    assert pile.write(tmp_path / "b") == first, "over its own files"
    assert contents(written.folder) == contents(tmp_path / "b")
    assert PileRecord.model_validate_json(first.model_dump_json()) == first
    for split, shards in first.shards.items():
        for number, shard in enumerate(shards):
            assert shard.path == f"data/{split}-{number:05d}-{shard.sha256[:8]}.parquet"


def test_on_the_stores_disk_shards_take_no_second_place(pile: Pile, written: Written):
    published = {shard.sha256: written.folder / shard.path for some in written.record.shards.values() for shard in some}
    for shard in pile.shards:
        assert published[shard.file.sha256].stat().st_ino == Path(pile.store.uri(shard.file.key)).stat().st_ino


def test_from_another_disk_shards_are_copied(
    tmp_path: Path, pile: Pile, written: Written, monkeypatch: pytest.MonkeyPatch
):
    def link(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("neuralpile_dagster.store.os.link", link)
    assert pile.write(tmp_path / "b") == written.record
    assert contents(written.folder) == contents(tmp_path / "b")
    shard = next(iter(written.record.shards["train"])).path
    assert (tmp_path / "b" / shard).stat().st_nlink == 1


def test_the_card_says_how_the_pile_was_made(pile: Pile, written: Written):
    card = (written.folder / "README.md").read_text()
    assert metadata(written.folder)["license"] == "cc-by-4.0"
    tokens = {"mice": 2 * 4 * 100, "rats": 2 * 7 * 100}
    for name in ("mice", "rats"):
        assert f"| {name} | dandi 990002, version 0.1 | spdx:CC-BY-4.0 | 2 | 6 | {tokens[name]:,} |" in card
    assert "| all |  |  | 4 | 12 | 2,200 |" in card
    assert "test_size 0.2, seed 3" in card and pile.plan.record.digest[:8] in card
    assert "segments of one session can be in both splits" in card
    assert "SYNTHETIC" not in card and "not frozen" not in card


def test_the_card_states_its_own_totals_against_the_published_ones(tmp_path: Path, pile: Pile):
    pile.write(tmp_path / "pile", title="Rodents", as_published="9 tokens, 2 sessions")
    card = (tmp_path / "pile" / "README.md").read_text()
    assert "\n# Rodents\n" in card
    assert metadata(tmp_path / "pile")["pretty_name"] == "Rodents"
    assert "In this pile: 2,200 tokens, 4 sessions, 2 datasets. As published by the authors" in card
    assert "neural pile: 9 tokens, 2 sessions." in card


def test_the_card_warns_of_what_its_components_are(tmp_path: Path):
    pile = Pile(tmp_path, frozen=False, synthetic=True)
    pile.write(tmp_path / "pile", plan={"split_by": "sessions"})
    card = (tmp_path / "pile" / "README.md").read_text()
    top = card.split("## Components")[0]
    assert "SYNTHETIC" in top and "not frozen" in top and "mice" in top
    assert "synthetic" in metadata(tmp_path / "pile")["tags"]
    assert "all segments of a session are in the same split" in card


def test_somebody_elses_repository_without_tables_can_be_in_it(tmp_path: Path, pile: Pile, load: Callable[..., Any]):
    foreign = pile.components(record=None, tables=lambda config: [])
    folder = tmp_path / "pile"
    pile.write(folder, components=[pile.components()[0], foreign[1]])
    card = (folder / "README.md").read_text()
    assert "Repositories of other owners, merged as they are: rats" in card
    assert "license" not in metadata(folder)
    assert set(load(folder, "units", split="train")["source_dataset"]) == {"mice"}
    default = next(info for info in metadata(folder)["dataset_info"] if info["config_name"] == "default")
    loaded = load(folder)
    assert {s["name"]: s["num_bytes"] for s in default["splits"]} == {
        name: rows.info.splits[name].num_bytes for name, rows in loaded.items()
    }
    pile.write(tmp_path / "bare", components=foreign)
    assert {info["config_name"] for info in metadata(tmp_path / "bare")["dataset_info"]} == {
        "default", "preview", "segments", "splits", "token_counts",
    }  # fmt: skip
    assert "units.parquet" not in (tmp_path / "bare" / "README.md").read_text()


def test_the_splits_config_says_where_each_session_is(pile: Pile, written: Written, load: Callable[..., Any]):
    rows = list(load(written.folder, "splits", split="train"))
    assert [(row["source_dataset"], row["session_id"]) for row in rows] == [
        ("mice", "s1"), ("mice", "s2"), ("rats", "r1"), ("rats", "r2"),
    ]  # fmt: skip
    ids = zip(*(pile.plan.rows[name].to_pylist() for name in ("session_id", "split")), strict=True)
    splits = {(session, split) for session, split in ids}
    for row in rows:
        found = {split for session, split in splits if session == row["session_id"]}
        assert row["split"] == (found.pop() if len(found) == 1 else None)
        assert (row["subject"], row["benchmarks"], row["twin_of"]) == ("1", [], None)
        assert row["tokens"] == (400 if row["source_dataset"] == "mice" else 700)
        assert 0 <= row["u"] < 1
    assert "- `splits`: one row per session" in (written.folder / "README.md").read_text()


def test_the_card_says_how_splits_by_hash_were_made_and_where_benchmarks_are(tmp_path: Path, pile: Pile):
    rules = SplitRules(split_rule="hash", valid_size=0.1, hold_out=("benchmark:neds_test",), held_out_go_to="leave_out")
    plan = {"split_by": "subjects", "rules": rules, "promoted": {"mice/s1": "valid"}}
    facts = (SplitFacts(split="train", rows=9, sessions=4, subjects=3, datasets=2, tokens=99, hours=1.25),)
    lists = {"neds_test": {"sessions": 5, "train": 1, "valid": 2, "test": 3, "left_out": 1}}
    table = splits_of_rows(pile.plan.record, pile.plan.rows, {})
    record = pile.write(tmp_path / "pile", plan=plan, splits=PileSplits(table, facts, lists))
    assert (record.rules, record.splits, record.benchmarks) == (rules, facts, lists)
    card = (tmp_path / "pile" / "README.md").read_text()
    assert "Split by subjects: all sessions of an animal are in the same split. test_size 0.2, valid_size 0.1" in card
    assert "| train | 4 | 3 | 2 | 1.2 |" in card
    assert "sessions that come or go move no other" in card
    assert "Held out, so that they are not in this pile: `benchmark:neds_test`." in card
    assert "Moved to a split that would be empty without them: `mice/s1` (valid)." in card
    assert "| `neds_test` | 5 | 1 | 3 |" in card


def test_sessions_that_a_component_got_after_the_plan_are_not_in_the_pile(tmp_path: Path, own: Pile):
    own._component("mice", ["s1", "s2", "s3"], {})
    own.write(tmp_path / "pile")
    sessions = pq.read_table(tmp_path / "pile" / "sessions" / "sessions.parquet")
    assert sessions["session_id"].to_pylist() == ["s1", "s2", "r1", "r2"]


def test_units_tables_of_another_form_are_not_taken(tmp_path: Path, pile: Pile):
    hub = LocalHub(tmp_path / "hub", "local")
    folder = tmp_path / "other"
    (folder / "units").mkdir(parents=True)
    pq.write_table(pa.table({"unit": [1]}), folder / "units" / "units.parquet")
    hub.publish("other", folder, silent)
    assert list(hub_tables(hub, "other")("units")) == []
    assert list(hub_tables(hub, "other")("sessions")) == []
    assert sum(table.num_rows for table in hub_tables(pile.hub, "mice")("units")) == 8


def test_a_damaged_shard_is_named_and_not_published(tmp_path: Path, own: Pile):
    path = Path(own.store.uri(own.shards[0].file.key))
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged.*materialize"):
        own.write(tmp_path / "pile")
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        own.write(tmp_path / "pile")


def test_a_shard_that_is_not_what_its_record_says_is_refused(tmp_path: Path, own: Pile):
    own.shards[0] = own.shards[0].model_copy(update={"rows": 99})
    with pytest.raises(HubError, match="does not match its record"):
        own.write(tmp_path / "pile")


def test_a_pile_without_shards_is_refused(tmp_path: Path, own: Pile):
    own.shards.clear()
    with pytest.raises(HubError, match="no shards"):
        own.write(tmp_path / "pile")


def test_it_is_published_like_a_component(tmp_path: Path, written: Written, load: Callable[..., Any]):
    hub = LocalHub(tmp_path / "hub", "local")
    done = hub.publish("neural-pile", written.folder, silent)
    shards: list[ShardRecord] = [shard for some in written.record.shards.values() for shard in some]
    assert {(s.path, s.sha256) for s in shards} <= {(f.path, f.sha256) for f in done.files}
    assert len(load(hub.path("neural-pile"), split="train")) == 9


def test_a_shard_of_one_row_is_announced_as_one(pile: Pile, tmp_path: Path):
    lines = list[str]()
    pile.write(tmp_path / "pile", progress=lines.append)
    assert 1 in [shard.rows for shard in pile.shards], "the fixture has such a shard"
    assert [line for line in lines if ", 1 row, " in line] and not [line for line in lines if "1 rows" in line]
