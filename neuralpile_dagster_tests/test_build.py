from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.binning import measures
from neuralpile_dagster.errors import ConfigurationError, DamagedRecording, DiskFull, EmptyRecording, NeuralPileError
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.records import CountsRecord, TrainsRecord, document
from neuralpile_dagster.session import build
from neuralpile_dagster.session.build import (
    build_spike_counts,
    counts_inputs,
    is_current,
    load_recording,
    pack_recording,
    store_recording,
    trains_inputs,
)
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, read_record
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.units import read_units
from neuralpile_dagster_tests.fixtures.reference_binning import histogram_counts
from neuralpile_dagster_tests.fixtures.row_files import whole
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains

TRAINS, COUNTS = "sample/spike_trains", "sample/spike_counts"


def session(**changes: Any) -> Session:
    file = ArchiveFile(path="sub-1/a.nwb", size=10, file_id="1", digests={"sha256": "00"})
    return Session(**{"key": "ses_1", "subject_id": "sub-1", "session_id": "ses 1", "files": (file,)} | changes)


def recording(seed: int = 0, n_units: int = 6) -> Recording:
    trains = poisson_trains(n_units, 60.0, 20.0, seed)
    times = np.concatenate(trains)
    units = tuple(Unit(100 + k, "a.nwb", quality="good") for k in range(n_units))
    return Recording(SpikeTrains(times, np.cumsum([len(t) for t in trains])), units, SessionFacts(sex="F"))


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(**{"home": folder, "store": str(folder), "max_tokens": 5_000} | changes)


def built(store: LocalStore, held: Recording, **changes: Any) -> tuple[TrainsRecord, CountsRecord]:
    now = settings(store.root, **changes)
    trains = store_recording(store, TRAINS, session(), held, "v1", trains_inputs(session(), "units"))
    return trains, build_spike_counts(store, COUNTS, "ses_1", held, trains, now)


@contextmanager
def free(amount: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("neuralpile_dagster.files.free_bytes", lambda path: amount)
        yield


def test_a_session_becomes_the_files_and_records_of_the_layout(tmp_path: Path):
    store = LocalStore(tmp_path)
    held = recording()
    trains, counts = built(store, held)
    assert list(store.keys("sample")) == [
        "sample/spike_counts/ses_1.json",
        "sample/spike_counts/ses_1.parquet",
        "sample/spike_counts/ses_1.units.parquet",
        "sample/spike_trains/ses_1.json",
        "sample/spike_trains/ses_1.parquet",
    ]
    assert read_record(store, f"{TRAINS}/ses_1.json", TrainsRecord) == trains
    assert read_record(store, f"{COUNTS}/ses_1.json", CountsRecord) == counts
    assert (trains.n_units, trains.n_spikes, trains.session_id) == (6, held.data.n_spikes, "ses 1")
    assert counts.facts.sex == "F"
    for file in (trains.file, counts.file, counts.units_file):
        content = (tmp_path / file.key).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_rows_hold_numpys_counts_cut_into_segments(tmp_path: Path):
    held = recording()
    _, counts = built(LocalStore(tmp_path), held)
    expected = histogram_counts(held.data)
    np.testing.assert_array_equal(whole(tmp_path / counts.file.key), expected)
    assert [row.segment_id for row in counts.rows] == ["segment_0", "segment_1", "segment_2", "segment_3"]
    assert sum(row.n_bins for row in counts.rows) == counts.stats.n_bins == expected.shape[1]
    assert all(0 < row.bytes < 6 * row.n_bins for row in counts.rows)
    with RowReader(tmp_path / counts.file.key) as reader:
        rows = [reader.row(k) for k in range(reader.n_rows)]
    assert {(row.subject_id, row.session_id) for row in rows} == {("sub-1", "ses 1")}
    assert [row.segment_id for row in rows] == [row.segment_id for row in counts.rows]


def test_the_units_table_counts_what_the_rows_hold(tmp_path: Path):
    _, counts = built(LocalStore(tmp_path), recording())
    table = read_units(tmp_path / counts.units_file.key)
    totals = whole(tmp_path / counts.file.key).sum(axis=1)
    assert table["n_spikes"].to_pylist() == totals.tolist()
    assert table["unit_id"].to_pylist() == [100, 101, 102, 103, 104, 105]
    assert table["mean_rate_hz"].to_pylist() == pytest.approx(totals / counts.stats.observed_s)


def test_a_stored_recording_is_read_back(tmp_path: Path):
    store = LocalStore(tmp_path)
    held = recording()
    trains, _ = built(store, held)
    again = load_recording(store, trains)
    assert again.units == held.units
    np.testing.assert_array_equal(again.data.spike_times, held.data.spike_times)


def test_counts_are_the_same_from_a_recording_held_or_read_back(tmp_path: Path):
    store = LocalStore(tmp_path)
    trains, counts = built(store, recording())
    again = build_spike_counts(store, "sample/again", "ses_1", None, trains, settings(tmp_path))
    assert (again.file.sha256, again.stats) == (counts.file.sha256, counts.stats)


def test_the_number_of_threads_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    digests = set()
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("NEURALPILE_THREADS", threads)
        digests.add(built(LocalStore(tmp_path / threads), recording())[1].file.sha256)
    assert len(digests) == 1


def test_what_is_finished_is_current_until_an_input_changes_or_a_file_is_gone(tmp_path: Path):
    store = LocalStore(tmp_path)
    trains, counts = built(store, recording())
    now = settings(tmp_path)
    assert is_current(store, trains, trains_inputs(session(), "units"))
    assert is_current(store, counts, counts_inputs(trains, now))
    assert not is_current(store, None, "x")
    assert not is_current(store, trains, "other inputs")
    assert not is_current(store, counts, "other inputs")
    store.delete(counts.units_file.key)
    assert not is_current(store, counts, counts.inputs)
    (tmp_path / trains.file.key).write_bytes(b"short")
    assert not is_current(store, trains, trains.inputs)


def test_inputs_change_with_everything_a_session_is_made_from(monkeypatch: pytest.MonkeyPatch):
    file = session().files[0]
    inputs = {
        trains_inputs(session(), "units"),
        trains_inputs(session(), "firing_rates"),
        trains_inputs(session(session_id="other"), "units"),
        trains_inputs(session(subject_id="other"), "units"),
        trains_inputs(session(files=(file, file)), "units"),
        trains_inputs(session(files=(file.model_copy(update={"digests": {"sha256": "01"}}),)), "units"),
        trains_inputs(session(files=(file.model_copy(update={"size": 11}),)), "units"),
    }
    monkeypatch.setattr(build, "TRAINS_VERSION", "trains-2")
    inputs.add(trains_inputs(session(), "units"))
    assert len(inputs) == 8
    assert trains_inputs(session(), "units") == trains_inputs(session(vanished=True), "units")


def test_inputs_of_counts_change_with_trains_settings_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trains, _ = built(LocalStore(tmp_path), recording())
    other, _ = built(LocalStore(tmp_path), recording(seed=1))
    now = settings(tmp_path)
    inputs = {
        counts_inputs(trains, now),
        counts_inputs(other, now),
        counts_inputs(trains, settings(tmp_path, bin_width_s=0.01)),
        counts_inputs(trains, settings(tmp_path, max_tokens=1)),
    }
    monkeypatch.setattr(build, "BINNING_VERSION", "binning-2")
    inputs.add(counts_inputs(trains, now))
    assert len(inputs) == 5


def test_ready_made_counts_are_cut_as_they_are(tmp_path: Path):
    matrix = np.random.default_rng(0).poisson(1, (6, 3_000)).astype(np.uint8)
    data = BinnedCounts(matrix, 0.02, int(matrix.sum()) + 4, missing_bins=2, saturated_bins=1, lost_to_saturation=4)
    held = Recording(data, recording().units, SessionFacts())
    trains, counts = built(LocalStore(tmp_path), held)
    assert trains.n_spikes is None
    np.testing.assert_array_equal(whole(tmp_path / counts.file.key), matrix)
    stats = counts.stats
    assert (stats.unaccounted, stats.lost_to_saturation, stats.missing_bins, stats.saturated_bins) == (0, 4, 2, 1)


def test_ready_made_counts_of_another_bin_width_are_refused_by_name(tmp_path: Path):
    data = BinnedCounts(np.ones((6, 50), np.uint8), 0.02, 300)
    held = Recording(data, recording().units, SessionFacts())
    with pytest.raises(ConfigurationError, match=r"a\.nwb.*ses_1.*0\.02 s in the file, 0\.01 s requested"):
        built(LocalStore(tmp_path), held, bin_width_s=0.01)


def test_losses_of_every_kind_are_recorded_and_conserved(tmp_path: Path):
    times = np.array([-1.0, np.nan, *[0.01] * 300, 0.03, 0.03, 0.060000000000000005])
    held = Recording(SpikeTrains(times, np.array([len(times)])), (Unit(0, "a.nwb"),), SessionFacts())
    stats = built(LocalStore(tmp_path), held)[1].stats
    assert stats.unaccounted == 0
    lost = (stats.dropped_negative, stats.dropped_nan, stats.dropped_beyond, stats.lost_to_saturation)
    assert lost == (1, 1, 1, 45)
    assert (stats.spikes_read, stats.spikes_kept, stats.saturated_bins) == (305, 257, 1)
    assert stats.duplicate_spikes == 300
    assert stats.implausible_units == ((0, 1),)


def test_missing_spikes_are_a_defect_that_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Forgetful(measures.CountsMeasure):
        def stats(self, spikes_read: int, **losses: Any) -> Any:
            return super().stats(spikes_read + 1, **losses)

    monkeypatch.setattr(measures, "CountsMeasure", Forgetful)
    with pytest.raises(NeuralPileError, match="1 of 5,976 spikes unaccounted"):
        built(LocalStore(tmp_path), recording())
    assert list(LocalStore(tmp_path).keys(COUNTS)) == []


def test_a_session_that_fails_leaves_the_earlier_files_and_no_half_ones(tmp_path: Path):
    store = LocalStore(tmp_path)
    empty = Recording(SpikeTrains(np.zeros(1), np.array([1])), (Unit(0, "a.nwb"),), SessionFacts())
    with pytest.raises(EmptyRecording, match=r"a\.nwb.*ses_1.* has nothing to bin"):
        built(store, empty)
    assert list(store.keys(COUNTS)) == []
    assert not list(tmp_path.rglob(".*"))


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalStore(tmp_path)
    with free(1_000, monkeypatch), pytest.raises(DiskFull, match="1,000 bytes available"):
        built(store, recording())
    trains, _ = built(store, recording())
    with free(1_000, monkeypatch), pytest.raises(DiskFull, match="spike counts"):
        build_spike_counts(store, "sample/other", "ses_1", recording(), trains, settings(tmp_path))
    assert list(store.keys("sample/other")) == []


def test_a_session_of_more_than_20_g_tokens_is_refused_and_nothing_written_unless_its_row_allows_it(tmp_path: Path):
    store, held = LocalStore(tmp_path), recording()
    trains = built(store, held)[0]
    units = tuple(Unit(k, "a.nwb") for k in range(25))
    long = Recording(SpikeTrains(np.array([1.0, 18e6]), np.array([1] * 24 + [2])), units, SessionFacts())
    found = (
        r"= 22,500,000,000 tokens in 5,000\.0 h; the last spike is at 18,000,000 s; expected: at most 20,000,000,000"
    )
    with pytest.raises(DamagedRecording, match=found):
        build_spike_counts(store, COUNTS, "long", long, trains, settings(tmp_path))
    with pytest.raises(DamagedRecording, match="expected: at most 17,999 tokens"):
        pack_recording(held, "other", settings(tmp_path), max_session_tokens=17_999)
    assert all(key.startswith(f"{COUNTS}/ses_1") for key in store.keys(COUNTS))
    packed = pack_recording(held, "other", settings(tmp_path), max_session_tokens=18_000)
    allowed = build_spike_counts(store, COUNTS, "other", packed, trains, settings(tmp_path))
    assert allowed.stats.tokens == 18_000


def test_a_record_of_before_clocks_is_hashed_and_written_as_it_was(tmp_path: Path):
    _, counts = built(LocalStore(tmp_path), recording())
    stats = counts.stats.model_copy(update={"clock": None, "activity": ()})
    old = counts.model_copy(update={"stats": stats})
    dumped = old.model_dump(mode="json")["stats"]
    assert "clock" not in dumped
    assert "activity" not in dumped
    assert CountsRecord.model_validate(old.model_dump()) == old
    assert set(json.loads(document(old))["stats"]) == set(dumped)
