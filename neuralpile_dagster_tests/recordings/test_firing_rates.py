"""Reader `firing_rates`: Hz in 20 ms bins become counts, rounded half to even."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pynwb import TimeSeries

from neuralpile_dagster.catalog.readers import FIRING_RATES
from neuralpile_dagster.errors import ConfigurationError, DamagedRecording, EmptyRecording, NoUnits
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, read_session
from neuralpile_dagster.recordings.nwb import binned_series
from neuralpile_dagster.recordings.nwb.binned_series import counts_of
from neuralpile_dagster_tests.servers import nwb_files
from neuralpile_dagster_tests.servers.nwb_files import remove, rewrite, write_nwb_without_units

DATA = "acquisition/firing_rates/data"


def write_rates(path: Path, rates: Any, rate: float = 50.0) -> Path:
    file = nwb_files.new_file("R1", sex="M")
    file.add_acquisition(TimeSeries(name="firing_rates", data=np.asarray(rates, float), unit="Hz", rate=rate))
    return nwb_files.save(file, path)


def read(*paths: Path) -> Recording:
    return read_session("firing_rates", [LocalFile(path.name, path) for path in paths])


def counts_in(path: Path) -> BinnedCounts:
    data = read(path).data
    assert isinstance(data, BinnedCounts)
    return data


def test_counts_are_units_by_bins_and_units_are_row_numbers(tmp_path: Path):
    recording = read(write_rates(tmp_path / "a.nwb", [[50, 100], [0, 150], [200, 0]]))
    assert isinstance(recording.data, BinnedCounts)
    assert recording.data.counts.tolist() == [[1, 0, 4], [2, 3, 0]]
    assert recording.data.counts.dtype == np.uint8
    assert recording.data.bin_width_s == 0.02
    assert recording.data.spikes_read == 10
    assert [(unit.unit_id, unit.file) for unit in recording.units] == [(0, "a.nwb"), (1, "a.nwb")]
    assert (recording.facts.subject, recording.facts.sex) == ("R1", "M")


def test_halves_are_rounded_to_even(tmp_path: Path):
    data = counts_in(write_rates(tmp_path / "a.nwb", [[25], [75], [125], [24.9], [25.1], [-0.0]]))
    assert data.counts.tolist() == [[0, 2, 2, 0, 1, 0]]


def test_missing_bins_are_zero_and_counted(tmp_path: Path):
    data = counts_in(write_rates(tmp_path / "a.nwb", [[np.nan, 50], [100, np.nan], [np.nan, 0]]))
    assert data.counts.tolist() == [[0, 2, 0], [1, 0, 0]]
    assert data.missing_bins == 3


def test_counts_above_255_saturate_and_are_counted(tmp_path: Path):
    data = counts_in(write_rates(tmp_path / "a.nwb", [[255 * 50.0], [256 * 50.0], [300 * 50.0]]))
    assert data.counts.tolist() == [[255, 255, 255]]
    assert (data.saturated_bins, data.lost_to_saturation) == (2, 1 + 45)
    assert data.spikes_read == 255 + 256 + 300


@pytest.mark.parametrize("wrong", [-1.0, -1e-9, np.inf, -np.inf, 1e300])
def test_what_is_no_rate_is_refused_with_its_place(tmp_path: Path, wrong: float):
    with pytest.raises(DamagedRecording, match=r"a\.nwb.*in bin 2 of unit 1"):
        read(write_rates(tmp_path / "a.nwb", [[0, 0], [0, 0], [0, wrong], [0, wrong]]))


@given(
    rates=arrays(
        st.sampled_from([np.float64, np.float32, np.int16]),
        array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements={"min_value": 0, "max_value": 20_000},
    ),
    block=st.integers(1, 100),
)
def test_counts_equal_the_formula_whatever_the_block_and_dtype(rates: np.ndarray, block: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binned_series, "BLOCK_TOKENS", block)
        data = counts_of(rates, FIRING_RATES, name="a.nwb")
    expected = np.round(rates.T / 50)
    np.testing.assert_array_equal(data.counts, np.minimum(expected, 255))
    assert data.spikes_read == expected.sum() == int(data.counts.sum(dtype=int)) + data.lost_to_saturation


def test_another_stated_rate_is_noted(tmp_path: Path):
    (note,) = read(write_rates(tmp_path / "a.nwb", [[50.0]], rate=30.0)).notes
    assert "30.0 bins per second" in note
    assert read(write_rates(tmp_path / "b.nwb", [[50.0]])).notes == ()


def test_a_stated_rate_that_is_no_number_is_not_one(tmp_path: Path):
    path = write_rates(tmp_path / "a.nwb", [[50.0]])
    with h5py.File(path, "r+") as file:
        file["acquisition/firing_rates/starting_time"].attrs["rate"] = "fast"
    assert read(path).notes == ()
    assert read(remove(path, "acquisition/firing_rates/starting_time")).notes == ()


def test_a_file_without_rates_says_so(tmp_path: Path):
    with pytest.raises(NoUnits, match=r"a\.nwb has no binned series"):
        read(write_nwb_without_units(tmp_path / "a.nwb"))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.zeros(5), DamagedRecording),
        (np.zeros((5, 2, 1)), DamagedRecording),
        (np.full((5, 2), b"x"), DamagedRecording),
        (np.zeros((5, 2), bool), DamagedRecording),
        (np.zeros((0, 3)), EmptyRecording),
        (np.zeros((3, 0)), NoUnits),
    ],
    ids=["one dimension", "three dimensions", "text", "truth values", "no bins", "no units"],
)
def test_rates_of_another_form_are_refused(tmp_path: Path, values: np.ndarray, error: type[Exception]):
    path = write_rates(tmp_path / "a.nwb", [[50.0]])
    rewrite(path, DATA, values)
    with pytest.raises(error, match=r"a\.nwb"):
        read(path)


def test_claimed_bins_are_not_allocated(tmp_path: Path):
    path = write_rates(tmp_path / "a.nwb", [[50.0]])
    with h5py.File(path, "r+") as file:
        del file[DATA]
        file.create_dataset(DATA, (10**9, 10**6), "f8", chunks=(1024, 1))
    with pytest.raises(DamagedRecording, match="larger than any recording"):
        read(path)


def test_a_session_of_several_files_is_refused(tmp_path: Path):
    path = write_rates(tmp_path / "a.nwb", [[50.0]])
    with pytest.raises(ConfigurationError, match="one file per session; found: 2 files"):
        read(path, path)


def test_a_truncated_file_is_damaged(tmp_path: Path):
    path = write_rates(tmp_path / "a.nwb", np.ones((2000, 3)))
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(DamagedRecording, match=r"a\.nwb"):
        read(path)
