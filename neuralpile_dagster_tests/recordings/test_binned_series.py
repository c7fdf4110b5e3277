"""Reader `binned_series`: values that a file holds in bins already, summed to wider bins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import TimeSeries

from neuralpile_dagster.binning.source import count_source
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.readers import FIRING_RATES, SeriesOptions, get_reader
from neuralpile_dagster.errors import CatalogError, ConfigurationError, DamagedRecording, EmptyRecording, NoUnits
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, read_session
from neuralpile_dagster.recordings.nwb import binned_series
from neuralpile_dagster.recordings.nwb.binned_series import counts_of
from neuralpile_dagster.session.own_files import bin_files
from neuralpile_dagster.tables.spike_trains import read_recording, write_recording
from neuralpile_dagster_tests.servers import nwb_files

PATH = "/acquisition/binned"
MS = {"path": PATH, "bin_width_s": 0.001, "sum_bins": 20}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of pynwb with a series, which tests give other values."""
    file = nwb_files.new_file("B1", sex="M")
    file.add_acquisition(TimeSeries(name="binned", data=np.zeros((2, 1)), unit="n.a.", rate=1000.0))
    return nwb_files.save(file, tmp_path_factory.mktemp("binned") / "template.nwb")


@pytest.fixture
def write(template: Path, tmp_path: Path) -> Callable[..., Path]:
    def written(values: Any, name: str = "a.nwb", group: str = PATH, timestamps: Any = None, **layout: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(template.read_bytes())
        with h5py.File(path, "r+") as file:
            del file[f"{PATH}/data"]
            if group != PATH:
                file.move(PATH, group)
            file.create_dataset(f"{group}/data", data=np.asarray(values), **layout)
            if timestamps is not None:
                del file[f"{group}/starting_time"]
                file[f"{group}/timestamps"] = timestamps
        return path

    return written


def read(file: Path, name: str = "", **options: Any) -> Recording:
    return read_session("binned_series", [LocalFile(name or file.name, file)], {**MS, **options})


def binned(recording: Recording) -> BinnedCounts:
    assert isinstance(recording.data, BinnedCounts)
    return recording.data


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["?", "u1", "i2", "u8", "f4", "f8"]),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 90),
    st.integers(0, 2**32 - 1),
)
def test_counts_are_sums_of_whole_bins_whatever_the_dtype_and_block(
    dtype: str, n_bins: int, n_units: int, k: int, block: int, seed: int
):
    k = min(k, n_bins)
    values = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 120, (n_bins, n_units)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binned_series, "BLOCK_TOKENS", block)
        data = counts_of(values, SeriesOptions(path=("/x",), bin_width_s=0.001, sum_bins=k))
    expected = values[: n_bins // k * k].astype(int).reshape(-1, k, n_units).sum(1).T
    np.testing.assert_array_equal(data.counts, np.minimum(expected, 255))
    assert (data.spikes_read, data.bins_dropped) == (expected.sum(), n_bins % k)
    assert data.lost_to_saturation == np.maximum(expected - 255, 0).sum()
    assert data.saturated_bins == np.count_nonzero(expected > 255)
    assert data.bin_width_s == 0.001 * k


@pytest.mark.parametrize("chunks", [None, (7, 2), (64, 3), (1, 5), (101, 1)])
def test_a_large_file_is_read_block_by_block_with_the_same_counts(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, int] | None
):
    values = np.random.default_rng(1).integers(0, 30, (101, 5)).astype(np.uint8)
    path = write(values, chunks=chunks)
    expected = binned(read(path)).counts
    monkeypatch.setattr(binned_series, "WHOLE_BYTES", 0)
    monkeypatch.setattr(binned_series, "BLOCK_TOKENS", 40)
    places: list[tuple[slice, ...]] = []

    class Watched(LocalFile):
        def read_part(self, dataset: h5py.Dataset, place: tuple[slice, ...]) -> np.ndarray:
            places.append(place)
            return super().read_part(dataset, place)

    data = binned(read_session("binned_series", [Watched("a.nwb", path)], MS))
    np.testing.assert_array_equal(data.counts, expected)
    tall, wide = chunks or (1, 5)
    assert all(rows.start % tall == 0 and units.start % wide == 0 for rows, units in places)
    assert max((rows.stop - rows.start) * (units.stop - units.start) for rows, units in places) <= max(40, tall * wide)


def test_a_preset_gives_what_its_options_give(write: Callable[..., Path], tmp_path: Path):
    rates = np.random.default_rng(2).uniform(0, 15_000, (400, 3))
    rates[5, 1] = np.nan
    path = write(rates.astype("f4"), group="/acquisition/firing_rates")
    preset = read_session("firing_rates", [LocalFile("a.nwb", path)])
    stated = read_session("binned_series", [LocalFile("a.nwb", path)], FIRING_RATES.model_dump())
    files = [tmp_path / "preset.parquet", tmp_path / "stated.parquet"]
    for file, recording in zip(files, (preset, stated), strict=True):
        write_recording(file, recording)
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(
        binned(preset).counts.T, np.minimum(np.nan_to_num(np.rint(rates.astype("f4") / 50)), 255)
    )


def test_last_bins_that_do_not_fill_one_are_dropped_with_a_note_and_counted(write: Callable[..., Path], tmp_path: Path):
    path = write(np.ones((47, 2), bool))
    recording = read(path)
    assert binned(recording).counts.tolist() == [[20, 20]] * 2
    assert recording.notes == ("a.nwb: the last 7 bins of 0.001 s do not fill a bin of 0.02 s and are dropped",)
    write_recording(tmp_path / "stored.parquet", recording)
    assert binned(read_recording(tmp_path / "stored.parquet")).bins_dropped == 7
    stats = bin_files([path], tmp_path / "rows.parquet", reader="binned_series", options=MS).stats
    assert (stats.bins_dropped, stats.spikes_read, stats.spikes_kept) == (7, 80, 80)


@pytest.mark.parametrize(
    ("values", "options", "found"),
    [
        ([[0, 1], [0, -1]], {}, "-1 in bin 1 of unit 1"),
        ([[0.0, 0.5], [0.0, 1.0]], {}, "0.5 in bin 0 of unit 1"),
        ([[0.0, 1.0], [np.inf, 1.0]], {"rounding": "half_even"}, "inf in bin 1 of unit 0"),
        ([[1.0, 1.0], [3.0, 1.0]], {"scale": 0.5}, "1.0 in bin 0 of unit 0"),
    ],
)
def test_what_is_no_count_is_refused_with_its_place(
    write: Callable[..., Path], values: Any, options: dict[str, Any], found: str
):
    with pytest.raises(DamagedRecording, match=rf"a\.nwb: .*found: {found}"):
        read(write(values), sum_bins=1, **options)


def test_the_first_path_that_a_file_has_is_read_and_the_error_names_all(write: Callable[..., Path]):
    path = write(np.ones((20, 1), np.uint8), group="/analysis/ThresholdCrossings")
    places = ["/processing/ecephys/ThresholdCrossings", "/analysis/ThresholdCrossings"]
    assert binned(read(path, path=places)).counts.tolist() == [[20]]
    with pytest.raises(NoUnits, match="/processing/ecephys/ThresholdCrossings/data or /scratch/x/data"):
        read(path, path=[places[0], "/scratch/x"])


def test_series_elsewhere_in_the_file_are_named_with_their_shapes(write: Callable[..., Path]):
    path = write(np.ones((20, 3), np.uint8), group="/processing/ecephys/rasters")
    with h5py.File(path, "r+") as file:
        file["processing/ecephys/position/data"] = np.zeros(20)
        file["analysis/linked/data"] = h5py.ExternalLink("other.nwb", "/data")
        file["analysis/rates/data"] = np.zeros((4, 3))
    with pytest.raises(NoUnits, match="no binned series where the row says") as error:
        read(path, path="/processing/ecephys/rasters/data")
    assert error.value.found == (
        "series of two dimensions (bins, units) at /analysis/rates (4, 3), /processing/ecephys/rasters (20, 3)"
    )
    assert binned(read(path, path="/processing/ecephys/rasters")).counts.tolist() == [[20]] * 3


def test_of_many_series_elsewhere_the_first_are_named(write: Callable[..., Path]):
    path = write(np.ones((20, 3), np.uint8))
    with h5py.File(path, "r+") as file:
        for number in range(12):
            file[f"analysis/r{number:02}/data"] = np.zeros((4, 3))
    with pytest.raises(NoUnits, match=r"/analysis/r08 \(4, 3\), 3 more; expected: a dataset /analysis/x/data"):
        read(path, path="/analysis/x")


def test_subjects_may_have_bins_of_their_own(write: Callable[..., Path]):
    path = write(np.ones((12, 1), np.uint8))
    options: dict[str, Any] = {
        "bin_width_s": 0.005,
        "sum_bins": 4,
        "per_subject": {"monk-g": {"bin_width_s": 1 / 60}},
    }
    assert binned(read(path, "sub-monk-j/a.nwb", **options)).counts.tolist() == [[4, 4, 4]]
    slow = read(path, "sub-monk-g/a.nwb", **options)
    assert (binned(slow).counts.shape, binned(slow).bin_width_s) == ((1, 12), 1 / 60)


def test_bins_unlike_the_instances_are_published_only_when_allowed(write: Callable[..., Path]):
    recording = read(write(np.ones((12, 1), np.uint8)), bin_width_s=1 / 60, sum_bins=1)
    with pytest.raises(ConfigurationError, match=r"0\.0166667 s in the file, 0\.02 s requested.*allow_bin_width: true"):
        count_source(recording, 0.02, "a.nwb")
    source = count_source(recording, 0.02, "a.nwb", allow_bin_width=True)
    assert (source.n_bins, source.bin_width_s) == (12, 1 / 60)


def test_the_sessions_of_athalye_at_60_hz_are_refused_unless_their_row_allows_them(write: Callable[..., Path]):
    row = next(row for row in PRIMATE if row.name == "athalye")
    path = write(np.ones((12, 3), np.int16), group="/processing/behavior/spike_counts")

    def session(subject: str) -> Recording:
        return read_session(row.reader, [LocalFile(f"sub-{subject}/sub-{subject}_a.nwb", path)], row.reader_options)

    assert count_source(session("monk-j"), 0.02, "j").n_bins == 3
    with pytest.raises(ConfigurationError, match=r"0\.0166667 s in the file"):
        count_source(session("monk-g"), 0.02, "g", allow_bin_width=row.allow_bin_width)
    assert count_source(session("monk-g"), 0.02, "g", allow_bin_width=True).bin_width_s == 1 / 60


@pytest.mark.parametrize(
    ("timestamps", "said"),
    [
        (np.arange(40) * 0.001, []),
        (np.arange(40) * 0.002, ["timestamps 0.002 s apart; its bins are taken as 0.001 s", "39 gaps"]),
        (np.arange(40) * 0.001 + 5 * (np.arange(40) > 9), ["1 gaps of more than 1.5 bins", "of 5.001 s after bin 9"]),
        ([0.0], []),
    ],
)
def test_a_clock_that_contradicts_the_options_is_noted(write: Callable[..., Path], timestamps: Any, said: list[str]):
    notes = " ".join(read(write(np.ones((40, 1), np.uint8), timestamps=timestamps)).notes)
    assert all(words in notes for words in said)
    assert bool(notes) == bool(said)


@pytest.mark.parametrize(("shape", "error"), [((19, 2), EmptyRecording), ((20, 0), NoUnits), ((20,), DamagedRecording)])
def test_a_series_of_another_form_is_refused(
    write: Callable[..., Path], shape: tuple[int, ...], error: type[Exception]
):
    with pytest.raises(error, match=r"a\.nwb"):
        read(write(np.zeros(shape)))


@pytest.mark.parametrize(
    ("reader", "options", "said"),
    [
        ("binned_series", {}, "reader_options of the reader binned_series: missing bin_width_s and path; what to do"),
        ("binned_series", {"paths": "/x"}, "reader_options.paths .* unknown option.*did you mean 'path'"),
        ("binned_series", {**MS, "sum_bin": 2}, "expected: bin_width_s, sum_bins, path.*did you mean 'sum_bins'"),
        ("binned_series", {**MS, "bin_width_s": 0}, "reader_options.bin_width_s .* greater than 0; found: 0"),
        (
            "binned_series",
            {**MS, "path": "x"},
            "reader_options.path.0 .* not a path; found: 'x'; expected: like /",
        ),
        ("binned_series", {**MS, "per_subject": {"(": {"bin_width_s": 1}}}, "is not a regular expression"),
        ("units", {"table": "units"}, "reader_options.table"),
        ("firing_rates", {"table": "/units"}, "expected: no options"),
    ],
)
def test_options_that_a_reader_does_not_take_are_refused(reader: str, options: dict[str, Any], said: str):
    with pytest.raises(CatalogError, match=said):
        get_reader(reader).configured(options)
