"""Ready-made counts summed to wider bins."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.binning.source import count_source
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SessionFacts, Unit


def recording(counts: np.ndarray, width: float = 0.02, **lost: int) -> Recording:
    read = int(counts.sum()) + lost.get("lost_to_saturation", 0)
    units = tuple(Unit(row, "a.nwb") for row in range(len(counts)))
    return Recording(BinnedCounts(counts, width, read, **lost), units, SessionFacts())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 12), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_whole_bins_and_every_spike_is_kept_or_counted_as_lost(
    n_units: int, n_bins: int, k: int, most: int, seed: int
):
    counts = np.random.default_rng(seed).integers(0, most, (n_units, n_bins), np.uint8, endpoint=True)
    source = count_source(recording(counts), 0.02 * k, "x")
    padded = np.pad(counts.astype(int), ((0, 0), (0, -n_bins % k)))
    expected = padded.reshape(n_units, -1, k).sum(axis=2)
    assert (source.n_units, source.n_bins, source.bin_width_s) == (*expected.shape, 0.02 * k)
    cut = max(source.n_bins // 2, 1)
    parts = [source.counts(start, stop) for start, stop in ((0, cut), (cut, source.n_bins)) if stop > start]
    found = np.concatenate(parts, axis=1)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.minimum(expected, 255))
    lost = source.lost()
    assert lost["lost_to_saturation"] == int(np.maximum(expected - 255, 0).sum())
    assert lost["saturated_bins"] == int((expected > 255).sum())
    assert source.spikes_read == int(found.sum()) + lost["lost_to_saturation"]


def test_bins_that_the_file_had_saturated_or_missing_stay_counted():
    counts = np.array([[255, 0, 1, 1, 200, 100, 3]], np.uint8)
    source = count_source(recording(counts, lost_to_saturation=7, saturated_bins=1, missing_bins=2), 0.04, "x")
    np.testing.assert_array_equal(source.counts(0, 4), [[255, 2, 255, 3]])
    assert source.lost() == {"lost_to_saturation": 7 + 45, "saturated_bins": 2, "missing_bins": 2}
    assert source.spikes_read == int(counts.sum()) + 7


def test_the_files_own_width_gives_the_files_own_counts():
    counts = np.arange(12, dtype=np.uint8).reshape(2, 6)
    np.testing.assert_array_equal(count_source(recording(counts), 0.02, "x").counts(1, 5), counts[:, 1:5])


@pytest.mark.parametrize("width", [0.01, 0.03, 0.05, 0.0201])
def test_a_width_that_is_no_multiple_is_refused_with_the_files(width: float):
    with pytest.raises(ConfigurationError, match=re.escape("a whole multiple of 0.02 s")):
        count_source(recording(np.ones((1, 9), np.uint8)), width, "x")
