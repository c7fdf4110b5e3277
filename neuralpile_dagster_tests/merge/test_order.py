from __future__ import annotations

import math
import re

import datasets
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.order import draw_splits, permutation
from neuralpile_dagster.merge.plan import arrange
from neuralpile_dagster.merge.shards import cut

SEEDS = st.integers(0, 2**32)
SIZES = st.floats(0.001, 0.999)


def split_rows(n: int, seed: int, test_size: float) -> list[np.ndarray]:
    parts = arrange(draw_splits(n, seed, test_size), permutation(n, seed))
    return [parts["train"], parts["test"]]


def split_sessions(row_sessions: np.ndarray, seed: int, test_size: float) -> list[np.ndarray]:
    n_sessions = int(row_sessions.max(initial=-1)) + 1
    drawn = draw_splits(n_sessions, seed, test_size, units="sessions")
    parts = arrange(drawn[row_sessions], permutation(len(row_sessions), seed))
    return [parts["train"], parts["test"]]


@settings(deadline=None, max_examples=60)
@given(n=st.integers(2, 500), seed=SEEDS, test_size=SIZES)
def test_rows_are_split_and_ordered_as_datasets_does(n: int, seed: int, test_size: float):
    assume(math.ceil(test_size * n) < n)
    expected = datasets.Dataset.from_dict({"row": range(n)}).train_test_split(test_size=test_size, seed=seed)
    train, test = split_rows(n, seed, test_size)
    assert train.tolist() == expected["train"]["row"][:]
    assert test.tolist() == expected["test"]["row"][:]


@given(n=st.integers(2, 2_000), seed=SEEDS, test_size=SIZES)
def test_every_row_is_in_one_split_once(n: int, seed: int, test_size: float):
    assume(math.ceil(test_size * n) < n)
    train, test = split_rows(n, seed, test_size)
    assert len(test) == math.ceil(test_size * n)
    assert sorted([*train, *test]) == list(range(n))


@st.composite
def sessions_of_rows(draw: st.DrawFn) -> np.ndarray:
    lengths = draw(st.lists(st.integers(1, 20), min_size=2, max_size=40))
    return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


@given(sessions=sessions_of_rows(), seed=SEEDS, test_size=SIZES)
def test_no_session_is_on_both_sides_when_sessions_are_split(sessions: np.ndarray, seed: int, test_size: float):
    n_sessions = int(sessions[-1]) + 1
    assume(math.ceil(test_size * n_sessions) < n_sessions)
    train, test = split_sessions(sessions, seed, test_size)
    assert not set(sessions[train]) & set(sessions[test])
    assert len(set(sessions[test])) == math.ceil(test_size * n_sessions)
    assert sorted([*train, *test]) == list(range(len(sessions)))


@given(sessions=sessions_of_rows(), seed=SEEDS)
def test_rows_of_both_splits_follow_one_shuffle_of_all_rows(sessions: np.ndarray, seed: int):
    order = {row: place for place, row in enumerate(np.random.default_rng(seed).permutation(len(sessions)).tolist())}
    for part in split_sessions(sessions, seed, 0.01):
        places = [order[row] for row in part.tolist()]
        assert places == sorted(places)


def test_another_seed_gives_another_order():
    orders = {tuple(split_rows(1_000, seed, 0.01)[0]) for seed in range(10)}
    assert len(orders) == 10


@given(
    sizes=st.lists(st.integers(0, 1_000), min_size=0, max_size=200),
    limit=st.integers(1, 3_000),
    overhead=st.integers(0, 50),
    max_rows=st.integers(1, 20),
)
def test_shards_cover_all_rows_in_order_within_the_limits(sizes: list[int], limit: int, overhead: int, max_rows: int):
    cuts = cut(np.array(sizes, np.int64), limit, overhead, max_rows)
    assert [row for start, stop in cuts for row in range(start, stop)] == list(range(len(sizes)))
    for number, (start, stop) in enumerate(cuts):
        size = sum(sizes[start:stop]) + overhead * (stop - start)
        assert size <= limit or stop == start + 1
        assert stop - start <= max_rows
        if number + 1 < len(cuts):  # the next row did not fit
            assert size + sizes[stop] + overhead > limit or stop - start == max_rows


@given(sessions=sessions_of_rows(), seed=SEEDS, test_size=SIZES)
def test_the_sessions_of_the_test_split_are_the_first_of_a_seeded_permutation(
    sessions: np.ndarray, seed: int, test_size: float
):
    n_sessions = int(sessions[-1]) + 1
    n_test = math.ceil(test_size * n_sessions)
    assume(n_test < n_sessions)
    _, test = split_sessions(sessions, seed, test_size)
    assert set(sessions[test].tolist()) == set(np.random.default_rng(seed).permutation(n_sessions)[:n_test].tolist())


def test_another_seed_puts_other_sessions_into_test():
    sessions = np.repeat(np.arange(50, dtype=np.int32), 3)
    chosen = {tuple(sorted(set(sessions[split_sessions(sessions, seed, 0.2)[1]].tolist()))) for seed in range(10)}
    assert len(chosen) == 10


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_a_test_size_out_of_range_is_named(test_size: float):
    with pytest.raises(MergeError, match="test_size"):
        split_rows(10, 0, test_size)
    with pytest.raises(MergeError, match="test_size"):
        split_sessions(np.arange(10), 0, test_size)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_or_sessions_name_the_setting(n: int):
    with pytest.raises(MergeError, match=re.escape("split_by: rows needs at least two rows")):
        split_rows(n, 0, 0.5)
    with pytest.raises(MergeError, match=r"split_by: sessions needs at least two sessions.*split_by: rows"):
        split_sessions(np.zeros(n * 5, np.int32), 0, 0.5)


def test_a_test_size_that_leaves_nothing_to_train_on_is_named():
    with pytest.raises(MergeError, match=r"test_size 0\.9 leaves nothing to train on"):
        split_rows(2, 0, 0.9)


def test_a_negative_seed_is_named():
    with pytest.raises(MergeError, match="seed"):
        split_rows(10, -1, 0.5)
