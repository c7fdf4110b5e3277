"""Reader `units` on forms that other programs write: read where they are well defined, named where they are not."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from neuralpile_dagster.binning.source import count_source
from neuralpile_dagster.errors import DamagedRecording, NeuralPileError, NoUnits, UnknownFilter
from neuralpile_dagster.hdf5 import careful
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster.recordings.nwb import units
from neuralpile_dagster_tests.fixtures.cases import Case
from neuralpile_dagster_tests.fixtures.damaging import TRAINS, create, read
from neuralpile_dagster_tests.fixtures.reading import assert_same, trains_of
from neuralpile_dagster_tests.servers.nwb_files import remove, rewrite, write_nwb_without_units, write_units_nwb

N_SPIKES = sum(map(len, TRAINS))


def flat_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["units/spike_times"][()]).reshape(-1)


@pytest.mark.parametrize(
    "options",
    [hdf5plugin.Zstd(), hdf5plugin.Blosc(), hdf5plugin.Blosc2(), hdf5plugin.LZ4(), hdf5plugin.Bitshuffle()],
    ids=lambda options: type(options).__name__,
)
def test_spike_times_and_labels_compressed_by_plugins_of_hdf5_are_read(path: Path, options: hdf5plugin.Zstd):
    def compress(units: h5py.Group) -> None:
        times = units["spike_times"][()]
        del units["spike_times"]
        units.create_dataset("spike_times", data=times, chunks=(100,), **options)
        units.create_dataset("location", data=np.array([b"CA1"] * 4), chunks=(4,), **options)

    recording = read(create(path, compress))
    assert_same(trains_of(recording), TRAINS)
    assert [unit.brain_area for unit in recording.units] == ["CA1"] * 4


def test_plugins_are_registered_only_for_a_filter_that_hdf5_lacks(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "hdf5plugin")
    with h5py.File(
        create(path, lambda units: units.create_dataset("x", data=[1], chunks=(1,), **hdf5plugin.Zstd()))
    ) as f:
        assert careful._missing_filters(f["units/spike_times"]) == []
        assert "hdf5plugin" not in sys.modules
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: "hdf5plugin" in sys.modules)
        assert careful._missing_filters(f["units/x"]) == []


def test_a_column_of_one_repeated_number_may_be_compressed_better_than_deflate_can(path: Path):
    n_labels = 100_000  # 800 kB of zeros in about 60 bytes

    def compress(units: h5py.Group) -> None:
        units.create_dataset("quality", data=np.zeros(n_labels, "i8"), chunks=(n_labels,), **hdf5plugin.Zstd(9))
        units["quality_index"] = np.array([1, 2, 2, n_labels])
        assert units["quality"].id.get_storage_size() * 1032 < 8 * n_labels

    assert [unit.quality for unit in read(create(path, compress)).units] == ["0", "0", None, "0"]


def test_other_filters_do_not_make_a_claim_of_any_size_believable(path: Path):
    def claim(units: h5py.Group) -> None:
        del units["spike_times"]
        units.create_dataset("spike_times", (1 << 30,), "f8", chunks=(1 << 20,), **hdf5plugin.Zstd())

    with pytest.raises(DamagedRecording, match="was never written in full"):
        read(create(path, claim))


def with_filter_333(path: Path, name: str, values: np.ndarray) -> Path:
    """A column that claims to have gone through a filter that nobody has."""
    remove(path, *([name] if name in ("units/spike_times",) else []))
    with h5py.File(path, "r+") as file:
        file.create_dataset(name, data=values, chunks=(len(values),), compression="lzf")
    content = bytearray(path.read_bytes())
    at = content.index(b"lzf\0")  # of the pipeline message: number, length of the name, flags, values, name
    content[at - 8 : at - 6], content[at : at + 3] = (333).to_bytes(2, "little"), b"own"
    path.write_bytes(content)
    return path


def test_an_unknown_filter_is_named_with_its_number_and_a_remedy(path: Path):
    with_filter_333(path, "units/spike_times", np.zeros(N_SPIKES))
    with pytest.raises(UnknownFilter, match=r"/units/spike_times cannot be decompressed") as error:
        read(path)
    assert "HDF5 filter 333 (own)" in error.value.found
    assert "HDF5_PLUGIN_PATH" in error.value.remedy and "h5repack" in error.value.remedy


def test_a_label_behind_an_unknown_filter_costs_only_that_label(path: Path):
    recording = read(with_filter_333(path, "units/location", np.array([b"CA1"] * 4)))
    assert_same(trains_of(recording), TRAINS)
    assert recording.units[0].brain_area is None
    assert any("/units/location is not used: HDF5 filter 333 (own)" in note for note in recording.notes)


def test_whole_seconds_are_cast_as_the_binning_rule_says(case: Case):
    path = case("whole_seconds_int")
    flat = flat_of(path)
    recording = read(path)
    assert flat.dtype == np.int32
    np.testing.assert_array_equal(np.concatenate(trains_of(recording)), flat.astype(np.float64))
    source = count_source(recording, 0.02, "a")
    assert source.n_bins == len(np.arange(0, flat.max() + 0.02, 0.02)) - 1
    assert int(source.counts(0, source.n_bins).sum()) == len(flat)
    assert recording.notes == ("whole_seconds_int.nwb: /units/spike_times are whole numbers (int32), read as seconds",)


@pytest.mark.parametrize("name", ["column_vectors", "row_vectors"])
def test_columns_written_as_matrices_of_one_column_or_row_are_read(case: Case, name: str):
    path = case(name)
    recording = read(path)
    with h5py.File(path) as file:
        assert file["units/spike_times"].ndim == 2
        ends = file["units/spike_times_index"][()].reshape(-1).astype(int)
    assert_same(trains_of(recording), np.split(flat_of(path), ends[:-1]))
    assert [unit.unit_id for unit in recording.units] == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(4, 1), (1, 4)])
def test_labels_written_as_matrices_of_one_column_or_row_are_read(path: Path, shape: tuple[int, int]):
    def add(units: h5py.Group) -> None:
        units.create_dataset("location", data=np.array(["CA1", "CA3", "DG", "CA1"], object).reshape(shape))
        units.create_dataset("quality", data=np.array([b"good", b"mua", b"good", b"x"]).reshape(shape))
        units.create_dataset("group", data=np.array([7, 7, 8, 9]).reshape(shape))

    recording = read(create(path, add))
    assert [unit.brain_area for unit in recording.units] == ["CA1", "CA3", "DG", "CA1"]
    assert [unit.quality for unit in recording.units] == ["good", "mua", "good", "x"]


def test_a_matrix_is_not_a_column(path: Path):
    rewrite(path, "units/spike_times", flat_of(path)[: N_SPIKES // 2 * 2].reshape(-1, 2))
    with pytest.raises(DamagedRecording, match=r"/units/spike_times has an invalid shape"):
        read(path)


def with_regions(path: Path, regions: list[slice | list[int] | None]) -> Path:
    """Replace the index by region references, as NWB 2.0 had them."""

    def replace(units: h5py.Group) -> None:
        times = units["spike_times"]
        del units["spike_times_index"]
        index = units.create_dataset("spike_times_index", (len(regions),), h5py.regionref_dtype)
        for row, region in enumerate(regions):
            if region is not None:
                index[row] = times.regionref[region]

    return create(path, replace)


def test_an_index_of_region_references_is_read_where_it_names_consecutive_spikes(path: Path):
    ends = np.cumsum([len(train) for train in TRAINS]).tolist()
    slices: list[slice | list[int] | None] = [
        slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False) if start < stop
    ]
    assert_same(trains_of(read(with_regions(path, [*slices, None]))), TRAINS)  # the last unit is silent


@pytest.mark.parametrize(
    "regions",
    [
        [slice(10, 20), slice(0, 10), slice(20, N_SPIKES), None],
        [slice(0, 10), slice(5, 15), slice(15, N_SPIKES), None],
        [slice(0, 10), slice(10, 15), [15, 17], slice(17, N_SPIKES)],
        [slice(0, 10), slice(11, 15), slice(15, N_SPIKES), None],
    ],
    ids=["out of order", "overlapping", "with holes", "with a gap"],
)
def test_an_index_of_other_region_references_is_named(path: Path, regions: list[slice | list[int] | None]):
    with pytest.raises(DamagedRecording, match=r"the index holds region references, of which row \d is not the next"):
        read(with_regions(path, regions))


def test_a_region_of_another_column_is_no_region_of_the_spikes(path: Path):
    def replace(units: h5py.Group) -> None:
        del units["spike_times_index"]
        other = units.create_dataset("other", data=np.zeros(N_SPIKES))
        index = units.create_dataset("spike_times_index", (4,), h5py.regionref_dtype)
        index[0] = other.regionref[0:N_SPIKES]

    with pytest.raises(DamagedRecording, match="row 0 is not the next"):
        read(create(path, replace))


def test_an_nwb_1_file_is_named_with_its_version(case: Case):
    with pytest.raises(NoUnits, match=r"found: an NWB 1\.0\.5 file") as error:
        read(case("nwb1"))
    assert "convert the file to NWB 2" in error.value.remedy


def test_units_elsewhere_in_the_file_are_found_and_the_remedy_makes_them_readable(path: Path):
    with h5py.File(path, "r+") as file:
        file.create_group("processing/ecephys")
        file.move("units", "processing/ecephys/sorted")
        file["processing/again"] = h5py.SoftLink("/processing/ecephys")
    with pytest.raises(NoUnits, match=r"spike times in /processing/ecephys/sorted;") as error:
        read(path)
    assert "reader_options: {table: /processing/ecephys/sorted}" in error.value.remedy
    moved = read_session("units", [LocalFile("a.nwb", path)], {"table": "/processing/ecephys/sorted"})
    assert_same(trains_of(moved), TRAINS)


def test_only_so_many_groups_are_searched_for_units_elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch):
    with h5py.File(path, "r+") as file:
        file.create_group("processing/a/b/c")
        file.move("units", "processing/a/b/c/sorted")
    with pytest.raises(NoUnits, match=r"spike times in /processing/a/b/c/sorted"):
        read(path)
    monkeypatch.setattr(careful, "MAX_LOOKS", 5)
    with pytest.raises(NoUnits, match=r"found: (?!spike times).*processing"):
        read(path)


def test_an_nwb_file_with_an_attribute_of_matlab_s_is_no_matlab_file(tmp_path: Path):
    path = write_nwb_without_units(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["session_description"].attrs["MATLAB_class"] = np.bytes_(b"char")
    with pytest.raises(NoUnits, match=r"a\.nwb has no units table; found: (?!a MATLAB).*session_description"):
        read(path)


def test_only_so_many_variables_are_searched_for_matlab_s_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = np.zeros(3), np.zeros(3)
        file["b"].attrs["MATLAB_class"] = np.bytes_(b"double")
    with pytest.raises(NoUnits, match=r"a MATLAB 7\.3 file"):
        read(path)
    monkeypatch.setattr(units, "MAX_LOOKS", 1)
    with pytest.raises(NoUnits, match="found: a, b;"):
        read(path)


def test_a_matlab_7_3_file_is_named(tmp_path: Path):
    path = tmp_path / "spikes.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["spks"] = np.zeros((3, 8))
        file["spks"].attrs["MATLAB_class"] = np.bytes_(b"double")
        file["a type"] = np.dtype("f8")  # neither a group nor a dataset
    with pytest.raises(NoUnits, match=r"a MATLAB 7\.3 file with the variables a type, spks"):
        read(path)


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        (b"<html><body>AccessDenied</body></html>", "an HTML page of 38 bytes", "fetch the file again"),
        (b'\n<!DOCTYPE HTML><html lang="en">' + b" " * 900, "an HTML page", "a server's page was saved"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document", "fetch the file again"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 900, "a MATLAB 5 file", "eight_probe_mat"),
        (b'{"zarr_consolidated_format": 1, "metadata": {}}', "Zarr's metadata", "hdmf-zarr"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--1.nwb\n", "a git-annex pointer", "datalad get"),
        (b"PK\x03\x04" + b"x" * 900, "a ZIP archive", "unpack"),
        (b"", "an empty file", "fetch the file again"),
        (b"\0" * 5000, "begin with zeros", "fetch the file again"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 5000, "5,008 bytes", "truncated, damaged"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_what_is_no_hdf5_file_is_named(tmp_path: Path, content: bytes, found: str, remedy: str):
    path = tmp_path / "a.nwb"
    path.write_bytes(content)
    with pytest.raises(DamagedRecording, match=r"a\.nwb cannot be opened as HDF5") as error:
        read(path)
    assert found in error.value.found
    assert remedy in error.value.remedy
    assert error.value.expected == "a complete NWB (HDF5) file"


def test_a_zarr_folder_is_named(tmp_path: Path):
    folder = tmp_path / "a.nwb"
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(DamagedRecording, match=r"a\.nwb is a Zarr folder.*hdmf-zarr"):
        read(folder)


def test_spike_times_since_1970_are_named_with_the_date_that_they_begin_on(tmp_path: Path):
    start = 1_614_852_000.0  # 2021-03-04 10:00 UTC
    recording = read(write_units_nwb(tmp_path / "a.nwb", [train + start for train in TRAINS]))
    with pytest.raises(DamagedRecording, match="spike times of another clock") as error:
        count_source(recording, 0.02, "a.nwb")
    assert "seconds since 1970, from 2021-03-04 10:00 UTC on" in error.value.found
    assert "subtract the start of the session" in error.value.remedy


def test_sample_numbers_are_not_taken_for_a_date(tmp_path: Path):
    recording = read(write_units_nwb(tmp_path / "a.nwb", [train * 30_000 * 1000 for train in TRAINS]))
    with pytest.raises(DamagedRecording, match=r"too long to be one session.*spike times must be in seconds"):
        count_source(recording, 0.02, "a.nwb")


def test_a_file_of_neither_kind_still_says_what_it_has(tmp_path: Path):
    with pytest.raises(NeuralPileError, match=r"session_description.*choose another reader"):
        read(write_nwb_without_units(tmp_path / "a.nwb"))
