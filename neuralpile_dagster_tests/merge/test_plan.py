from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import MergeError, StoreError
from neuralpile_dagster.merge.model import PilePlan, PlanRecord
from neuralpile_dagster.merge.plan import load_plan, plan_pile, save_plan
from neuralpile_dagster.merge.sources import PileSource, SourceFile
from neuralpile_dagster.store import check_key
from neuralpile_dagster_tests.fixtures.components import stored, three_components


def source(name: str, lengths: list[int], seed: int = 0) -> PileSource:
    """A component that exists as numbers only: one file per session."""
    n_rows, rng = sum(lengths), np.random.default_rng(seed)
    numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return PileSource(
        name=name,
        files=tuple(
            SourceFile(name=f"{name}/{n}.parquet", size=length, sha256=f"{n:064x}") for n, length in enumerate(lengths)
        ),
        sessions=tuple((f"sub-{n}", f"ses-{n}") for n in range(len(lengths))),
        session_datasets=(name,) * len(lengths),
        row_file=numbers,
        row_number=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        row_session=numbers,
        row_tokens=rng.integers(1, 10_000_000, n_rows),
        row_bytes=rng.integers(1, 1_000_000, n_rows),
        row_segment=tuple(f"segment_{row}" for length in lengths for row in range(length)),
    )


SOURCES = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=4).map(
    lambda lengths: [source(f"dataset-{n}", some, seed=n) for n, some in enumerate([*lengths, [2, 1]])]
)


def places(plan: PilePlan) -> list[tuple[str, int]]:
    return list(zip(plan.rows["file"].to_pylist(), plan.rows["row"].to_pylist(), strict=True))


@settings(deadline=None, max_examples=25)
@given(sources=SOURCES, seed=st.integers(0, 99), split_by=st.sampled_from(["rows", "sessions"]))
def test_every_row_of_every_source_is_in_one_shard_once(sources: list[PileSource], seed: int, split_by: Any):
    plan = plan_pile(sources, seed=seed, split_by=split_by, test_size=0.2, shard_bytes=1_500_000)
    expected = {(s.files[f].name, int(r)) for s in sources for f, r in zip(s.row_file, s.row_number, strict=True)}
    assert len(places(plan)) == len(expected)
    assert set(places(plan)) == expected
    refs = [ref for shard in plan.record.shards for ref in plan.refs(shard.name)]
    assert [(ref.file, ref.row_group) for ref in refs] == places(plan)
    assert [ref.source_dataset for ref in refs] == [ref.file.split("/")[0] for ref in refs]


@settings(deadline=None, max_examples=25)
@given(sources=SOURCES, seed=st.integers(0, 99), split_by=st.sampled_from(["rows", "sessions"]))
def test_totals_are_those_of_the_rows(sources: list[PileSource], seed: int, split_by: Any):
    plan = plan_pile(sources, seed=seed, split_by=split_by, test_size=0.2, shard_bytes=1_500_000)
    record = plan.record
    rows = plan.rows.to_pylist()
    for split in ("train", "test"):
        chosen = [row for row in rows if row["split"] == split]
        assert record.splits[split].rows == len(chosen)
        assert record.splits[split].tokens == sum(row["tokens"] for row in chosen)
        named = [(row["source_dataset"], row["subject_id"], row["session_id"]) for row in chosen]
        assert record.splits[split].sessions == len(set(named))
        for planned in record.sources:
            own = [row for row in chosen if row["source_dataset"] == planned.name]
            assert (planned.splits[split].rows, planned.splits[split].tokens) == (
                len(own),
                sum(row["tokens"] for row in own),
            )
    assert record.totals.tokens == sum(int(s.row_tokens.sum()) for s in sources)
    assert record.totals.sessions == sum(len(s.sessions) for s in sources)
    for shard in record.shards:
        chosen = rows[shard.start : shard.stop]
        assert {row["split"] for row in chosen} == {shard.split}
        assert (shard.tokens, shard.bytes) == (sum(r["tokens"] for r in chosen), sum(r["bytes"] for r in chosen))


def test_sessions_of_the_same_name_in_two_components_are_two_sessions():
    plan = plan_pile([source("a", [1] * 5), source("b", [1] * 5)], seed=0, split_by="sessions", test_size=0.31)
    assert plan.record.splits["test"].sessions == math.ceil(0.31 * 10)


def test_the_same_inputs_give_the_same_plan():
    plans = [plan_pile([source("a", [3, 4]), source("b", [5])], seed=3, test_size=0.1) for _ in range(2)]
    assert plans[0].record == plans[1].record
    assert plans[0].rows.equals(plans[1].rows)


def test_every_input_changes_the_name_of_the_plan():
    a, b = source("a", [3, 4]), source("b", [5, 1])
    other_file = a.files[0].model_copy(update={"sha256": "f" * 64})
    changed = dataclasses.replace(a, files=(other_file, *a.files[1:]))
    plans = [
        plan_pile([a, b], seed=0),
        plan_pile([a, b], seed=1),
        plan_pile([a, b], seed=0, split_by="sessions"),
        plan_pile([a, b], seed=0, test_size=0.02),
        plan_pile([a, b], seed=0, shard_bytes=400_000_000),
        plan_pile([b, a], seed=0),
        plan_pile([a], seed=0),
        plan_pile([changed, b], seed=0),
        plan_pile([dataclasses.replace(a, name="c"), b], seed=0),
    ]
    assert len({plan.record.plan_id for plan in plans}) == len(plans)


def test_shards_are_named_after_their_plan_and_split():
    record = plan_pile([source("a", [30, 40])], seed=0, test_size=0.1, shard_bytes=4_000_000).record
    names = [shard.name for shard in record.shards]
    assert names[0] == f"{record.plan_id}-train-00000"
    assert names[-1].startswith(f"{record.plan_id}-test-0000")
    assert len(record.plan_id) == 8
    assert len(set(names)) == len(names)
    for name in names:
        assert check_key(name) == name


def test_an_unknown_shard_is_refused():
    plan = plan_pile([source("a", [3])], seed=0)
    with pytest.raises(MergeError, match="deadbeef-train-00000 is not a shard of the plan"):
        plan.refs("deadbeef-train-00000")


@pytest.mark.parametrize("sources", [[], [source("a", [3]), source("a", [4])]])
def test_no_components_or_one_twice_is_refused(sources: list[PileSource]):
    with pytest.raises(MergeError, match="components to merge"):
        plan_pile(sources, seed=0)


def test_wrong_settings_are_named():
    with pytest.raises(MergeError, match="split_by"):
        plan_pile([source("a", [3])], seed=0, split_by="subjects")  # type: ignore[arg-type]
    with pytest.raises(MergeError, match="shard_bytes"):
        plan_pile([source("a", [3])], seed=0, shard_bytes=1_000)


def test_a_stored_plan_is_the_plan(tmp_path: Path):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=5, split_by="sessions", test_size=0.3, shard_bytes=20_000)
    record = save_plan(store, "neural_pile/plans/x", plan)
    loaded = load_plan(store, "neural_pile/plans/x")
    assert loaded.record == record
    assert loaded.record.model_copy(update={"rows_file": None}) == plan.record
    assert loaded.rows.equals(plan.rows)
    for shard in record.shards:
        assert loaded.refs(shard.name) == plan.refs(shard.name)


def test_a_bit_of_a_stored_plan_that_flips_is_found(tmp_path: Path):
    store = stored(tmp_path)
    plan = plan_pile(three_components(store), seed=5, split_by="sessions", test_size=0.3, shard_bytes=20_000)
    save_plan(store, "plan", plan)
    path = Path(store.uri("plan.rows.parquet"))
    content = path.read_bytes()
    silent = 0
    for place in range(4, len(content) - 8, 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            silent += not pq.read_table(path).equals(plan.rows)
        with pytest.raises(StoreError, match=r"plan\.rows\.parquet is damaged; found: sha256"):
            load_plan(store, "plan")
    assert silent, "pyarrow alone reads some as another plan"


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(MergeError, match="no such plan"):
        load_plan(stored(tmp_path), "neural_pile/plans/x")


def test_a_plan_of_the_whole_pile_is_small(tmp_path: Path):
    """45,000 rows of 20,000 sessions, each a file."""
    lengths = np.random.default_rng(0).multinomial(25_000, [1 / 20_000] * 20_000) + 1
    store = stored(tmp_path)
    save_plan(store, "plan", plan_pile([source("whole", lengths.tolist())], seed=0))
    assert load_plan(store, "plan").rows.num_rows == 45_000
    size = sum(store.size(key) or 0 for key in ("plan.json", "plan.rows.parquet"))
    assert size < 6_000_000


def test_a_record_survives_json():
    record = plan_pile([source("a", [3, 4])], seed=0, test_size=0.1).record
    assert PlanRecord.model_validate_json(record.model_dump_json()) == record


def test_a_source_with_labels_of_its_own_has_another_digest_and_one_without_that_of_before():
    plain = source("a", [2, 1])
    content = "".join(f"{file.name}\0{file.size}\0{file.sha256}\n" for file in plain.files)
    assert plain.digest == hashlib.sha256(f"a\n{content}".encode()).hexdigest()
    labelled = dataclasses.replace(plain, session_datasets=("x", "y"))
    assert labelled.digest != plain.digest
    record = plan_pile([labelled, source("b", [3])], seed=0, test_size=0.4).record
    assert [(planned.name, planned.totals.rows) for planned in record.sources] == [("x", 2), ("y", 1), ("b", 3)]


def test_sessions_of_equal_ids_under_two_source_datasets_are_two_sessions():
    twice = dataclasses.replace(source("a", [2, 2]), sessions=(("sub-0", "ses-0"),) * 2, session_datasets=("x", "y"))
    plan = plan_pile([twice], seed=0, split_by="sessions", test_size=0.5)
    assert (plan.record.splits["train"].sessions, plan.record.splits["test"].sessions) == (1, 1)
    assert len(set(plan.rows.filter(pc.equal(plan.rows["split"], "train"))["source_dataset"].to_pylist())) == 1
