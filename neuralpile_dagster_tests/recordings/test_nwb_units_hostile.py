"""Reader `units` on files that claim more than they hold: no memory is taken for what is not there."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralpile_dagster.errors import DamagedRecording, OutOfMemory
from neuralpile_dagster.hdf5.careful import LARGE_BYTES, require_plausible
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster_tests.fixtures.damaging import TRAINS, create, read, within
from neuralpile_dagster_tests.servers.nwb_files import Electrodes, remove, write_units_nwb

LONG = "x" * (1 << 20)


def one_text_for_all(path: Path, name: str, text: str, n_rows: int) -> None:
    """A column whose rows all refer to one text, which is in the file once."""
    with h5py.File(path, "r+") as file:
        column = file.create_dataset(name, data=[text] + [""] * (n_rows - 1), dtype=h5py.string_dtype())
        file.flush()
        at = column.id.get_offset()
    content = bytearray(path.read_bytes())
    content[at : at + 16 * n_rows] = content[at : at + 16] * n_rows
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert file[name][n_rows - 1] == text.encode()


def many_units(path: Path, n_units: int) -> Path:
    with h5py.File(path, "w") as file:
        file["units/spike_times"] = np.arange(1.0, n_units + 1)
        file["units/spike_times_index"] = np.arange(1, n_units + 1)
        file["units/id"] = np.arange(n_units)
    return path


def notes_of(path: Path, max_memory: int = 1 << 28) -> Sequence[str]:
    with within(max_memory):
        return read(path).notes


@pytest.mark.parametrize(
    ("n_claimed", "reason"), [(10**15, "larger than any recording"), (10**8, "never written in full")]
)
def test_claimed_spikes_are_not_allocated(path: Path, n_claimed: int, reason: str):
    remove(path, "units/spike_times")
    create(path, lambda units: units.create_dataset("spike_times", (n_claimed,), "f8", chunks=(1024,)))
    with pytest.raises(DamagedRecording, match=reason):
        read(path)


def test_claimed_units_are_not_allocated(path: Path):
    remove(path, "units/id")
    create(path, lambda units: units.create_dataset("id", (10**12,), "i8", chunks=(1024,)))
    with pytest.raises(DamagedRecording, match=r"/units/id claims to be larger"):
        read(path)


def test_claimed_label_text_is_not_allocated(path: Path):
    create(path, lambda units: units.create_dataset("quality", (4,), "S1000000000"))
    (note,) = notes_of(path, 1 << 23)
    assert "units/quality is not used: 4,000,000,000 bytes of text" in note


def test_one_long_text_for_all_units_is_not_copied_for_each(tmp_path: Path):
    path = many_units(tmp_path / "a.nwb", 1000)
    one_text_for_all(path, "units/quality", LONG, 1000)
    assert path.stat().st_size < 2 << 20
    (note,) = notes_of(path)
    assert "a.nwb" in note and "units/quality is not used" in note and "bytes of text, more than 67,108,864" in note


def test_one_long_text_for_all_values_of_an_enumeration_is_not_copied_for_each(path: Path):
    one_text_for_all(path, "units/names", LONG, 1000)
    create(path, lambda units: units.create_dataset("cell_type", data=np.arange(4, dtype="u1")))
    create(path, lambda units: units["cell_type"].attrs.__setitem__("elements", units["names"].ref))
    note, _unread = notes_of(path)
    assert "units/cell_type is not used" in note


def test_one_long_name_of_a_number_is_not_copied_for_each_unit(tmp_path: Path):
    path = many_units(tmp_path / "a.nwb", 1000)

    def make(units: h5py.Group) -> None:
        names = units.create_dataset("names", data=[LONG, "b"], dtype=h5py.string_dtype())
        units.create_dataset("cell_type", data=np.tile(np.array([0, 1], "u1"), 1000))
        units.create_dataset("cell_type_index", data=np.arange(2, 2002, 2))
        units["cell_type"].attrs["elements"] = names.ref

    note, _unread = notes_of(create(path, make))
    assert "units/cell_type is not used" in note


def test_long_labels_of_electrodes_are_not_joined_for_each_unit(tmp_path: Path):
    path = many_units(tmp_path / "a.nwb", 1000)
    with h5py.File(path, "r+") as file:
        electrodes = file.create_group("general/extracellular_ephys/electrodes")
        electrodes["id"] = np.arange(10)
        electrodes.create_dataset("location", data=[f"{row}" * 100_000 for row in range(10)], dtype=h5py.string_dtype())
        file["units"].create_dataset("electrodes", data=np.tile(np.arange(10), 1000))
        file["units"].create_dataset("electrodes_index", data=np.arange(10, 10_010, 10))
    (note,) = notes_of(path)
    assert "units.electrodes -> electrodes.location is not used" in note


def test_text_in_slices_is_the_text(path: Path):
    labels = [f"label {row % 7}" for row in range(100_000)]

    def make(units: h5py.Group) -> None:
        units.create_dataset("quality", data=labels, dtype=h5py.string_dtype(), chunks=(1000,), compression="gzip")
        units.create_dataset("quality_index", data=[1, 3, 50_000, 100_000])

    recording = read(create(path, make))
    all_seven = {f"label {number}" for number in range(7)}
    first, second, *others = (set((unit.quality or "").split(", ")) for unit in recording.units)
    assert (first, second, others) == ({"label 0"}, {"label 1", "label 2"}, [all_seven, all_seven])
    assert recording.notes == ()


def test_text_in_chunks_that_would_be_decoded_again_and_again_is_not_used(path: Path):
    def make(units: h5py.Group) -> None:
        units.create_dataset("quality", data=["good"] * 100_000, dtype=h5py.string_dtype(), chunks=(100_000,))
        units.create_dataset("quality_index", data=[100_000] * 4)

    (note,) = notes_of(create(path, make))
    assert "units/quality is not used: text in chunks" in note


@pytest.mark.parametrize(
    ("column", "shape", "dtype"),
    [
        ("quality", (10_000_001,), "u1"),
        ("electrodes", (10_000_001,), "u1"),
        ("obs_intervals", (5_000_001, 2), "u1"),
        ("electrode_group", (1_000_001,), h5py.ref_dtype),
        ("cell_type", (1_000_001,), h5py.string_dtype()),
    ],
)
def test_a_column_of_more_values_than_any_is_not_read(
    tmp_path: Path, column: str, shape: tuple[int, ...], dtype: np.dtype
):
    electrodes = Electrodes([1, 2], ["CA1"] * 2, ["probeA"] * 2, {})
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=electrodes)

    def make(units: h5py.Group) -> None:
        units.create_dataset(column, shape, dtype, chunks=(1000, *shape[1:]))
        units.create_dataset(f"{column}_index", data=[shape[0]] * 4)

    notes = notes_of(create(path, make), 1 << 23)
    assert notes and all(f"units/{column} is not used" in note and "more than" in note for note in notes)


def test_facts_and_places_that_are_too_long_are_not_stated(tmp_path: Path):
    groups = ["probeA", "probeA", "probeB", "probeB"]
    electrodes = Electrodes([1, 2], ["unknown"] * 2, ["probeA", "probeB"], {"probeB": "CA1"})
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=electrodes, unit_groups=groups)
    with h5py.File(path, "r+") as file:
        del file["session_description"]
        file["session_description"] = LONG
        attributes = file["general/extracellular_ephys/probeA"].attrs
        del attributes["location"]
        value = np.array(LONG, dtype=h5py.string_dtype())
        file["general/extracellular_ephys/probeA"].attrs.create("location", value, dtype=h5py.string_dtype())
    recording = read(path)
    assert recording.facts.description is None
    assert [unit.brain_area for unit in recording.units] == [None, None, "CA1", "CA1"]


def test_links_in_a_circle_end(path: Path):
    with h5py.File(path, "r+") as file:
        del file["units"]
        file["units"] = h5py.SoftLink("/other")
        file["other"] = h5py.SoftLink("/units")
    with pytest.raises(DamagedRecording, match="never end"):
        read(path)


@pytest.mark.parametrize(("error", "ours"), [(IndexError, DamagedRecording), (MemoryError, OutOfMemory)])
def test_what_goes_wrong_in_reading_names_the_file_and_its_own_reason(
    path: Path, error: type[Exception], ours: type[Exception]
):
    class Failing(LocalFile):
        def read(self, dataset: h5py.Dataset) -> np.ndarray:
            raise error

    with pytest.raises(ours, match=r"sub-1_ses-1\.nwb: /units/\w+ "):
        read_session("units", [Failing(path.name, path)])


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_a_small_file_that_inflates_to_very_many_spikes_is_refused_before_they_are_read(path: Path, value: float):
    chunk, n_chunks = 1 << 20, 12
    packed = zlib.compress(np.full(chunk, value).tobytes(), 9)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("units/spike_times", (chunk * n_chunks,), "f8", chunks=(chunk,), compression="gzip")
        for number in range(n_chunks):
            times.id.write_direct_chunk((number * chunk,), packed)
        file["units/spike_times_index"] = [chunk * n_chunks]
        file["units/id"] = [0]
    assert path.stat().st_size < 200_000
    with within(1 << 24), pytest.raises(DamagedRecording, match="claims to hold more than its file can"):
        read(path)


def test_many_spikes_that_differ_are_read_however_well_they_compress(path: Path):
    """Regular times, in an order of bytes that deflate likes: far better than any recording."""
    n_spikes = 10_500_000
    with h5py.File(path, "w") as file:
        options = {"chunks": (1 << 18,), "compression": "gzip", "compression_opts": 1, "shuffle": True}
        times = file.create_dataset("units/spike_times", data=np.arange(1, n_spikes + 1) / 30_000, **options)
        assert times.nbytes > LARGE_BYTES
        require_plausible(times, "regular.nwb")
