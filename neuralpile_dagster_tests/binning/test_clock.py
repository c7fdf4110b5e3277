"""What is measured of a session's clock, against plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from neuralpile_dagster.binning.clock import TALLY_WIDTH, measure_clock, observed_seconds, scan_clock, scan_spikes
from neuralpile_dagster.binning.source import CountSource, count_source
from neuralpile_dagster.recordings.model import BinnedCounts, BinRule, Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.records import ClockRecord

Intervals = tuple[tuple[float, float], ...]
NAN = math.nan


def made(
    trains: Sequence[Sequence[float]], intervals: Sequence[Intervals | None], rule: BinRule = "histogram"
) -> tuple[Recording, CountSource]:
    units = tuple(Unit(row, "a.nwb", obs_intervals=each) for row, each in enumerate(intervals))
    times = np.array([time for train in trains for time in train], float)
    data = SpikeTrains(times, np.cumsum([len(train) for train in trains]), rule)
    recording = Recording(data, units, SessionFacts())
    return recording, count_source(recording, 0.5, "a.nwb")


def total(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, piece by piece between all their ends."""
    edges = sorted({edge for interval in intervals for edge in interval})
    covered = [
        (low, high) for low, high in pairwise(edges) if any(start <= low and high <= stop for start, stop in intervals)
    ]
    return sum(high - low for low, high in covered)


def within(intervals: Intervals | None, start: float, stop: float) -> list[tuple[float, float]]:
    cut = [(max(low, start), min(high, stop)) for low, high in intervals or ()]
    return [(low, high) for low, high in cut if low < high]


def expected(recording: Recording, source: CountSource) -> tuple[ClockRecord, list[float]]:
    """The clock, and for how long each unit was observed."""
    data = recording.data
    assert isinstance(data, SpikeTrains)
    trains = [train.tolist() for train in np.split(data.spike_times, data.ends[:-1])]
    known = [[time for time in train if not math.isnan(time)] for train in trains]
    from_zero = data.bin_rule == "histogram"
    binned = [time for train in known for time in train if time >= 0 or not from_zero]
    first, last = min(binned), max(binned)
    start = 0.0 if from_zero else first
    stop = start + source.n_bins * source.bin_width_s
    falls = [[a - b for a, b in pairwise(train) if b < a] for train in known]
    usable = [[each for each in unit.obs_intervals or () if each[0] < each[1]] for unit in recording.units]
    cut = [within(unit.obs_intervals, start, stop) for unit in recording.units]
    unstated = [] if all(cut) else [(first, last)]
    clock = ClockRecord(
        start_s=start,
        first_spike_s=first,
        last_spike_s=last,
        observed_s=total([*(each for one in cut for each in one), *unstated]),
        intervals_stated=any(cut),
        outside_intervals=sum(
            not any(low <= time <= high for low, high in intervals)
            for train, intervals in zip(known, usable, strict=True)
            if intervals
            for time in train
        ),
        falls=sum(map(len, falls)),
        falling_units=sum(map(bool, falls)),
        largest_fall_s=max((fall for each in falls for fall in each), default=0.0),
        whole_times=sum(time.is_integer() for train in known for time in train),
    )
    seconds = [total(each) if each else last - first for each in cut]
    return clock, [value or stop - start for value in seconds]


@pytest.mark.parametrize("rule", ["histogram", "from_first_spike"])
def test_the_clock_is_that_of_plain_python(rule: BinRule) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        trains = [np.round(rng.uniform(-3, 20, rng.integers(0, 9)) * 4) / 4 for _ in range(rng.integers(1, 5))]
        trains[0] = np.append(trains[0], [7.25, 3.0])  # two different times, so that there is something to bin
        if rule == "histogram":
            trains[0] = np.insert(trains[0], 1, NAN)
        spans = [rng.integers(-4, 26, (rng.integers(1, 5), 2)).astype(float) for _ in trains]  # some are empty
        intervals = [
            None if rng.random() < 0.3 else tuple((low, high) for low, high in each.tolist()) for each in spans
        ]
        recording, source = made([train.tolist() for train in trains], intervals, rule)
        clock, seconds = expected(recording, source)
        assert measure_clock(recording, source, scan_spikes(recording)) == clock, seed
        np.testing.assert_allclose(observed_seconds(recording.units, clock, source.n_bins * 0.5), seconds)


def test_units_without_intervals_were_observed_from_the_first_spike_to_the_last() -> None:
    recording, source = made([[2.0, 6.5], [3.0]], [None, ((0.0, 1.0),)])
    clock = measure_clock(recording, source, scan_spikes(recording))
    assert (clock.observed_s, clock.intervals_stated) == (5.5, True)
    assert observed_seconds(recording.units, clock, 7.0).tolist() == [4.5, 1.0]


def test_a_session_of_one_spike_was_observed_as_long_as_its_counts() -> None:
    recording, source = made([[3.0], []], [None, None])
    assert observed_seconds(
        recording.units, measure_clock(recording, source, scan_spikes(recording)), 3.5
    ).tolist() == [3.5, 3.5]


@pytest.mark.parametrize(
    ("active", "first", "last"), [([2, 5], 1.0, 3.0), ([], 0.0, 4.0)], ids=["with spikes", "without"]
)
def test_ready_counts_have_no_clock_and_their_seconds_begin_with_bin_0(
    active: list[int], first: float, last: float
) -> None:
    counts = np.zeros((2, 8), np.uint8)
    counts[1, active] = 3
    units = (Unit(0, "a.nwb", obs_intervals=((-5.0, 1.5), (3.5, 9.0))), Unit(1, "a.nwb", obs_intervals=((1.0, 2.0),)))
    recording = Recording(BinnedCounts(counts, 0.5, int(counts.sum())), units, SessionFacts())
    assert measure_clock(recording, count_source(recording, 0.5, "a.nwb"), scan_spikes(recording)) == ClockRecord(
        start_s=None, first_spike_s=first, last_spike_s=last, observed_s=2.5, intervals_stated=True
    )


def test_a_time_after_the_last_interval_reads_nothing_beyond_it() -> None:
    starts, stops, tally = np.array([1.0]), np.array([2.0]), np.zeros(TALLY_WIDTH, np.int64)
    scan_clock.py_func(np.array([1.5, 9.25]), starts, stops, 0.0, tally, np.zeros(3))  # compiled, it would not check
    assert tally.tolist() == [0, 0, 1]
