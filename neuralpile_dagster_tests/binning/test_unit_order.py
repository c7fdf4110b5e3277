"""The order of units is that of scipy on the whole session, however it is cut, and whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from neuralpile_dagster.binning.unit_order import SILENT, UnitProducts


def session_of(counts: np.ndarray, *cuts: int, threads: int = 1) -> UnitProducts:
    session = UnitProducts(len(counts), threads)
    for segment in np.split(counts, cuts, axis=1):
        session.add(segment)
    return session


def recording(n_units: int, n_bins: int, seed: int, silent: int = 0) -> np.ndarray:
    """Groups of units with shared rates, shuffled; some of them without spikes."""
    rng = np.random.default_rng(seed)
    shared = rng.gamma(0.5, 1.0, (5, n_bins))
    rates = rng.lognormal(-2.5, 0.8, (n_units, 1)) * shared[rng.integers(0, 5, n_units)]
    counts = rng.poisson(rates).clip(0, 255).astype(np.uint8)
    counts[rng.permutation(n_units)[:silent]] = 0
    return counts


def by_scipy(counts: np.ndarray) -> np.ndarray:
    """The leaves as the published scripts order the units of one matrix of counts."""
    distances = pdist(counts.astype(np.float64), "cosine")
    distances[np.isnan(distances)] = 2.0
    return leaves_list(linkage(distances, "ward", optimal_ordering=True))


@pytest.mark.parametrize(
    ("n_units", "n_bins", "silent"), [(2, 50, 0), (3, 200, 1), (60, 4_000, 0), (60, 4_000, 7), (120, 3_000, 1)]
)
def test_it_is_the_order_of_scipys_distances_between_whole_rows(n_units: int, n_bins: int, silent: int):
    for seed in range(3):
        counts = recording(n_units, n_bins, seed, silent)
        leaves, expected = np.argsort(session_of(counts).order()), by_scipy(counts)
        assert leaves.tolist() in (expected.tolist(), expected[::-1].tolist())


def test_distances_are_those_of_scipy_and_two_where_a_unit_is_silent():
    counts = recording(30, 500, 0, silent=3)
    expected = pdist(counts.astype(np.float64), "cosine")
    np.testing.assert_allclose(session_of(counts).distances(), np.where(np.isnan(expected), SILENT, expected))


def test_rounding_makes_no_distance_negative():
    rng = np.random.default_rng(0)
    for _ in range(200):
        row = rng.integers(0, 85, 300).astype(np.uint8)
        almost = row + (rng.uniform(size=300) < 0.01).astype(np.uint8)
        found = session_of(np.stack([row, row, almost, row * np.uint8(3)])).distances()
        assert (found >= 0).all()
        assert found[[0, 2, 4]].tolist() == [0.0] * 3, "exactly, for rows that are multiples of each other"


def test_products_are_exact_integers_up_to_saturated_counts():
    rng = np.random.default_rng(0)
    counts = rng.integers(250, 256, (7, 70_000)).astype(np.uint8)
    exact = np.triu(counts.astype(np.int64) @ counts.astype(np.int64).T)
    assert exact.max() > 2**32
    found = session_of(counts, 1, 30_000)
    np.testing.assert_array_equal(found.products, exact)
    np.testing.assert_array_equal(found.totals, counts.sum(axis=1, dtype=np.int64))


@given(st.lists(st.integers(0, 300), max_size=6), st.integers(0, 3))
def test_segments_of_any_cut_give_the_same_products(cuts: list[int], seed: int):
    counts = recording(6, 300, seed)
    whole, parts = session_of(counts), session_of(counts, *sorted(cuts))
    np.testing.assert_array_equal(parts.products, whole.products)
    assert parts.order().tobytes() == whole.order().tobytes()


def test_a_segment_longer_than_a_block_is_one_session(monkeypatch: pytest.MonkeyPatch):
    from neuralpile_dagster.binning import unit_order

    counts = recording(6, 1_000, 1)
    whole = session_of(counts)
    monkeypatch.setattr(unit_order, "_BLOCK_TOKENS", 60)
    np.testing.assert_array_equal(session_of(counts, 333).products, whole.products)


def test_one_and_two_threads_give_the_same_bytes():
    counts = np.random.default_rng(0).poisson(1.0, (64, 20_000)).astype(np.uint8)  # enough for a second thread
    one, two = (session_of(counts, 15_000, threads=threads) for threads in (1, 2))
    assert one.products.tobytes() == two.products.tobytes()
    assert one.order().tobytes() == two.order().tobytes()
    np.testing.assert_array_equal(one.products, np.triu(counts.astype(np.int64) @ counts.astype(np.int64).T))


@pytest.mark.parametrize("n_units", [0, 1])
@pytest.mark.parametrize("n_bins", [0, 10])
def test_no_unit_and_one_unit_have_an_order(n_units: int, n_bins: int):
    order = session_of(np.ones((n_units, n_bins), np.uint8)).order()
    assert (order.dtype, order.tolist()) == (np.int32, list(range(n_units)))


def test_of_two_units_the_one_with_more_spikes_comes_first_and_else_the_first():
    few, many = [0, 1, 0, 0], [1, 1, 0, 3]
    for rows, expected in (((few, many), [1, 0]), ((many, few), [0, 1]), ((few, few), [0, 1]), (([0], [0]), [0, 1])):
        assert session_of(np.array(rows, np.uint8)).order().tolist() == expected


def test_the_half_with_more_spikes_comes_first_and_a_tie_is_decided_by_the_first_unit():
    for seed in range(10):
        counts = recording(15, 400, seed)
        sorted_ = counts[np.argsort(session_of(counts).order())].sum(axis=1, dtype=np.int64)
        assert sorted_[:7].sum() >= sorted_[-7:].sum()
    pairs = np.zeros((4, 8), np.uint8)
    pairs[[0, 2], :4] = 1
    pairs[[1, 3], 4:] = 1
    for counts in (pairs, pairs[[1, 0, 3, 2]], np.zeros((4, 8), np.uint8)):
        leaves = np.argsort(session_of(counts).order())
        assert leaves[0] < leaves[-1], "the halves have as many spikes"


def test_units_that_fire_together_lie_side_by_side():
    rng = np.random.default_rng(3)
    group = rng.permutation(np.repeat(np.arange(4), 10))
    counts = (rng.uniform(size=(40, 2_000)) < 0.3 * (np.arange(2_000) // 50 % 4 == group[:, None])).astype(np.uint8)
    ordered = group[np.argsort(session_of(counts).order())]
    assert np.count_nonzero(np.diff(ordered)) == 3


def test_another_number_of_units_or_dtype_is_refused():
    session = UnitProducts(3)
    for counts in (np.zeros((2, 5), np.uint8), np.zeros((3, 5), np.int64), np.zeros(3, np.uint8)):
        with pytest.raises(ValueError, match="3 units"):
            session.add(counts)
