from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.binning.source import Segment, plan_segments


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 10**6), st.integers(1, 10**8))
def test_segments_cover_every_bin_once_and_are_equal_but_for_the_last(n_units: int, n_bins: int, limit: int):
    if n_units * n_bins / limit > 10**4:
        limit = n_units * n_bins // 10**4 + 1
    segments = plan_segments(n_units, n_bins, limit)
    assert segments[0].start == 0
    assert segments[-1].stop == n_bins
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))
    size = segments[0].n_bins
    assert all(s.n_bins == size for s in segments[:-1])
    assert 0 < segments[-1].n_bins <= size
    assert size * n_units < limit + n_units
    assert size == math.ceil(n_bins / math.ceil(n_units * n_bins / limit))
    assert [s.id for s in segments] == [f"segment_{i}" for i in range(len(segments))]


def test_a_session_of_exactly_the_limit_is_one_segment():
    assert plan_segments(100, 100_000, 10_000_000) == (Segment("segment_0", 0, 100_000),)
    assert len(plan_segments(100, 100_001, 10_000_000)) == 2


def test_a_published_session_is_cut_as_it_was():
    segments = plan_segments(3897, 608_148, 10_000_000)
    assert len(segments) == 237
    assert segments[0].n_bins * 3897 == 10_003_599


@pytest.mark.parametrize(
    ("n_units", "n_bins", "limit", "wanted", "written"), [(450, 49729, 100_000, 224, 223), (8, 49, 50, 8, 7)]
)
def test_an_empty_tail_segment_is_left_out(n_units: int, n_bins: int, limit: int, wanted: int, written: int):
    assert math.ceil(n_units * n_bins / limit) == wanted
    segments = plan_segments(n_units, n_bins, limit)
    assert len(segments) == written
    assert segments[-1].id == f"segment_{written - 1}"


def test_more_units_than_the_limit_gives_one_bin_a_segment():
    assert [s.n_bins for s in plan_segments(8, 3, 5)] == [1, 1, 1]


@pytest.mark.parametrize("case", [(0, 5, 10), (5, 0, 10), (5, 5, 0)])
def test_nothing_cannot_be_cut(case: Any):
    with pytest.raises(ValueError, match="nothing to cut"):
        plan_segments(*case)
