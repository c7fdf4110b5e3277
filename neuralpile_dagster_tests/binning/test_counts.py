from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.binning import binner as binner_module
from neuralpile_dagster.binning import kernels
from neuralpile_dagster.binning.binner import Binner, Losses
from neuralpile_dagster.errors import DamagedRecording, EmptyRecording
from neuralpile_dagster.recordings.model import BinRule, SpikeTrains
from neuralpile_dagster_tests.fixtures.reference_binning import (
    BIN,
    awkward_recordings,
    bin_all,
    from_first_spike_counts,
    histogram_counts,
    trains,
)


@settings(max_examples=100, deadline=None)
@given(awkward_recordings())
def test_counts_are_those_of_numpy_histogram(case: Any):
    recording, width, size = case
    expected = histogram_counts(recording, width)
    counts, binner = bin_all(recording, width, size)
    assert counts.dtype == np.uint8
    np.testing.assert_array_equal(counts, expected)
    times = recording.spike_times.astype(np.float64)
    last_edge = binner.n_bins * width
    assert binner.losses == Losses(
        negative=np.count_nonzero(times < 0),
        nan=np.count_nonzero(np.isnan(times)),
        beyond=np.count_nonzero(times > last_edge),
    )
    assert binner.kept == counts.sum()


@settings(max_examples=60, deadline=None)
@given(awkward_recordings("from_first_spike"))
def test_counts_from_the_first_spike_are_those_of_plain_python(case: Any):
    recording, width, size = case
    recording = SpikeTrains(recording.spike_times.astype(np.float64), recording.ends, "from_first_spike")
    counts, binner = bin_all(recording, width, size)
    np.testing.assert_array_equal(counts, from_first_spike_counts(recording, width))
    assert binner.losses == Losses()
    assert binner.kept == recording.n_spikes == counts.sum()


@settings(max_examples=50, deadline=None)
@given(awkward_recordings(), st.integers(0, 100), st.sampled_from(["histogram", "from_first_spike"]))
def test_some_units_alone_are_binned_as_among_all_units(case: Any, pick: int, rule: BinRule):
    recording, width, size = case
    recording = SpikeTrains(np.abs(np.nan_to_num(recording.spike_times.astype(np.float64))), recording.ends, rule)
    try:
        counts, whole = bin_all(recording, width, size)
    except EmptyRecording:
        return
    unit = pick % recording.n_units
    times = np.split(recording.spike_times, recording.ends[:-1])[unit]
    frame = (float(recording.spike_times.min()), whole.n_bins)
    alone = Binner(SpikeTrains(times, np.array([len(times)]), rule), width, frame=frame)
    np.testing.assert_array_equal(alone.counts(0, whole.n_bins)[0], counts[unit])


@pytest.mark.parametrize("rate", [30000.0, 25000.0, 24414.0625])
def test_spikes_of_a_sampling_clock_fall_as_numpy_has_them(rate: float):
    ticks = np.arange(0, int(rate * 4100), 211)
    on_edges = np.arange(0, 205000) * BIN
    times = np.sort(np.concatenate([ticks / rate, on_edges, np.round(on_edges, 4)]))
    recording = trains(times)
    counts, _ = bin_all(recording, size=4321)
    np.testing.assert_array_equal(counts, histogram_counts(recording))


def test_a_time_that_floor_division_puts_one_bin_too_early_or_late_is_put_right():
    counts, _ = bin_all(trains([3984.2, 4000.0]))
    assert math.floor(3984.2 / BIN) == 199210
    assert np.flatnonzero(counts[0]).tolist() == [199209, 199999]


@pytest.mark.parametrize(
    ("latest", "n_bins"),
    [(1.0, 50), (0.06, 3), (3600.0, 180000), (0.26, 14), (0.28, 15), (0.54, 28), (0.56, 29), (1.1, 56), (1.12, 57)],
)
def test_the_number_of_bins_is_numpys(latest: float, n_bins: int):
    recording = trains([0.01, latest])
    assert Binner(recording, BIN).n_bins == n_bins == histogram_counts(recording).shape[1]


def test_the_last_spike_can_lie_beyond_the_last_edge_and_is_counted_as_lost():
    counts, binner = bin_all(trains([0.01, 0.060000000000000005]))
    assert counts.tolist() == [[1, 0, 0]]
    assert binner.losses == Losses(beyond=1)


def test_the_last_bin_holds_its_right_edge():
    latest = 3 * BIN
    recording = trains([0.05, latest])
    np.testing.assert_array_equal(bin_all(recording)[0], histogram_counts(recording))
    assert bin_all(recording)[1].losses.beyond == int(latest > 3 * BIN)


def test_a_unit_without_spikes_is_a_row_of_zeros():
    counts, _ = bin_all(trains([], [0.03, 0.5], [], [0.2], []))
    assert counts.sum(axis=1).tolist() == [0, 2, 0, 1, 0]


def test_nan_and_negative_times_are_dropped_and_counted():
    counts, binner = bin_all(trains([-3.0, math.nan, 0.01, -0.0], [math.nan, 0.1]))
    assert counts[:, 0].tolist() == [2, 0]
    assert binner.losses == Losses(negative=1, nan=2)
    assert binner.kept == 3


def test_nan_between_sorted_times_hides_no_spike():
    recording = trains([0.01, math.nan, 0.03, math.nan, 0.05, 0.5, math.nan])
    np.testing.assert_array_equal(bin_all(recording, size=1)[0], histogram_counts(recording))


@pytest.mark.parametrize("rule", ["histogram", "from_first_spike"])
def test_counts_saturate_at_255_and_what_is_lost_is_counted(rule: BinRule):
    recording = trains([0.001] * 255 + [0.03] * 256 + [0.05] * 400 + [0.09], [0.2], rule=rule)
    counts, binner = bin_all(recording, size=2)
    assert counts[0, :5].tolist() == [255, 255, 255, 0, 1]
    assert binner.losses == Losses(lost_to_saturation=1 + 145, saturated_bins=2)
    assert binner.kept + binner.losses.lost_to_saturation == recording.n_spikes


def test_duplicate_spikes_are_counted_also_where_the_order_hides_them():
    assert Binner(trains([0.1, 0.1, 0.1, 0.2], [0.1, 0.3]), BIN).duplicate_spikes == 2
    assert Binner(trains([0.1, 0.2, 0.1], [0.5, math.nan, 0.5]), BIN).duplicate_spikes == 2


def test_the_session_that_is_a_multiple_of_the_bin_ends_in_its_last_bin_from_the_first_spike():
    counts, binner = bin_all(trains([10.0, 10.5], [10.25, 11.0], rule="from_first_spike"), 0.5)
    assert binner.n_bins == 2
    assert counts.tolist() == [[1, 1], [1, 1]]


def test_negative_times_count_from_the_first_spike():
    counts, binner = bin_all(trains([-1.0, 0.0], rule="from_first_spike"), 0.25)
    assert counts.tolist() == [[1, 0, 0, 1]]
    assert binner.losses == Losses()


@pytest.mark.parametrize("units", [([],), ([0.0],), ([-0.0, -3.0], []), ([math.nan],), ()])
def test_a_recording_without_a_spike_after_zero_is_refused(units: tuple[Any, ...]):
    with pytest.raises(EmptyRecording, match="a spike later than 0 s"):
        Binner(trains(*units), BIN)


@pytest.mark.parametrize("units", [([],), ([5.0], [5.0, 5.0])])
def test_a_recording_without_a_span_from_the_first_spike_is_refused(units: tuple[Any, ...]):
    with pytest.raises(EmptyRecording, match="two different spike times"):
        Binner(trains(*units, rule="from_first_spike"), BIN)


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
@pytest.mark.parametrize("rule", ["histogram", "from_first_spike"])
def test_infinite_times_are_refused(bad: float, rule: BinRule):
    with pytest.raises(DamagedRecording, match="1 infinite"):
        Binner(trains([0.1, 0.2], [bad], rule=rule), BIN)


def test_nan_is_refused_where_bins_begin_at_the_first_spike():
    with pytest.raises(DamagedRecording, match="1 NaN"):
        Binner(trains([0.1, math.nan, 0.2], rule="from_first_spike"), BIN)


@pytest.mark.parametrize("rule", ["histogram", "from_first_spike"])
@pytest.mark.parametrize("latest", [2.1e7, 1e300, 1.7e308])
def test_a_session_of_more_than_a_billion_bins_is_refused(latest: float, rule: BinRule):
    with pytest.raises(DamagedRecording, match="sub-1_ses-1 is too long"):
        Binner(trains([0.1, latest], rule=rule), BIN, "sub-1_ses-1")


@pytest.mark.parametrize("ends", [[3, 2, 4], [2, 3], [5], [-1, 4], []])
def test_an_index_that_contradicts_the_spikes_is_refused(ends: list[int]):
    with pytest.raises(DamagedRecording, match="index"):
        Binner(SpikeTrains(np.array([0.1, 0.2, 0.3, 0.4]), np.array(ends, np.int64)), BIN)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64])
def test_ends_of_any_integer_type_are_the_same_ends(dtype: Any):
    recording = SpikeTrains(np.array([0.1, 0.2, 0.3]), np.array([1, 1, 3], dtype))
    assert bin_all(recording)[0].sum(axis=1).tolist() == [1, 0, 2]


def test_bins_are_given_only_in_order_and_without_gaps():
    binner = Binner(trains([1.0]), BIN)
    binner.counts(0, 10)
    for start, stop in [(0, 10), (11, 20), (10, 10), (10, 51)]:
        with pytest.raises(ValueError, match="requested"):
            binner.counts(start, stop)


def test_the_callers_arrays_are_left_as_they_were():
    times, ends = np.array([0.5, 0.1, 0.3]), np.array([2, 3])
    bin_all(SpikeTrains(times, ends), size=3)
    assert times.tolist() == [0.5, 0.1, 0.3]
    assert ends.tolist() == [2, 3]


@pytest.mark.parametrize("threads", [1, 3])
def test_consumed_spike_times_are_binned_the_same_and_their_memory_is_given_back(
    monkeypatch: pytest.MonkeyPatch, threads: int
):
    monkeypatch.setattr(binner_module, "_GIVEN_BACK", 2_000)
    monkeypatch.setattr(kernels, "SMALL", 0)
    rng = np.random.default_rng(0)
    units = [np.sort(rng.uniform(0.1, 60, size)) for size in (3_000, 10, 0, 2_500, 4_000, 700)]
    units[3] = units[3][::-1].copy()  # packed in another order than stored
    kept = trains(*units)
    expected = bin_all(kept)[0]
    assert (kept.spike_times > 0).all()
    ours, lent = trains(*units), trains(*units)
    lent = replace(lent, spike_times=np.frombuffer(lent.spike_times.tobytes()))
    for recording in (ours, lent):
        binner = Binner(recording, BIN, threads=threads, consume=True)
        np.testing.assert_array_equal(binner.counts(0, binner.n_bins), expected)
    if sys.platform == "linux":
        assert np.count_nonzero(ours.spike_times == 0) > 5_000
    assert (lent.spike_times > 0).all()  # an array that is not its memory's owner


@pytest.mark.parametrize(("width", "error"), [(0.0, ValueError), (-1.0, ValueError), (math.nan, ValueError)])
def test_a_bin_width_that_is_none_is_refused(width: float, error: type[Exception]):
    with pytest.raises(error):
        Binner(trains([1.0]), width)


@pytest.mark.parametrize(
    ("path", "n_units", "n_bins", "kept"),
    [
        ("sub-A2929/sub-A2929_ses-200711_behavior+ecephys.nwb", 15, 59_999, 98_794),
        ("sub-A8604/sub-A8604_ses-211122_behavior+ecephys.nwb", 3, 54_368, 21_354),
    ],
)
def test_real_recordings_are_binned_as_numpy_does(shared_data: Path, path: str, n_units: int, n_bins: int, kept: int):
    with h5py.File(shared_data / "recordings" / "990001" / path) as file:
        recording = SpikeTrains(file["units/spike_times"][()], file["units/spike_times_index"][()].astype(np.int64))
    counts, binner = bin_all(recording, size=5000)
    assert (binner.n_units, binner.n_bins, binner.kept) == (n_units, n_bins, kept)
    np.testing.assert_array_equal(counts, histogram_counts(recording))


def test_a_session_above_the_bound_is_refused_before_memory_is_taken_for_it():
    held = trains([1.0, 100_000.0], [5.0], [])
    assert Binner(held, BIN, "a.nwb", 15_000_000).n_bins == 5_000_000
    with pytest.raises(DamagedRecording) as caught:
        Binner(held, BIN, "a.nwb", 14_999_999)
    assert str(caught.value).startswith(
        "a.nwb is longer than any session known; found: 3 units x 5,000,000 bins of 0.02 s = 15,000,000 tokens in "
        "27.8 h; the last spike is at 100,000 s; expected: at most 14,999,999 tokens; what to do: check that spike"
    )
    assert "max_session_tokens in its catalog row" in str(caught.value)
