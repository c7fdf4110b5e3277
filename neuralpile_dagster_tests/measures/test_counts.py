from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralpile_dagster.binning.measures import CountsMeasure
from neuralpile_dagster.records import CountsStats


def measured(counts: Any, size: int | None = None, width: float = 0.02, **losses: int) -> CountsStats:
    counts = np.asarray(counts, np.uint8)
    measure = CountsMeasure(len(counts), counts.shape[1], width)
    size = size or counts.shape[1]
    for start in range(0, counts.shape[1], size):
        measure.add(counts[:, start : start + size].copy())
    return measure.stats(int(counts.sum()) + sum(losses.values()), **losses)


def longest_run_of_zeros(sums: np.ndarray) -> int:
    return max(map(len, "".join("x" if total else "0" for total in sums).split("x")))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 6), st.integers(1, 80)),
        elements=st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 255)),
    ),
    st.integers(1, 30),
)
def test_measures_are_those_of_the_whole_matrix_however_it_is_cut(counts: np.ndarray, size: int):
    stats = measured(counts, size)
    totals = counts.sum(axis=1, dtype=np.int64)
    assert (stats.n_units, stats.n_bins, stats.tokens) == (*counts.shape, counts.size)
    assert stats.spikes_kept == totals.sum()
    assert stats.silent_units == np.count_nonzero(totals == 0)
    assert stats.max_count == counts.max()
    assert stats.histogram == tuple(np.bincount(counts.ravel()).tolist())
    assert sum(stats.histogram) == stats.tokens
    per_unit = (counts > 20).sum(axis=1)
    assert stats.implausible_bins == per_unit.sum()
    assert stats.implausible_units == tuple((k, n) for k, n in enumerate(per_unit.tolist()) if n)
    assert stats.longest_quiet_bins == longest_run_of_zeros(counts.sum(axis=0, dtype=np.int64))
    assert stats.fingerprint == measured(counts).fingerprint


@pytest.mark.parametrize(
    ("width", "plausible"), [(0.02, 20), (0.01, 10), (0.001, 1), (0.1, 100), (0.29, 255), (1.0, 255)]
)
def test_a_bin_is_implausible_above_one_kilohertz_whatever_its_width(width: float, plausible: int):
    stats = measured([[plausible, min(plausible + 1, 255)]], width=width)
    assert stats.implausible_bins == int(plausible < 255)


def test_the_fingerprint_tells_sessions_apart_by_length_and_by_unit():
    fingerprints = [
        measured(counts).fingerprint
        for counts in ([[1, 0], [0, 2]], [[1, 0, 0], [0, 2, 0]], [[0, 2], [1, 0]], [[2, 0], [0, 2]])
    ]
    assert len(set(fingerprints)) == 4
    assert measured([[0, 1], [2, 0]]).fingerprint == fingerprints[0]


def test_losses_are_passed_on_and_leave_no_spike_unaccounted():
    stats = measured([[1, 2]], dropped_nan=3, dropped_negative=1, lost_to_saturation=5)
    assert (stats.spikes_read, stats.spikes_kept, stats.unaccounted) == (12, 3, 0)
    assert (stats.dropped_nan, stats.dropped_negative, stats.lost_to_saturation) == (3, 1, 5)


def test_a_silent_session_has_only_zeros():
    stats = measured(np.zeros((3, 50)))
    assert (stats.histogram, stats.max_count, stats.silent_units, stats.longest_quiet_bins) == ((150,), 0, 3, 50)


@pytest.mark.parametrize("counts", [np.zeros((3, 5), np.int64), np.zeros((2, 5), np.uint8), np.zeros(3, np.uint8)])
def test_what_is_no_segment_of_the_session_is_refused(counts: np.ndarray):
    with pytest.raises(ValueError, match="not a segment of 3 units"):
        CountsMeasure(3, 50, 0.02).add(counts)


@pytest.mark.parametrize(("n_bins", "size"), [(1_000, 1_000), (1_000, 7), (997, 64), (50, 9), (1, 1)])
def test_activity_is_the_spikes_of_equal_parts_of_the_session_however_it_is_cut(n_bins: int, size: int):
    counts = np.random.default_rng(n_bins).poisson(0.5, (4, n_bins)).astype(np.uint8)
    parts = min(n_bins, 120)
    expected = [int(counts[:, i * n_bins // parts : (i + 1) * n_bins // parts].sum()) for i in range(parts)]
    assert list(measured(counts, size).activity) == expected


def test_more_bins_than_the_session_has_are_refused():
    measure = CountsMeasure(1, 3, 0.02)
    measure.add(np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match="bins up to 4 of a session of 3"):
        measure.add(np.zeros((1, 2), np.uint8))
