"""Reader `units` against pynwb's own reading, and on every form that real files take."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynwb import NWBHDF5IO

from neuralpile_dagster.errors import NoUnits
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.fixtures.reading import TRAINS, TWO_PROBES, assert_same, read, trains_of
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

INDEX_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int32", "int64", ">u4")


def pynwb_trains(path: Path) -> list[np.ndarray]:
    with NWBHDF5IO(path, "r") as io:
        units = io.read().units
        return [np.asarray(units["spike_times"][row], float) for row in range(len(units))]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"contiguous": False},
        {"compression": "gzip", "chunks": (7,)},
        {"times_dtype": "float32"},
        {"times_dtype": ">f8"},
    ],
    ids=str,
)
def test_spike_trains_are_those_that_pynwb_reads(tmp_path: Path, layout: dict[str, Any]):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, unit_ids=[9, 3, 77, 1], **layout)
    recording = read(path)
    assert_same(trains_of(recording), pynwb_trains(path))
    assert [unit.unit_id for unit in recording.units] == [9, 3, 77, 1]
    assert {unit.file for unit in recording.units} == {"a.nwb"}
    assert recording.data.bin_rule == "histogram"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trains=st.lists(st.lists(st.floats(width=32, allow_infinity=False), max_size=20), min_size=1, max_size=8),
    index_dtype=st.sampled_from(INDEX_DTYPES),
    times_dtype=st.sampled_from(["float32", "float64", ">f4"]),
    id_dtype=st.sampled_from(["int32", "int64", "uint16"]),
)
def test_every_dtype_of_index_times_and_ids_gives_the_same_trains(
    tmp_path: Path, trains: list[list[float]], index_dtype: str, times_dtype: str, id_dtype: str
):
    path = tmp_path / "variant.nwb"
    flat = np.array([time for train in trains for time in train], dtype=times_dtype)
    ends = np.cumsum([len(train) for train in trains])
    with h5py.File(path, "w") as file:
        file["units/spike_times"] = flat
        file["units/spike_times_index"] = ends.astype(index_dtype)
        file["units/id"] = np.arange(len(trains)).astype(id_dtype)
    recording = read(path)
    assert_same(trains_of(recording), np.split(flat.astype(np.float64), ends[:-1]))
    assert recording.data.n_spikes == len(flat)


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES[1:])
def test_a_pynwb_file_reads_the_same_whatever_the_dtype_of_its_index(tmp_path: Path, index_dtype: str):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, index_dtype=index_dtype)
    assert_same(trains_of(read(path)), TRAINS)


def test_a_single_float64_file_is_not_copied(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS)
    given: list[np.ndarray] = []

    class Remembering(LocalFile):
        def read(self, dataset: h5py.Dataset) -> np.ndarray:
            given.append(super().read(dataset))
            return given[-1]

    recording = read_session("units", [Remembering("a.nwb", path)])
    assert any(recording.data.spike_times is values for values in given)


def test_big_columns_are_never_read(tmp_path: Path):
    n_spikes = sum(map(len, TRAINS))
    columns = {"spike_amplitudes": TRAINS, "waveform_mean": [np.ones((30, 4))] * 4, "snr": [1.0] * 4}
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns)
    opened = LocalFile("a.nwb", path)
    read_session("units", [opened])
    assert n_spikes * 8 <= opened.cost.bytes_read < n_spikes * 8 + 200


def test_naming_electrode_groups_does_not_walk_through_the_rest_of_the_file(tmp_path: Path):
    groups = ["probeA", "probeA", "probeB", "probeB"]
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES, unit_groups=groups)
    with h5py.File(path, "r+") as file:
        for number in range(400):
            file.create_dataset(f"acquisition/series{number:03}/data", data=np.zeros(3))
    reads: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            reads.append(len(buffer))
            return super().readinto(buffer)

    class Remote(LocalFile):
        def hdf5(self) -> h5py.File:
            return h5py.File(Counted(self.path), "r")

    recording = read_session("units", [Remote("a.nwb", path)])
    assert [unit.probe for unit in recording.units] == groups
    assert len(reads) < 200  # walking costs several reads for each of the 400 series


def test_both_real_recordings_have_their_units_and_spikes(shared_data: Path):
    folder = shared_data / "recordings" / "990001"
    for path, n_units, n_spikes, area in (
        (folder / "sub-A2929" / "sub-A2929_ses-200711_behavior+ecephys.nwb", 15, 98_794, "adn"),
        (folder / "sub-A8604" / "sub-A8604_ses-211122_behavior+ecephys.nwb", 3, 21_354, None),
    ):
        recording = read(path)
        assert (recording.data.n_units, recording.data.n_spikes) == (n_units, n_spikes)
        with h5py.File(path) as file:
            ends = file["units/spike_times_index"][()].astype(int)
            assert_same(trains_of(recording), np.split(file["units/spike_times"][()], ends[:-1]))
        assert recording.units[0].brain_area == area
        assert recording.facts.start_time is not None and recording.facts.start_time.startswith("2022-")
        assert recording.facts.subject is None  # the file holds an empty text


def test_files_of_one_session_are_stacked_in_their_order(tmp_path: Path):
    one = write_units_nwb(tmp_path / "p0.nwb", TRAINS, times_dtype="float32", file_fields={"age": "P90D"})
    other = write_units_nwb(tmp_path / "p1.nwb", TRAINS[:2], subject_id="S2", columns={"location": ["PL", "MOs"]})
    recording = read(one, other)
    assert_same(trains_of(recording), trains_of(read(one)) + trains_of(read(other)))
    assert [unit.file for unit in recording.units] == ["p0.nwb"] * 4 + ["p1.nwb"] * 2
    assert [unit.brain_area for unit in recording.units] == [None] * 4 + ["PL", "MOs"]
    assert (recording.facts.subject, recording.facts.age) == ("S1", "P90D")


def test_the_facts_of_the_session_are_those_of_the_file(tmp_path: Path):
    fields = {"sex": "F", "age": "P70D", "species": "Mus musculus", "description": "SYNTHETIC day"}
    facts = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, subject_id="M7", file_fields=fields)).facts
    assert (facts.subject, facts.sex, facts.age, facts.species) == ("M7", "F", "P70D", "Mus musculus")
    assert (facts.start_time, facts.description) == ("2020-01-01T12:00:00+00:00", "SYNTHETIC day")


def test_a_table_elsewhere_in_the_file_gives_the_same_recording(shared_data: Path, tmp_path: Path):
    path, place = tmp_path / "a.nwb", "/processing/ecephys/units"
    original = shared_data / "recordings" / "990001" / "sub-A2929" / "sub-A2929_ses-200711_behavior+ecephys.nwb"
    path.write_bytes(original.read_bytes())
    expected = read(path)
    with h5py.File(path, "r+") as file:
        file.require_group("/processing/ecephys")
        file.move("/units", place)
    moved = read_session("units", [LocalFile("a.nwb", path)], {"table": place})
    assert_same(trains_of(moved), trains_of(expected))
    assert (moved.units, moved.facts) == (expected.units, expected.facts)
    assert [note.replace(place, "/units") for note in moved.notes] == list(expected.notes)
    with pytest.raises(NoUnits, match=rf"has no units table.*expected: a group /units.*table: {place}"):
        read(path)
    binned = neuralpile("bin", path, "-o", tmp_path / "rows.parquet", "--table", place)
    assert binned.code == 0, binned.err
    assert "15 units x 59,999 bins" in binned.out
