"""The most similar motif: exactly the best one, of equals the first, and never worse than the published rule's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.motifs.nearest import References
from neuralpile_dagster_tests.fixtures.tokens import scores, upstream_nearest


def by_whole_numbers(patches: np.ndarray, references: np.ndarray) -> list[int]:
    """The rule itself, in Python's integers, which have no bounds."""
    found = []
    for patch in patches.tolist():
        best, product, square = -1, 0, 1
        for number, reference in enumerate(references.tolist()):
            a = sum(x * y for x, y in zip(patch, reference, strict=True))
            s = sum(x * x for x in reference)
            if a * a * square > product * product * s:
                best, product, square = number, a, s
        found.append(best)
    return found


def drawn(rng: np.random.Generator, n: int, cells: int, largest: int) -> np.ndarray:
    return (rng.integers(0, largest + 1, (n, cells)) * (rng.random((n, cells)) < 0.4)).astype(np.uint8)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 32), st.sampled_from([1, 2, 15, 255]), st.integers(1, 600))
def test_it_is_the_best_in_whole_numbers_and_of_equals_the_first(seed: int, cells: int, largest: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    references, patches = drawn(rng, n, cells, largest), drawn(rng, 5, cells, largest)
    assert References(references).nearest(patches).tolist() == by_whole_numbers(patches, references)


def test_of_equals_it_is_the_first_wherever_that_one_lies() -> None:
    rng = np.random.default_rng(2)
    references, patches = drawn(rng, 3000, 12, 2), drawn(rng, 600, 12, 2)
    squares = np.square(references, dtype=np.int64).sum(axis=1)
    products = patches.astype(np.int64) @ references.T
    quotients = products**2 / np.maximum(squares, 1)  # small numbers: equal ones are equal in float64 too
    expected = np.where(quotients.any(axis=1), np.argmax(quotients, axis=1), -1)
    ties = (quotients == quotients.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert ties.sum() > 50
    assert References(references).nearest(patches).tolist() == expected.tolist()


def test_largest_counts_do_not_overflow_and_the_slightest_difference_decides() -> None:
    full = np.full((1, 32), 255, np.uint8)
    close = np.repeat(full, 4, axis=0)
    close[[0, 1, 3], [0, 5, 9]] = 253, 254, 254
    others = close.copy()
    others[:, 20] = 250
    patches = np.concatenate([full, close, others])
    far_apart = np.zeros((4, 300, 32), np.uint8)  # in different blocks of references
    far_apart[:, 0] = close
    for references in (close, close[::-1], far_apart.reshape(-1, 32), far_apart[[1, 3, 2, 0]].reshape(-1, 32)):
        assert References(references).nearest(patches).tolist() == by_whole_numbers(patches, references)


def test_with_more_cells_exact_comparison_would_overflow_and_is_refused() -> None:
    assert (32 * 255**2) ** 3 < 2**63 < (33 * 255**2) ** 3
    with pytest.raises(ValueError, match="33 cells, at most 32"):
        References(np.zeros((1, 33), np.uint8))


def test_it_is_never_worse_than_the_published_rule_and_equal_but_for_near_ties() -> None:
    rng = np.random.default_rng(0)
    references = np.unique(rng.poisson(0.25, (560, 15)).astype(np.uint8), axis=0)[:500]
    patches = rng.poisson(0.3, (5000, 15)).astype(np.uint8)
    patches = patches[patches.any(axis=1)]
    ours, published = References(references).nearest(patches), upstream_nearest(patches, references)
    assert ours.min() >= 0
    better = scores(patches, references, ours) - scores(patches, references, published)
    assert better.min() > -1e-12  # the rounding of these scores themselves
    assert np.abs(better[ours != published]).max(initial=0) < 1e-6
    assert 0.5 < np.mean(ours == published) < 1, "ties are decided differently, nothing else"
    unit = references / np.maximum(np.linalg.norm(references, axis=1, keepdims=True), 1e-300)
    assert np.all(scores(patches, references, ours) > (patches @ unit.T).max(axis=1) - 1e-12)


def test_a_patch_that_overlaps_with_nothing_has_no_nearest_reference() -> None:
    references = References(np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], np.uint8))
    assert references.nearest(np.array([[0, 0, 7], [0, 0, 0], [0, 1, 7]], np.uint8)).tolist() == [-1, -1, 2]
    assert References(np.zeros((0, 3), np.uint8)).nearest(np.ones((2, 3), np.uint8)).tolist() == [-1, -1]


def test_threads_and_batches_do_not_change_it() -> None:
    rng = np.random.default_rng(1)
    references, patches = drawn(rng, 3000, 15, 3), drawn(rng, 1500, 15, 9)
    found = References(references).nearest(patches)
    assert References(references).nearest(patches, threads=3).tolist() == found.tolist()
    one_by_one = [int(References(references).nearest(patch[None])[0]) for patch in patches[:40]]
    assert one_by_one == found[:40].tolist()
    assert one_by_one[:15] == by_whole_numbers(patches[:15], references)
