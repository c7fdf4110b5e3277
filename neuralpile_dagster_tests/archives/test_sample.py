"""The sample archive: made once, complete, labelled synthetic, and readable in every form."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO
from scipy.io import loadmat

from neuralpile_dagster.archives import folder, synthetic
from neuralpile_dagster.archives.folder import SAMPLES, SampleArchive, make_sample
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.errors import ArchiveError, StoreError
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SpikeTrains, read_session
from neuralpile_dagster_tests.fixtures.once import put_sample

DATASETS = {dataset.name: dataset for dataset in SAMPLE}
SUBJECT_COUNTS = {"sample-units": 2, "sample-probes": 2, "sample-rates": 2, "sample-eight-probe": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    put_sample(home)
    return home


def recordings(home: Path, dataset: Dataset) -> dict[str, Recording]:
    archive = SampleArchive(home)
    manifest = choose_sessions(dataset, archive.list_files(dataset.source))
    read = {}
    for session in manifest.sessions:
        with ExitStack() as stack:
            files = [stack.enter_context(archive.open(dataset.source, file)) for file in session.files]
            read[session.session_id] = read_session(dataset.reader, files)
    return read


def test_the_catalog_names_what_the_generator_makes():
    assert set(DATASETS) == set(SAMPLES) == set(synthetic.WRITERS)
    assert {dataset.source.id for dataset in SAMPLE} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_listing_says_that_it_is_synthetic(home: Path, name: str):
    dataset = DATASETS[name]
    listing = SampleArchive(home).list_files(dataset.source)
    assert listing.synthetic and listing.frozen
    assert (listing.archive, listing.version) == ("sample", folder.GENERATOR_VERSION)
    assert listing.citation.title is not None and "SYNTHETIC" in listing.citation.title
    assert listing.citation.license == "CC0-1.0"
    manifest = choose_sessions(dataset, listing)
    assert manifest.synthetic
    assert len(manifest.sessions) == (dataset.sessions_due or 2)
    assert len({session.subject_id for session in manifest.sessions}) == SUBJECT_COUNTS[name]


def test_every_file_says_that_it_is_synthetic(home: Path):
    folder = make_sample(home)
    for path in folder.rglob("*.nwb"):
        with NWBHDF5IO(path, "r") as io:
            file = io.read()
            assert "SYNTHETIC" in file.session_description
            assert "SYNTHETIC" in file.subject.description
            assert all("SYNTHETIC" in device.description for device in file.devices.values())
    for path in folder.rglob("*.mat"):
        assert "SYNTHETIC" in loadmat(path)["note"][0]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_session_reads_without_a_doubt(home: Path, name: str):
    for recording in recordings(home, DATASETS[name]).values():
        assert not [note for note in recording.notes if " were not read: " not in note]
        assert 40 <= recording.data.n_units <= 140
        assert len(recording.units) == recording.data.n_units
        if isinstance(recording.data, SpikeTrains):
            times = recording.data.spike_times
            assert times.min() >= 0 and 100 < times.max() < 310
            assert 1 < len(times) / recording.data.n_units / times.max() < 20  # Hz
        else:
            assert recording.data.missing_bins > 0 and recording.data.counts.any()


def test_the_units_sample_has_every_dtype_of_index_and_a_file_without_units(home: Path):
    listing = SampleArchive(home).list_files(DATASETS["sample-units"].source)
    dtypes = set()
    for file in listing.files:
        with h5py.File(make_sample(home) / "sample-units" / file.path) as hdf5:
            if file.variables:
                dtypes.add(str(hdf5["units/spike_times_index"].dtype))
                assert {"spike_amplitudes", "waveform_mean", "peak_channel_id", "quality"} <= set(hdf5["units"])
    assert dtypes == {"uint32", "int32", "int64", "uint64"}
    assert [file.path for file in listing.files if not file.variables] == [
        "sub-S2/sub-S2_ses-20200105T120000_image.nwb"
    ]
    assert DATASETS["sample-units"].sessions_due == 4


def test_units_have_areas_by_their_peak_channel_and_one_is_silent(home: Path):
    for recording in recordings(home, DATASETS["sample-units"]).values():
        assert {unit.brain_area for unit in recording.units} == {"VISp", "CA1", "LGd", "MOs"}
        assert {unit.probe for unit in recording.units} == {"probeA", "probeB"}
        assert isinstance(recording.data, SpikeTrains)
        assert np.count_nonzero(np.diff(recording.data.ends, prepend=0) == 0) == 1


def test_probes_of_one_session_are_stacked(home: Path):
    read = recordings(home, DATASETS["sample-probes"])
    assert {key: len({unit.file for unit in recording.units}) for key, recording in read.items()} == {
        "ses-S1-20200101": 2,
        "ses-S2-20200102": 3,
    }


def test_rates_hold_halves_that_round_to_even(home: Path):
    for recording in recordings(home, DATASETS["sample-rates"]).values():
        assert isinstance(recording.data, BinnedCounts)
        assert recording.data.counts[0, :3].tolist() == [0, 2, 2]


def test_eight_probes_have_ids_that_no_spike_has(home: Path):
    for recording in recordings(home, DATASETS["sample-eight-probe"]).values():
        assert isinstance(recording.data, SpikeTrains)
        assert recording.data.bin_rule == "from_first_spike"
        assert {unit.probe for unit in recording.units} == set("12345678")
        assert (np.diff(recording.data.ends, prepend=0) == 0).sum() > 5


def test_the_same_recordings_are_made_everywhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in set(SAMPLES) - {"sample-units"}:
        monkeypatch.setitem(synthetic.WRITERS, name, lambda folder: folder.mkdir(parents=True))
    one, other = (SampleArchive(at).list_files(DATASETS["sample-units"].source) for at in (home, tmp_path))
    assert one.files == other.files
    before, after = (recordings(at, DATASETS["sample-units"]) for at in (home, tmp_path))
    for key, recording in before.items():
        np.testing.assert_array_equal(recording.data.spike_times, after[key].data.spike_times)
        assert recording.units == after[key].units


def test_it_is_made_once_and_again_for_a_new_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Path] = []
    monkeypatch.setattr(synthetic, "WRITERS", {name: lambda folder: folder.mkdir(parents=True) for name in SAMPLES})
    monkeypatch.setitem(
        synthetic.WRITERS, "sample-units", lambda folder: (folder.mkdir(parents=True), made.append(folder))
    )
    first = make_sample(tmp_path)
    assert make_sample(tmp_path) == first
    assert len(made) == 1
    monkeypatch.setattr(folder, "GENERATOR_VERSION", "other")
    second = make_sample(tmp_path)
    assert len(made) == 2
    assert list((tmp_path / "sample").iterdir()) == [second]


def test_a_generator_that_dies_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(folder: Path) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(synthetic, "WRITERS", {name: lambda folder: folder.mkdir(parents=True) for name in SAMPLES})
    monkeypatch.setitem(synthetic.WRITERS, SAMPLES[-1], die)
    with pytest.raises(RuntimeError, match="killed"):
        make_sample(tmp_path)
    assert list((tmp_path / "sample").iterdir()) == []


def test_two_that_make_it_at_once_both_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    both = threading.Barrier(2, timeout=30)

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("x")
        both.wait()

    monkeypatch.setattr(synthetic, "WRITERS", dict.fromkeys(SAMPLES, write))
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(make_sample(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [made[0]] * 2
    assert list((tmp_path / "sample").iterdir()) == [made[0]]


def test_real_datasets_are_not_in_the_sample(home: Path):
    with pytest.raises(ArchiveError, match=r"dandi 000017 is not in the sample archive.*sample-units"):
        SampleArchive(home).list_files(Source(id="000017"))


def test_a_home_that_is_a_file_is_a_store_error(tmp_path: Path):
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        make_sample(tmp_path / "home")
