"""Counts packed into a data page, and pages that somebody else may have made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.tables.packed import pack, recognize

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 300))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Counts of every width: few or many values, small or large, also of one unit and of one bin."""
    values = draw(st.lists(st.integers(0, 255), min_size=1, max_size=draw(st.sampled_from([1, 2, 4, 16, 40]))))
    shape, seed = draw(SHAPES), draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), shape)


@settings(max_examples=100, deadline=None)
@given(counts=matrices(), data=st.data())
@example(counts=np.arange(256, dtype=np.uint8).reshape(16, 16), data=None)
@example(counts=np.full((1, 1), 255, np.uint8), data=None)
def test_packed_counts_are_recognized_and_come_back_whole_and_in_windows(counts: np.ndarray, data: Any):
    packed = pack(counts)
    found = recognize(packed.page.tobytes(), counts.size, packed.values)
    assert found is not None
    assert (found.n_units, found.n_bins, found.width) == (*counts.shape, packed.width)
    np.testing.assert_array_equal(found.counts(), counts)
    stop = data.draw(st.integers(0, counts.shape[1])) if data else 1
    start = data.draw(st.integers(0, stop)) if data else 0
    np.testing.assert_array_equal(found.window(start, stop), counts[:, start:stop])


@pytest.mark.parametrize(
    ("values", "width"), [([0], 1), ([0, 1], 1), ([2, 3], 2), ([15, 3], 4), ([0, 255], 1), ([*range(17)], 8)]
)
def test_the_width_is_the_smallest_that_divides_a_byte(values: list[int], width: int):
    assert pack(np.array([values], np.uint8)).width == width


def test_few_large_counts_are_packed_as_indices():
    packed = pack(np.array([[0, 200, 0, 255, 7] * 10], np.uint8))
    assert (packed.width, packed.values.tolist()) == (2, [0, 7, 200, 255])


def test_a_window_outside_of_the_row_is_refused():
    packed = pack(np.zeros((2, 10), np.uint8))
    for start, stop in ((-1, 3), (3, 2), (0, 11)):
        with pytest.raises(ValueError, match="of 10"):
            packed.window(start, stop)


def test_an_index_beyond_the_dictionary_is_refused():
    packed = pack(np.array([[0, 1, 2, 3, 4]], np.uint8))
    with pytest.raises(ValueError, match="value 4 of 4"):
        recognize(packed.page.tobytes(), 5, packed.values[:4])


@settings(max_examples=200, deadline=None)
@given(counts=matrices(), data=st.data())
def test_a_damaged_page_is_refused_left_to_others_or_has_the_stated_size(counts: np.ndarray, data: st.DataObject):
    packed = pack(counts)
    page = bytearray(packed.page.tobytes())
    for _ in range(data.draw(st.integers(0, 3))):
        page[data.draw(st.integers(0, len(page) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(page[: data.draw(st.integers(0, len(page)))] if data.draw(st.booleans()) else page)
    n_tokens = data.draw(st.sampled_from([counts.size, counts.size + 1, 0, -1, 2**31 - 1]))
    try:
        found = recognize(cut, n_tokens, packed.values)
    except ValueError as error:
        assert "counts refer to value" in str(error)
    else:
        assert found is None or found.counts().size == found.window(0, found.n_bins).size == n_tokens


@settings(max_examples=200, deadline=None)
@given(page=st.binary(max_size=64), n_tokens=st.integers(-(2**31), 2**31 - 1), n_values=st.integers(0, 300))
@example(page=b"\xff\xff\xff\xff\x02\x00" + b"\xff" * 20, n_tokens=2**31 - 1, n_values=1)
@example(page=b"\x00\x00\x00\x40\x02\x00\x02\x02" + b"\x02\x01\x02\x02" * 8, n_tokens=2**29, n_values=1)
def test_any_bytes_are_left_to_others_without_taking_memory(page: bytes, n_tokens: int, n_values: int):
    assert recognize(page, n_tokens, np.zeros(n_values, np.uint8)) is None
