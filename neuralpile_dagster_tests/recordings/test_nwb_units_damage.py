"""Reader `units` on files that are damaged or hostile: one error that names the file and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralpile_dagster.errors import DamagedRecording, NeuralPileError, NoUnits
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import SessionFacts, read_session
from neuralpile_dagster.recordings.nwb import units
from neuralpile_dagster.recordings.nwb.table import first_facts
from neuralpile_dagster_tests.fixtures.damaging import TRAINS, create, read
from neuralpile_dagster_tests.servers.nwb_files import (
    Electrodes,
    remove,
    rewrite,
    write_nwb_without_units,
    write_units_nwb,
)

N_SPIKES = sum(map(len, TRAINS))


@pytest.mark.parametrize(
    ("index", "rule"),
    [
        (np.array([10, 5, 20, N_SPIKES]), "not monotone: 10 is followed by 5"),
        (np.array([10, 20, 30, N_SPIKES - 1]), f"ends at {N_SPIKES - 1}, but there are {N_SPIKES}"),
        (np.array([10, 20, 30, N_SPIKES + 1]), f"ends at {N_SPIKES + 1}, but there are {N_SPIKES}"),
        (np.array([10, 20, N_SPIKES]), "3 entries for 4 ids"),
        (np.array([10, 20, 30, 40, N_SPIKES]), "5 entries for 4 ids"),
        (np.array([], int), "0 entries for 4 ids"),
        (np.array([-5, 20, 30, N_SPIKES]), "negative"),
        (np.array([1.0, 2, 3, N_SPIKES]), "integers"),
        (np.array([1, 2, 3, 2**64 - 1], "uint64"), "ends at 18,446,744,073,709,551,615"),
        (np.array([200, 250, 40, N_SPIKES % 256], "uint8"), "not monotone: 250 is followed by 40"),
    ],
)
def test_an_index_that_breaks_a_rule_is_refused_with_that_rule(path: Path, index: np.ndarray, rule: str):
    rewrite(path, "units/spike_times_index", index)
    with pytest.raises(DamagedRecording, match=rule) as error:
        read(path)
    assert "sub-1_ses-1.nwb" in str(error.value) and "what to do" in str(error.value)


def test_a_file_without_a_units_table_says_what_it_has_instead(tmp_path: Path):
    with pytest.raises(NoUnits, match=r"a\.nwb has no units table.*session_description"):
        read(write_nwb_without_units(tmp_path / "a.nwb"))


def test_the_real_imaging_recording_has_no_units(shared_data: Path):
    path = shared_data / "recordings" / "990001" / "sub-A0634" / "sub-A0634_ses-210127_ophys.nwb"
    with pytest.raises(NoUnits, match=r"sub-A0634_ses-210127_ophys\.nwb has no units table"):
        read(path)


def test_units_without_spike_times_are_no_units(path: Path):
    remove(path, "units/spike_times", "units/spike_times_index")
    with pytest.raises(NoUnits, match="units without spike times; found: columns id"):
        read(path)


def test_a_units_table_without_rows_has_no_units(tmp_path: Path):
    with pytest.raises(NoUnits, match="without units"):
        read(write_units_nwb(tmp_path / "a.nwb", []))


@pytest.mark.parametrize("column", ["id", "spike_times_index"])
def test_a_column_that_cannot_be_done_without_is_named(path: Path, column: str):
    with pytest.raises(DamagedRecording, match=f"the column {column} is missing"):
        read(remove(path, f"units/{column}"))


@pytest.mark.parametrize(
    "values",
    [
        *(np.full(N_SPIKES, b"1.5"), np.zeros(N_SPIKES, complex), np.zeros(N_SPIKES, bool), np.zeros((N_SPIKES, 2))),
        h5py.Empty("f8"),
    ],
    ids=["text", "complex", "truth values", "two dimensions", "nothing"],
)
def test_spike_times_that_are_no_column_of_numbers_are_refused(path: Path, values: np.ndarray):
    rewrite(path, "units/spike_times", values)
    with pytest.raises(DamagedRecording, match=r"/units/spike_times"):
        read(path)


def test_values_of_another_shape_than_the_file_states_are_refused(path: Path):
    class Short(LocalFile):
        def read(self, dataset: h5py.Dataset) -> np.ndarray:
            return super().read(dataset)[1:]

    with pytest.raises(DamagedRecording, match=r"/units/\w+ returned another shape"):
        read_session("units", [Short(path.name, path)])


def test_ids_that_are_no_whole_numbers_are_refused(path: Path):
    rewrite(path, "units/id", np.array([1.0, 2.5, 3.0, 4.0]))
    with pytest.raises(DamagedRecording, match=r"/units/id is not of whole numbers; found: dtype float64; .* integers"):
        read(path)


def test_files_that_claim_too_many_spikes_together_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(units, "MAX_SPIKES", 2 * N_SPIKES - 1)
    assert read(path).data.n_spikes == N_SPIKES
    with pytest.raises(DamagedRecording, match=f"more spikes than any recording; found: {2 * N_SPIKES:,} spikes"):
        read(path, path)


def test_a_fact_is_that_of_the_first_file_that_states_it():
    stated = [SessionFacts(sex="F"), SessionFacts(sex="M", subject="A"), SessionFacts(subject="B", age="P9D")]
    assert first_facts(stated) == SessionFacts(sex="F", subject="A", age="P9D")


def test_an_id_that_no_table_of_ours_can_hold_is_refused(path: Path):
    rewrite(path, "units/id", np.array([1, 2, 3, 2**64 - 1], "uint64"))
    with pytest.raises(DamagedRecording, match="64-bit"):
        read(path)


@pytest.mark.parametrize("what", ["units", "units/spike_times", "units/spike_times_index", "units/id"])
def test_links_to_other_files_are_not_followed(path: Path, tmp_path: Path, what: str):
    other = write_units_nwb(tmp_path / "secret.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        del file[what]
        file[what] = h5py.ExternalLink(str(other), f"/{what}")
    with pytest.raises(DamagedRecording, match="outside the file"):
        read(path)


def test_a_link_to_a_link_to_another_file_is_not_followed(path: Path, tmp_path: Path):
    other = write_units_nwb(tmp_path / "secret.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        del file["units"]
        file["away"] = h5py.ExternalLink(str(other), "/")
        file["units"] = h5py.SoftLink("/away/units")
    with pytest.raises(DamagedRecording, match=r"outside the file.*secret\.nwb"):
        read(path)


def test_external_storage_is_not_read(path: Path, tmp_path: Path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(N_SPIKES, dtype="f8").tobytes())
    remove(path, "units/spike_times")
    outside = [(str(secret), 0, h5py.h5f.UNLIMITED)]
    create(path, lambda units: units.create_dataset("spike_times", (N_SPIKES,), "f8", external=outside))
    with pytest.raises(DamagedRecording, match="external storage"):
        read(path)


def test_a_virtual_dataset_is_not_read(path: Path, tmp_path: Path):
    other = write_units_nwb(tmp_path / "secret.nwb", TRAINS)
    layout = h5py.VirtualLayout((N_SPIKES,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "units/spike_times", (N_SPIKES,))
    remove(path, "units/spike_times")
    create(path, lambda units: units.create_virtual_dataset("spike_times", layout))
    with pytest.raises(DamagedRecording, match="virtual dataset"):
        read(path)


def test_links_inside_the_file_are_followed(path: Path):
    with h5py.File(path, "r+") as file:
        file.move("units", "elsewhere")
        file["units"] = h5py.SoftLink("/elsewhere")
        file["elsewhere/location"] = h5py.SoftLink("areas")
        file["elsewhere/areas"] = ["a", "b", "c", "d"]
    recording = read(path)
    assert recording.data.n_spikes == N_SPIKES
    assert [unit.brain_area for unit in recording.units] == ["a", "b", "c", "d"]


def test_what_is_no_hdf5_says_so(tmp_path: Path):
    path = tmp_path / "a.nwb"
    path.write_bytes(b"<html>503 Service Unavailable</html>")
    with pytest.raises(DamagedRecording, match=r"a\.nwb cannot be opened as HDF5"):
        read(path)


def test_a_file_cut_short_anywhere_is_damaged(path: Path):
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DamagedRecording, match=r"sub-1_ses-1\.nwb"):
            read(path)


def test_a_chunk_that_does_not_decompress_is_damaged(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, compression="gzip", chunks=(64,))
    with h5py.File(path) as file:
        chunk = file["units/spike_times"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xaa" * chunk.size
    path.write_bytes(content)
    with pytest.raises(DamagedRecording, match=r"a\.nwb: /units/spike_times cannot be read"):
        read(path)


def test_flipped_bytes_give_a_recording_or_one_of_our_errors(path: Path):
    """No other exception may escape, whatever the bytes of the file are."""
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(0, len(whole), 40)] = rng.integers(0, 256, 40)
        path.write_bytes(content.tobytes())
        try:
            read(path)
        except NeuralPileError as error:
            assert "sub-1_ses-1.nwb" in str(error)
            refused += 1
    assert refused > 20


def test_one_damaged_probe_fails_the_session_and_is_named(path: Path, tmp_path: Path):
    bad = write_units_nwb(tmp_path / "probe1.nwb", TRAINS)
    rewrite(bad, "units/spike_times_index", np.array([3, 2, 1, N_SPIKES]))
    with pytest.raises(DamagedRecording, match=r"probe1\.nwb.*not monotone"):
        read(path, bad)


def test_one_probe_without_units_fails_the_session_and_is_named(path: Path, tmp_path: Path):
    with pytest.raises(NoUnits, match=r"probe1\.nwb has no units table"):
        read(path, write_nwb_without_units(tmp_path / "probe1.nwb"))


def test_facts_and_attributes_of_another_kind_are_not_stated(tmp_path: Path):
    groups = ["probeA", "probeA", "probeB", "probeB"]
    electrodes = Electrodes([1, 2], ["unknown"] * 2, ["probeA", "probeB"], {"probeB": "CA1"})
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=electrodes, unit_groups=groups)
    numbers = h5py.vlen_dtype("f8")  # random bytes that HDF5 takes for this have crashed it
    value = np.empty((), object)
    value[()] = np.zeros(3)
    with h5py.File(path, "r+") as file:
        del file["session_description"], file["general/subject/subject_id"]
        file.create_dataset("session_description", data=value, dtype=numbers)
        file.create_dataset("general/subject/subject_id", data=[b"a", b"b"])
        attributes = file["general/extracellular_ephys/probeA"].attrs
        del attributes["location"]
        attributes.create("location", value, dtype=numbers)
        file.create_group(b"general/extracellular_ephys/caf\xe9")
    recording = read(path)
    assert (recording.facts.description, recording.facts.subject) == (None, None)
    assert [unit.brain_area for unit in recording.units] == [None, None, "CA1", "CA1"]
    assert [unit.probe for unit in recording.units] == groups


def test_files_are_closed_after_an_error(path: Path):
    rewrite(path, "units/spike_times_index", np.array([3, 2, 1, N_SPIKES]))
    with pytest.raises(DamagedRecording):
        read(path)
    with h5py.File(path, "r+"):  # h5py refuses this while the file is open for reading
        pass
