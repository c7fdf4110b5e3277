"""No number depends on how many threads share the units of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpile_dagster.binning import kernels
from neuralpile_dagster.binning.binner import Binner
from neuralpile_dagster.binning.clock import measure_clock, scan_spikes
from neuralpile_dagster.binning.kernels import over_units
from neuralpile_dagster.binning.measures import CountsMeasure
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster_tests.fixtures.reference_binning import awkward_recordings


@pytest.fixture(scope="module", autouse=True)
def _however_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "SMALL", 0)
        yield


def everything(trains: SpikeTrains, width: float, size: int, threads: int) -> tuple[Any, ...]:
    """All counts and all numbers about a session, made by so many threads."""
    binner = Binner(trains, width, threads=threads)
    measure = CountsMeasure(binner.n_units, binner.n_bins, width, threads)
    counts = []
    for start in range(0, binner.n_bins, size):
        counts.append(binner.counts(start, min(start + size, binner.n_bins)))
        measure.add(counts[-1])
    intervals = [None if unit % 3 else ((0.0, 1.0 + unit), (2.0, 2.5)) for unit in range(binner.n_units)]
    units = tuple(Unit(unit, "a.nwb", obs_intervals=some) for unit, some in enumerate(intervals))
    recording = Recording(trains, units, SessionFacts())
    clock = measure_clock(recording, binner, scan_spikes(recording, threads))
    return (
        np.concatenate(counts, axis=1).tobytes(),
        measure.unit_totals.tolist(),
        binner.kept,
        measure.stats(binner.spikes_read, clock, **binner.lost()),
    )


@settings(max_examples=20, deadline=None)
@given(awkward_recordings(), st.integers(2, 5))
def test_any_number_of_threads_gives_the_same_counts_and_statistics(case: Any, threads: int):
    recording, width, _ = case
    recording = SpikeTrains(recording.spike_times.astype(np.float64), recording.ends)
    size = -(-Binner(recording, width).n_bins // 3)
    assert everything(recording, width, size, threads) == everything(recording, width, size, 1)


def test_real_recordings_are_binned_the_same_by_several_threads(shared_data: Path):
    path = shared_data / "recordings" / "990001" / "sub-A2929" / "sub-A2929_ses-200711_behavior+ecephys.nwb"
    with h5py.File(path) as file:
        trains = SpikeTrains(file["units/spike_times"][()], file["units/spike_times_index"][()].astype(np.int64))
    assert everything(trains, 0.02, 7_000, 4) == everything(trains, 0.02, 7_000, 1)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 8))
def test_every_unit_is_in_one_group_and_groups_are_in_order(weights: list[int], threads: int):
    groups = over_units(lambda units: list(range(units.start, units.stop)), np.array(weights), threads)
    assert len(groups) <= threads
    assert all(groups)
    assert [unit for group in groups for unit in group] == list(range(len(weights)))


def test_an_error_in_a_thread_is_that_of_the_caller():
    def fail(units: slice) -> None:
        raise MemoryError(str(units))

    with pytest.raises(MemoryError):
        over_units(fail, np.ones(4, np.int64), 2)
