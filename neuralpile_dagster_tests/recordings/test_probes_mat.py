"""Reader `eight_probe_mat`: probes after probes, cluster ids after cluster ids, unused ids included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from neuralpile_dagster.errors import ConfigurationError, DamagedRecording, EmptyRecording
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import Recording, SpikeTrains, read_session

Probe = tuple[Any, Any]


def write_mat(path: Path, probes: Sequence[Probe], fields: tuple[str, str] = ("st", "clu"), **save: Any) -> Path:
    spks = np.empty((1, len(probes)), dtype=[(field, object) for field in (*fields, "Wheights")])
    for number, (times, ids) in enumerate(probes):
        spks[0, number] = (np.asarray(times, float)[:, None], np.asarray(ids)[:, None], np.zeros((2, 1)))
    savemat(path, {"spks": spks, "other": np.zeros(100)}, **save)
    return path


def read(*paths: Path) -> Recording:
    return read_session("eight_probe_mat", [LocalFile(path.name, path) for path in paths])


def trains_of(recording: Recording) -> list[list[float]]:
    assert isinstance(recording.data, SpikeTrains)
    return [part.tolist() for part in np.split(recording.data.spike_times, recording.data.ends[:-1])]


def test_rows_are_probe_after_probe_and_unused_ids_stay(tmp_path: Path):
    path = write_mat(tmp_path / "spksA.mat", [([5.0, 1.0, 2.0], [3, 1, 3]), ([4.0, 0.5], [2, 2])])
    recording = read(path)
    assert trains_of(recording) == [[1.0], [], [5.0, 2.0], [], [4.0, 0.5]]
    assert recording.data.bin_rule == "from_first_spike"
    assert recording.data.ends.dtype == np.int64
    assert [(unit.unit_id, unit.probe) for unit in recording.units] == [
        (1, "1"),
        (2, "1"),
        (3, "1"),
        (1, "2"),
        (2, "2"),
    ]
    assert {unit.file for unit in recording.units} == {"spksA.mat"}
    assert all(unit.brain_area is None for unit in recording.units)


def test_a_probe_without_spikes_has_no_units(tmp_path: Path):
    path = write_mat(tmp_path / "a.mat", [([], []), ([1.0, 2.0], [1, 2])])
    recording = read(path)
    assert trains_of(recording) == [[1.0], [2.0]]
    assert {unit.probe for unit in recording.units} == {"2"}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    probes=st.lists(st.lists(st.tuples(st.floats(-100, 1e6), st.integers(1, 9)), max_size=30), min_size=1, max_size=8),
    dtype=st.sampled_from(["float64", "uint8", "int32"]),
    compressed=st.booleans(),
)
def test_every_spike_is_in_the_row_that_the_rule_gives_it(
    tmp_path: Path, probes: list[list[tuple[float, int]]], dtype: str, compressed: bool
):
    columns = [([time for time, _ in probe], np.array([unit for _, unit in probe], dtype)) for probe in probes]
    path = write_mat(tmp_path / "a.mat", columns, do_compression=compressed)
    expected: list[list[float]] = []
    for probe in probes:
        for unit in range(1, max((unit for _, unit in probe), default=0) + 1):
            expected.append([time for time, of_unit in probe if of_unit == unit])
    times = {time for probe in probes for time, _ in probe}
    if len(times) < 2:
        with pytest.raises(EmptyRecording, match=r"a\.mat"):
            read(path)
    else:
        assert trains_of(read(path)) == expected


def test_a_file_without_spks_says_what_it_has(tmp_path: Path):
    savemat(tmp_path / "a.mat", {"stall": np.zeros(3), "faces": np.zeros(3)})
    with pytest.raises(DamagedRecording, match=r"a\.mat.*found: variables stall, faces; expected: a variable spks"):
        read(tmp_path / "a.mat")


@pytest.mark.parametrize(
    "spks",
    [np.zeros((1, 8)), {"times": np.zeros(3)}, "text", np.empty((0, 0), dtype=[("st", "O"), ("clu", "O")])],
    ids=["numbers", "other fields", "text", "empty"],
)
def test_spks_of_another_form_is_refused(tmp_path: Path, spks: Any):
    savemat(tmp_path / "a.mat", {"spks": spks})
    with pytest.raises(DamagedRecording, match=r"a\.mat.*fields st, clu"):
        read(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        (([1.0, 2.0], [1, 0]), "0.0 as cluster id 2"),
        (([1.0, 2.0], [1, -3]), "-3.0 as cluster id 2"),
        (([1.0, 2.0], [1.5, 1]), "1.5 as cluster id 1"),
        (([1.0, 2.0], [np.nan, 1]), "nan as cluster id 1"),
        (([1.0, 2.0], [1e12, 1]), "cluster id 1"),
        (([np.nan, 2.0], [1, 1]), "nan as spike time 1"),
        (([1.0, np.inf], [1, 1]), "inf as spike time 2"),
        (([1.0, 2.0], [1, 1, 1]), "2 times and 3 cluster ids"),
    ],
)
def test_impossible_ids_and_times_are_refused_with_their_place(tmp_path: Path, probe: Probe, found: str):
    path = write_mat(tmp_path / "a.mat", [([1.0, 3.0], [1, 2]), probe])
    with pytest.raises(DamagedRecording, match=rf"a\.mat.*{found}.*spks\(2\)"):
        read(path)


@pytest.mark.parametrize("times", [np.zeros((2, 2)), "text", np.zeros((4, 1), complex), np.array([["a"]] * 4, object)])
def test_times_that_are_no_column_of_real_numbers_are_refused(tmp_path: Path, times: Any):
    spks = np.empty((1, 1), dtype=[("st", object), ("clu", object)])
    spks[0, 0] = (times, np.ones((4, 1)))
    savemat(tmp_path / "a.mat", {"spks": spks})
    with pytest.raises(DamagedRecording, match=r"found: spks\(1\)\.st of class .*; expected: one column of numbers"):
        read(tmp_path / "a.mat")


def test_more_units_than_any_recording_are_refused(tmp_path: Path):
    path = write_mat(tmp_path / "a.mat", [([1.0, 2.0], [1, 900_000]), ([1.0, 2.0], [1, 900_000])])
    with pytest.raises(DamagedRecording, match="at most 1,000,000 units"):
        read(path)


@pytest.mark.parametrize("probes", [[([], [])], [([2.0, 2.0], [1, 2])]], ids=["no spikes", "no span"])
def test_nothing_to_bin_is_an_empty_recording(tmp_path: Path, probes: list[Probe]):
    with pytest.raises(EmptyRecording, match=r"a\.mat has nothing to bin"):
        read(write_mat(tmp_path / "a.mat", probes))


def test_matlab_7_3_says_how_to_save_it(tmp_path: Path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["spks"] = np.zeros(3)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header + path.read_bytes()[len(header) :])
    with pytest.raises(DamagedRecording, match=r"a\.mat.*MATLAB 7\.3.*save -v7"):
        read(path)


def test_a_truncated_or_foreign_file_is_damaged(tmp_path: Path):
    rng = np.random.default_rng(0)
    times, ids = np.sort(rng.uniform(0, 100, 5000)), rng.integers(1, 9, 5000)
    whole = write_mat(tmp_path / "a.mat", [(times, ids)], do_compression=True).read_bytes()
    for content in (b"", b"<html>404</html>", whole[:60], whole[:200], whole[: len(whole) // 2], whole[:-100]):
        path = tmp_path / "b.mat"
        path.write_bytes(content)
        with pytest.raises(DamagedRecording, match=r"b\.mat"):
            read(path)
    with pytest.raises(DamagedRecording, match=r"missing\.mat cannot be read"):
        read(tmp_path / "missing.mat")


def test_a_session_of_several_files_is_refused(tmp_path: Path):
    path = write_mat(tmp_path / "a.mat", [([1.0, 2.0], [1, 2])])
    with pytest.raises(ConfigurationError, match="one file per session"):
        read(path, path)
