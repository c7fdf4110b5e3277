"""Spike times read back from the stored and published file, and converted for torch_brain."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.reading.spikes import spike_times, to_brainset
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.tables.spike_trains import write_recording

TIMES = [np.array([0.5, 0.25, np.nan, 7.0]), np.zeros(0), np.array([-0.1, 0.25])]
UNITS = tuple(Unit(10 + k, "x.nwb", brain_area="CA1" if k else None) for k in range(3))


def store(path: Path, times: list[np.ndarray]) -> Path:
    trains = SpikeTrains(np.concatenate(times), np.cumsum([len(some) for some in times]))
    write_recording(path, Recording(trains, UNITS[: len(times)], SessionFacts(subject="m1")))
    return path


def test_times_come_back_per_unit_to_the_last_bit(tmp_path: Path):
    found = spike_times(str(store(tmp_path / "s.parquet", TIMES)))
    assert [some.tobytes() for some in found] == [some.tobytes() for some in TIMES]


def test_a_session_of_ready_made_counts_has_no_times(tmp_path: Path):
    data = BinnedCounts(np.ones((1, 4), np.uint8), 0.02, 4)
    write_recording(tmp_path / "s.parquet", Recording(data, UNITS[:1], SessionFacts()))
    with pytest.raises(TableError, match="holds ready-made counts"):
        spike_times(tmp_path / "s.parquet")


def test_a_file_that_is_not_there_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.parquet cannot be read; found: no such file; .*spikes/<ses"):
        spike_times(tmp_path / "nope.parquet")
    with pytest.raises(ConfigurationError, match="found: a folder"):
        spike_times(tmp_path)


def test_a_brainset_has_sorted_times_and_labels(tmp_path: Path):
    temporaldata = pytest.importorskip("temporaldata", reason="temporaldata is not installed")
    to_brainset(store(tmp_path / "s.parquet", TIMES), tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        data = temporaldata.Data.from_hdf5(file, lazy=False)
    np.testing.assert_array_equal(data.spikes.timestamps, [-0.1, 0.25, 0.25, 0.5, 7.0])
    assert data.spikes.unit_index.tolist() == [2, 0, 2, 0, 0]
    assert (float(data.domain.start[0]), float(data.domain.end[0])) == (-0.1, 7.0)
    assert data.units.id.tolist() == ["10", "11", "12"]
    assert data.units.brain_area.tolist() == ["", "CA1", "CA1"]
    assert data.subject.id == "m1"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "temporaldata", None)
    with pytest.raises(ConfigurationError, match="pip install temporaldata"):
        to_brainset(store(tmp_path / "s.parquet", TIMES), tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
