"""What the tests of reader `units` share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralpile_dagster.archives.sample.nwb import Electrodes
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import Recording, SpikeTrains
from neuralpile_dagster.recordings.readers import read_session
from neuralpile_dagster_tests.nwb import poisson_trains

TRAINS = poisson_trains(4, 20)


TWO_PROBES = Electrodes(
    ids=[100, 205, 310],
    locations=["VISp", "CA1", "unknown"],
    group_names=["probeA", "probeA", "probeB"],
    group_locations={"probeB": "thalamus"},
)


def read(*paths: Path) -> Recording:
    return read_session("units", [LocalFile(path.name, path) for path in paths])


def trains_of(recording: Recording) -> list[np.ndarray]:
    assert isinstance(recording.data, SpikeTrains)
    assert recording.data.spike_times.dtype == np.float64
    assert recording.data.ends.dtype == np.int64
    return np.split(recording.data.spike_times, recording.data.ends[:-1])


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
