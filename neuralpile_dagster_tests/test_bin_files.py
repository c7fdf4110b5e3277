"""Local files of one session to rows, without a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.errors import ConfigurationError, DamagedRecording, EmptyRecording, NoUnits
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.session.own_files import bin_files
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.reference_binning import histogram_counts
from neuralpile_dagster_tests.fixtures.row_files import whole
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_nwb_without_units, write_units_nwb


def test_local_files_are_binned_without_a_store(tmp_path: Path):
    path = write_units_nwb(tmp_path / "sub-7" / "sub-7_ses-2.nwb", poisson_trains(5, 40.0))
    result = bin_files([path], tmp_path / "out" / "rows.parquet", max_tokens=4_000)
    assert result.stats.unaccounted == 0
    assert len(result.rows) == 3
    with RowReader(tmp_path / "out" / "rows.parquet") as reader:
        row = reader.row(2)
    assert (row.subject_id, row.session_id, row.segment_id) == ("sub-7", "sub-7_ses-2", "segment_2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    ("path", "shape", "kept"),
    [
        ("sub-A2929/sub-A2929_ses-200711_behavior+ecephys.nwb", (15, 59_999), 98_794),
        ("sub-A8604/sub-A8604_ses-211122_behavior+ecephys.nwb", (3, 54_368), 21_354),
    ],
)
def test_real_recordings_are_binned_bit_for_bit(
    shared_data: Path, tmp_path: Path, path: str, shape: tuple[int, int], kept: int
):
    source = shared_data / "recordings" / "990001" / path
    result = bin_files([source], tmp_path / "rows.parquet", max_tokens=100_000)
    from neuralpile_dagster.recordings.model import read_session

    expected = histogram_counts(read_session("units", [LocalFile(source.name, source)]).data)
    np.testing.assert_array_equal(whole(tmp_path / "rows.parquet"), expected)
    assert (result.stats.n_units, result.stats.n_bins, result.stats.spikes_kept) == (*shape, kept)


def test_a_file_without_units_is_refused_by_name(tmp_path: Path):
    path = write_nwb_without_units(tmp_path / "bare.nwb")
    with pytest.raises(NoUnits, match=r"bare\.nwb"):
        bin_files([path], tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def test_a_file_without_a_spike_after_zero_is_refused_by_name(tmp_path: Path):
    path = write_units_nwb(tmp_path / "silent.nwb", [np.zeros(0), np.array([-1.0])])
    with pytest.raises(EmptyRecording, match=r"silent\.nwb"):
        bin_files([path], tmp_path / "rows.parquet")


def test_a_truncated_file_is_refused_by_name(tmp_path: Path):
    path = write_units_nwb(tmp_path / "cut.nwb", poisson_trains(3, 10.0))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedRecording, match=r"cut\.nwb"):
        bin_files([path], tmp_path / "rows.parquet")


@pytest.mark.parametrize("wrong", [{"bin_width_s": 0.0}, {"bin_width_s": float("nan")}, {"max_tokens": 0}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: Any):
    with pytest.raises(ConfigurationError, match="above 0"):
        bin_files([tmp_path / "a.nwb"], tmp_path / "rows.parquet", **wrong)


def test_a_recording_is_never_overwritten(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", poisson_trains(3, 10.0))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="would be overwritten"):
        bin_files([path], tmp_path / ".." / tmp_path.name / "a.nwb")
    assert path.read_bytes() == before


def test_an_unknown_reader_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no reader 'spikes'"):
        bin_files([tmp_path / "a.nwb"], tmp_path / "rows.parquet", reader="spikes")  # type: ignore[arg-type]
