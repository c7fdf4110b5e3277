from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import MergeError, StoreError, TableError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.merge.model import PilePlan, SourceFile
from neuralpile_dagster.merge.plan import plan_pile, save_plan
from neuralpile_dagster.merge.shards import build_shard, write_shard
from neuralpile_dagster.merge.sources import PileSource, source_from_parquet
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.copying.copy import FileOpener, RowRef, copy_rows
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures import commands
from neuralpile_dagster_tests.fixtures.components import (
    source_from_records,
    store_component,
    store_session,
    stored,
    three_components,
)
from neuralpile_dagster_tests.fixtures.row_files import comparable, open_path, read_rows, synthetic_rows, write_foreign

SMALL = {"test_size": 0.2, "shard_bytes": 60_000}  # a few rows a shard


def planned_rows(plan: PilePlan, store: LocalStore) -> list[tuple[Any, ...]]:
    """What the pile must hold, read from the sources one row at a time."""
    rows = []
    for shard in plan.record.shards:
        for file, number, name in plan.refs(shard.name):
            with store.open(file) as opened, RowReader(opened, file) as reader:
                rows.append(comparable(reader.row(number), name))
    return rows


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}


def merge(plan: PilePlan, store: LocalStore, folder: Path) -> dict[str, str]:
    for shard in plan.record.shards:
        write_shard(plan, shard.name, store.open, folder / f"{shard.name}.parquet")
    return digests(folder)


@pytest.mark.parametrize("split_by", ["rows", "sessions"])
def test_the_shards_hold_the_planned_rows(tmp_path: Path, split_by: Any):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=0, split_by=split_by, **SMALL)
    assert len(plan.record.shards) > 4
    merge(plan, store, tmp_path)
    found = [row for shard in plan.record.shards for row in read_rows(tmp_path / f"{shard.name}.parquet")]
    assert found == planned_rows(plan, store)
    assert len(found) == plan.record.totals.rows == 34
    for shard in plan.record.shards:
        path = tmp_path / f"{shard.name}.parquet"
        assert pq.read_schema(path).equals(PILE_SCHEMA)
        assert path.stat().st_size <= plan.record.shard_bytes
        metadata = pq.read_metadata(path)
        tokens = sum(metadata.row_group(n).column(0).num_values for n in range(metadata.num_row_groups))
        assert (metadata.num_rows, tokens) == (shard.rows, shard.tokens)


def test_the_pile_is_the_train_test_split_of_the_concatenated_components(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    store = stored(tmp_path)
    sources = three_components(store)
    parts = []
    for source in sources:
        rows = [{**row, "source_dataset": source.name} for f in source.files for row in records(store, f.name)]
        parts.append(datasets.Dataset.from_list(rows, features=datasets.Features.from_arrow_schema(PILE_SCHEMA)))
    expected = datasets.concatenate_datasets(parts).train_test_split(test_size=0.2, seed=11)

    plan = plan_pile(sources, seed=11, split_by="rows", **SMALL)
    files: dict[str, list[str]] = {"train": [], "test": []}
    for shard in plan.record.shards:
        path = tmp_path / "pile" / f"{shard.split}-{len(files[shard.split]):05d}.parquet"
        write_shard(plan, shard.name, store.open, path)
        files[shard.split].append(str(path))
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    for split in ("train", "test"):
        assert found[split].features == expected[split].features
        assert list(found[split]) == list(expected[split])


def records(store: LocalStore, key: str) -> list[dict[str, Any]]:
    with store.open(key) as file:
        return list(pq.read_table(file).to_pylist())


WORKER = """
import sys
from pathlib import Path
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.merge.shards import write_shard
from neuralpile_dagster.store import LocalStore
store, folder = LocalStore(Path(sys.argv[1])), Path(sys.argv[2])
for name in sys.argv[3:]:
    plan = load_plan(store, f"neural_pile/plans/{name.split('-')[0]}")
    write_shard(plan, name, store.open, folder / f"{name}.parquet")
"""
"""What workers do that know only partition keys."""


def test_any_number_of_workers_in_any_order_give_the_same_bytes(tmp_path: Path):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=2, **SMALL)
    save_plan(store, f"neural_pile/plans/{plan.record.plan_id}", plan)
    alone = merge(plan, store, tmp_path / "alone")
    names = [shard.name for shard in reversed(plan.record.shards)]
    shares = [names[number::3] for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        commands_of = [[sys.executable, "-c", WORKER, store.root, tmp_path / "workers", *share] for share in shares]
        ended = list(pool.map(lambda command: commands.run(command, dict(os.environ), kind="readers"), commands_of))
    assert [(done.returncode, done.stderr) for done in ended] == [(0, "")] * 3
    assert digests(tmp_path / "workers") == alone


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_order(tmp_path: Path):
    store = stored(tmp_path)
    sources = three_components(store)
    first = merge(plan_pile(sources, seed=0, **SMALL), store, tmp_path / "first")
    again = merge(plan_pile(three_components(store), seed=0, **SMALL), store, tmp_path / "again")
    other = merge(plan_pile(sources, seed=1, **SMALL), store, tmp_path / "other")
    assert first == again
    assert not set(first.values()) & set(other.values())


def published(store: LocalStore, hub: LocalHub, folder: Path, source: PileSource, rows_per_shard: int) -> PileSource:
    """Publish a component with several shards and take it from the hub."""
    refs = [RowRef(source.files[f].name, int(n)) for f, n in zip(source.row_file, source.row_number, strict=True)]
    for number, start in enumerate(range(0, len(refs), rows_per_shard)):
        path = folder / source.name / "data" / f"train-{number:05d}.parquet"
        copy_rows(refs[start : start + rows_per_shard], store.open, path, ROW_SCHEMA)
    hub.publish(source.name, folder / source.name, progress=lambda line: None)
    files = [
        SourceFile(name=f"hub:{source.name}/{file.path}", size=file.size, sha256=file.sha256)
        for file in hub.files(source.name)
    ]
    return source_from_parquet(f"local/{source.name}", files, opener(store, hub))


def opener(store: LocalStore, hub: LocalHub) -> FileOpener:
    """Opens what is in the store and what is on the hub."""

    def open_file(name: str) -> pa.NativeFile:
        if not name.startswith("hub:"):
            return store.open(name)
        repository, _, path = name.removeprefix("hub:").partition("/")
        return open_path(str(hub.path(repository) / path))

    return open_file


def test_components_from_the_store_and_from_a_hub_give_the_same_pile(tmp_path: Path):
    store, hub = stored(tmp_path), LocalHub(tmp_path / "hub", "local")
    in_store = three_components(store)
    on_hub = [published(store, hub, tmp_path / "folders", source, 4) for source in in_store]
    mixed = [in_store[0], on_hub[1], in_store[2]]
    open_file = opener(store, hub)
    piles = []
    for number, sources in enumerate((in_store, on_hub, mixed)):
        plan = plan_pile(sources, seed=4, **SMALL)
        for shard in plan.record.shards:
            path = tmp_path / str(number) / f"{shard.name.split('-', 1)[1]}.parquet"
            assert write_shard(plan, shard.name, open_file, path).reasons == {}
        piles.append(digests(tmp_path / str(number)))
    assert piles[0] == piles[1] == piles[2]


def test_a_foreign_repository_is_merged_by_encoding_its_rows_anew(tmp_path: Path):
    store = stored(tmp_path)
    rows = synthetic_rows(7)
    ours = source_from_records("theirs", [store_session(store, "theirs/1", rows)])
    path = write_foreign(tmp_path / "foreign.parquet", rows, rows_per_group=3, compression="snappy")
    content = path.read_bytes()
    file = SourceFile(name=str(path), size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def open_file(name: str) -> Any:
        return open_path(name) if name == str(path) else store.open(name)

    theirs = source_from_parquet("someone/theirs", [file], open_file)
    assert theirs.name == "theirs"
    assert theirs.row_tokens.tolist() == ours.row_tokens.tolist()
    assert theirs.sessions == ours.sessions
    plans = [plan_pile([source], seed=0, test_size=0.2) for source in (ours, theirs)]
    for number, plan in enumerate(plans):
        report = write_shard(plan, plan.record.shards[0].name, open_file, tmp_path / f"{number}.parquet")
        assert report.decoded_rows == (report.rows if number else 0)
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_a_source_that_was_made_anew_since_the_plan_is_refused(tmp_path: Path):
    store = stored(tmp_path)
    records = store_component(store, "sample-a", [3, 4])
    plan = plan_pile([source_from_records("sample-a", records)], seed=0, test_size=0.2)
    store_session(store, "sample-a/spike_counts/ses-0", synthetic_rows(3, seed=9, session="ses-0", subject="sub-0"))
    with pytest.raises(MergeError, match=r"ses-0\.parquet has changed since the pile"):
        write_shard(plan, plan.record.shards[0].name, store.open, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_source_of_the_same_size_that_holds_other_rows_is_refused(tmp_path: Path):
    store = stored(tmp_path)
    records = [store_session(store, "a/1", synthetic_rows(5, session="ses-1"))]
    plan = plan_pile([source_from_records("a", records)], seed=0, test_size=0.2)
    again = store_session(store, "a/1", synthetic_rows(5, session="ses-2"))
    assert again.file.size == records[0].file.size
    with pytest.raises(MergeError, match=r"a/1\.parquet has changed since the pile was planned.*sha256"):
        write_shard(plan, plan.record.shards[0].name, store.open, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_source_that_is_gone_or_damaged_is_named(tmp_path: Path):
    store = stored(tmp_path)
    records = store_component(store, "sample-a", [9])
    plan = plan_pile([source_from_records("sample-a", records)], seed=0, test_size=0.2)
    path = store.root / records[0].file.key
    content = bytearray(path.read_bytes())
    content[8_330] ^= 255  # among the counts of the first row
    path.write_bytes(content)
    with pytest.raises(MergeError, match=r"ses-0\.parquet has changed since the pile was planned.*found: sha256"):
        write_shard(plan, plan.record.shards[0].name, store.open, tmp_path / "out.parquet")
    recorded = records[0].file.sha256  # where the digest is not computed, pages have checksums
    with pytest.raises(TableError, match=r"sample-a/spike_counts/ses-0\.parquet is damaged"):
        for shard in plan.record.shards:
            write_shard(plan, shard.name, store.open, tmp_path / "out.parquet", lambda _: recorded)
    path.unlink()
    with pytest.raises(StoreError, match=r"ses-0\.parquet is not in the store"):
        write_shard(plan, plan.record.shards[0].name, store.open, tmp_path / "out.parquet")


def test_a_shard_that_is_current_is_not_written_again(tmp_path: Path):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=0, **SMALL)
    name = plan.record.shards[0].name
    opened: list[str] = []

    def open_noted(key: str) -> Any:
        opened.append(key)
        return store.open(key)

    first = build_shard(store, "neural_pile/shards", plan, name, open_noted)
    assert opened
    opened.clear()
    assert build_shard(store, "neural_pile/shards", plan, name, open_noted) == first
    assert opened == []
    assert (first.rows, first.tokens, first.decoded) == (plan.record.shards[0].rows, plan.record.shards[0].tokens, {})
    store.delete(first.file.key)
    assert build_shard(store, "neural_pile/shards", plan, name, open_noted) == first
    assert opened
