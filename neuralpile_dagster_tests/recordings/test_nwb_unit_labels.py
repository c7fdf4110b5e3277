"""What an NWB file says of its units beside their spikes: areas, electrodes, labels, intervals."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralpile_dagster.recordings.nwb.table import broken_index_rule
from neuralpile_dagster_tests.fixtures.cases import Case
from neuralpile_dagster_tests.fixtures.reading import TRAINS, TWO_PROBES, assert_same, read, trains_of
from neuralpile_dagster_tests.servers.nwb_files import remove, rewrite, write_units_nwb


def test_the_unit_s_own_area_comes_before_its_electrodes(tmp_path: Path):
    path = write_units_nwb(
        tmp_path / "a.nwb",
        TRAINS,
        electrodes=TWO_PROBES,
        unit_electrodes=[[1], [1], [0, 1], [2]],
        unit_groups=["probeA", "probeA", "probeA", "probeB"],
        columns={"brain_region": ["CA3", "", "unknown", "nan"], "quality": ["good", "mua", "", "good"]},
    )
    units = read(path).units
    assert [(unit.brain_area, unit.brain_area_from) for unit in units] == [
        ("CA3", "units.brain_region"),
        ("CA1", "units.electrodes -> electrodes.location"),
        ("VISp, CA1", "units.electrodes -> electrodes.location"),
        ("thalamus", "units.electrode_group -> location"),
    ]
    assert [unit.probe for unit in units] == ["probeA", "probeA", "probeA", "probeB"]
    assert [unit.quality for unit in units] == ["good", "mua", None, "good"]


def test_an_allen_unit_lies_where_its_peak_channel_lies(tmp_path: Path):
    path = write_units_nwb(
        tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES, columns={"peak_channel_id": [205, 100, 310, 999]}
    )
    units = read(path).units
    way = "units.peak_channel_id -> electrodes.location"
    assert [(unit.brain_area, unit.brain_area_from) for unit in units] == [
        ("CA1", way),
        ("VISp", way),
        (None, None),
        (None, None),
    ]
    assert [unit.probe for unit in units] == ["probeA", "probeA", "probeB", None]


def test_one_electrode_per_unit_needs_no_index(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES, unit_electrodes=[[0], [1], [1], [0]])
    remove(path, "units/electrodes_index")
    assert [unit.brain_area for unit in read(path).units] == ["VISp", "CA1", "CA1", "VISp"]


def test_observed_intervals_stay_with_their_unit(tmp_path: Path):
    intervals = [np.array([[0, 5], [6, 7.5]]), np.empty((0, 2)), np.array([[1, 2.0]]), np.array([[0, 9.0]])]
    units = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, obs_intervals=intervals)).units
    assert [unit.obs_intervals for unit in units] == [((0, 5), (6, 7.5)), (), ((1, 2),), ((0, 9),)]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.array([b"good", b"mua", b"", b"good"]), ["good", "mua", None, "good"]),
        (np.array([1, 2, 3, 3], "uint8"), ["1", "2", "3", "3"]),
        (np.array([2.0, 2.5, np.nan, 0]), ["2", "2.5", None, "0"]),
        (np.array([True, False, True, True]), ["True", "False", "True", "True"]),
        (np.array([0, 1, 1, 7]).astype(h5py.enum_dtype({"good": 0, "mua": 1}, "u1")), ["good", "mua", "mua", "7"]),
        (np.array(["é", "b", "c", "d"], dtype=h5py.string_dtype()), ["é", "b", "c", "d"]),
        (np.array([b"\xff\xfe", b"b", b"c", b"d"]), ["\ufffd\ufffd", "b", "c", "d"]),
    ],
    ids=["bytes", "integers", "floats", "booleans", "enumeration", "text", "not utf-8"],
)
def test_labels_of_any_dtype_become_text(tmp_path: Path, values: np.ndarray, labels: list[str | None]):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset("quality", data=values)
    recording = read(path)
    assert [unit.quality for unit in recording.units] == labels
    assert recording.notes == ()


def test_numbers_of_an_enumerated_column_become_their_elements(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        elements = file["units"].create_dataset("cell_type_elements", data=["pyramidal", "interneuron"])
        column = file["units"].create_dataset("cell_type", data=np.array([1, 0, 0, 1], "uint8"))
        column.attrs["elements"] = elements.ref
    assert [unit.cell_type for unit in read(path).units] == ["interneuron", "pyramidal", "pyramidal", "interneuron"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("quality", np.array([b"good", b"mua"])),
        ("quality", np.zeros((4, 2))),
        ("cell_type", np.zeros(4, dtype=[("a", "f4"), ("b", "f4")])),
        ("electrodes", np.array([0, 1, 2, 3])),
        ("peak_channel_id", np.array([b"a", b"b", b"c", b"d"])),
        ("peak_channel_id", np.zeros((4, 2), int)),
        ("peak_channel_id", np.zeros(3, int)),
        ("obs_intervals", np.zeros(4)),
        ("obs_intervals", np.zeros((4, 3))),
        ("obs_intervals", np.zeros((3, 2))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
def test_a_side_column_that_contradicts_its_table_is_noted_and_not_used(
    tmp_path: Path, column: str, values: np.ndarray
):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset(column, data=values)
    recording = read(path)
    assert_same(trains_of(recording), TRAINS)
    assert len(recording.notes) == 1
    assert f"units/{column} is not used" in recording.notes[0] and "a.nwb" in recording.notes[0]
    assert all(
        (unit.quality, unit.cell_type, unit.brain_area, unit.obs_intervals) == (None,) * 4 for unit in recording.units
    )


@pytest.mark.parametrize("index", [[3, 2, 1, 4], [1, 2, 3, 5], [1, 2, 4]], ids=["falling", "too long", "too short"])
@pytest.mark.parametrize("column", ["quality", "electrodes", "obs_intervals"])
def test_a_side_column_with_a_broken_index_is_noted_and_not_used(tmp_path: Path, column: str, index: list[int]):
    values = {"quality": np.zeros(4), "electrodes": np.zeros(4, int), "obs_intervals": np.zeros((4, 2))}
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset(column, data=values[column])
        file["units"].create_dataset(f"{column}_index", data=index)
    (note,) = read(path).notes
    assert f"units/{column} is not used: the index " in note


def test_groups_for_fewer_rows_than_the_table_has_are_noted_and_not_used(tmp_path: Path):
    groups = ["probeA", "probeA", "probeB", "probeB"]
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES, unit_groups=groups)
    with h5py.File(path) as file:
        references = file["units/electrode_group"][:3]
    rewrite(path, "units/electrode_group", references, dtype=h5py.ref_dtype)
    recording = read(path)
    assert [(unit.probe, unit.brain_area) for unit in recording.units] == [(None, None)] * 4
    assert all("units/electrode_group is not used" in note for note in recording.notes)


def test_groups_that_are_named_in_text_are_probes(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset("electrode_group", data=["A", "A", "B", ""], dtype=h5py.string_dtype())
    recording = read(path)
    assert [unit.probe for unit in recording.units] == ["A", "A", "B", None]
    assert recording.notes == ()


def test_electrodes_before_the_first_are_noted_and_not_used(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset("electrodes", data=[0, 1, -1, 0])
    recording = read(path)
    assert recording.units[0].brain_area is None
    assert "units/electrodes is not used: row -1 of a table of" in recording.notes[0]


@pytest.mark.parametrize("elements", ["a text", "numbers", "nothing"])
def test_numbers_whose_elements_are_no_names_stay_numbers(tmp_path: Path, elements: str):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        column = file["units"].create_dataset("cell_type", data=np.array([1, 0, 0, 1], "uint8"))
        numbers = file["units"].create_dataset("cell_type_elements", data=np.arange(2))
        column.attrs["elements"] = {"a text": "x", "numbers": numbers.ref, "nothing": h5py.Reference()}[elements]
    assert [unit.cell_type for unit in read(path).units] == ["1", "0", "0", "1"]


def test_labels_of_objects_that_are_no_text_are_noted_and_not_used(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS)
    with h5py.File(path, "r+") as file:
        file["units"].create_dataset("cell_type", (4,), h5py.vlen_dtype("f8"))
    recording = read(path)
    assert recording.notes == ("a.nwb: /units/cell_type is not used: dtype object",)


def test_the_index_of_a_table_without_rows_may_only_be_empty():
    assert broken_index_rule(np.zeros(0, int), 0, 0) is None
    assert broken_index_rule(np.zeros(0, int), 3, 0) == "the index is empty, but there are 3 values"


def test_electrodes_that_are_not_there_are_noted(tmp_path: Path):
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, columns={"peak_channel_id": [1, 2, 3, 4]})
    note, unread = read(path).notes
    assert "electrodes is not there" in note
    assert unread.endswith("not read: peak_channel_id")


def test_a_null_reference_is_no_group(tmp_path: Path):
    groups = ["probeA", "probeA", "probeB", "probeB"]
    path = write_units_nwb(tmp_path / "a.nwb", TRAINS, electrodes=TWO_PROBES, unit_groups=groups)
    with h5py.File(path) as file:
        references = file["units/electrode_group"][()]
    references[0] = h5py.Reference()
    rewrite(path, "units/electrode_group", references, dtype=h5py.ref_dtype)
    assert [unit.probe for unit in read(path).units] == [None, "probeA", "probeB", "probeB"]


def test_a_blank_quality_does_not_hide_a_filled_one(case: Case):
    assert [unit.quality for unit in read(case("quality_blank_first")).units] == ["good", "mua", "good"]


def test_each_label_is_chosen_for_each_unit(tmp_path: Path):
    columns = {
        "quality": ["", "noise", "unknown", "nan"],
        "KSLabel": ["mua", "good", "good", ""],
        "cell_type": ["", "PV", "", ""],
        "celltype_label": ["pyramidal", "SST", "", "n/a"],
    }
    units = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns)).units
    assert [unit.quality for unit in units] == ["mua", "noise", "good", "nan"]
    assert [unit.cell_type for unit in units] == ["pyramidal", "PV", None, "n/a"]


def test_phy_s_groups_are_quality_labels_and_no_probes(case: Case):
    units = read(case("phy_group")).units
    assert [unit.quality for unit in units] == ["good", "mua", "noise"]
    assert [unit.probe for unit in units] == [None, None, None]


@pytest.mark.parametrize(
    ("groups", "probes", "qualities"),
    [
        (["Good", "MUA", "nan", "unsorted"], [None] * 4, ["Good", "MUA", "mua", "unsorted"]),
        (["probe0", "probe0", "good", "probe1"], ["probe0", "probe0", "good", "probe1"], ["good", "good", "mua", None]),
        (["", "", "", ""], [None] * 4, ["good", "good", "mua", None]),
    ],
    ids=["phy's", "probes", "blank"],
)
def test_what_a_column_group_holds_says_what_it_is(
    tmp_path: Path, groups: list[str], probes: list[str | None], qualities: list[str | None]
):
    columns = {"group": groups, "KSLabel": ["good", "good", "mua", ""]}
    recording = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns))
    assert [unit.probe for unit in recording.units] == probes
    assert [unit.quality for unit in recording.units] == qualities
    assert recording.notes == ()


def test_other_names_of_areas_and_labels_are_known_in_any_case(case: Case):
    recording = read(case("odd_area_names"))
    assert [(unit.brain_area, unit.brain_area_from) for unit in recording.units] == [
        ("MOs", "units.brain_area"),
        ("MOs", "units.brain_area"),
        ("CP", "units.brain_area"),
    ]
    assert [unit.quality for unit in recording.units] == ["good", "mua", "good"]
    assert recording.notes == ("odd_area_names.nwb: columns of /units that were not read: ks2_label",)


@pytest.mark.parametrize(
    ("column", "attribute"),
    [
        *(
            (name, "brain_area")
            for name in ("brain_area", "ClusterRecLoc", "brainLocationAcronyms_ccf_2017", "LOCATION")
        ),
        *((name, "quality") for name in ("unit_quality", "cluster_quality", "sort_label", "KSlabel", "ks2_label")),
        *((name, "cell_type") for name in ("celltype_label", "Cell_Type")),
        *((name, "probe") for name in ("Probe", "probe_name", "group")),
    ],
)
def test_every_name_of_the_vocabulary_gives_its_label(tmp_path: Path, column: str, attribute: str):
    recording = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns={column: ["p", "q", "", "s"]}))
    assert [getattr(unit, attribute) for unit in recording.units] == ["p", "q", None, "s"]
    assert recording.notes == ()


def test_columns_that_nothing_was_taken_from_are_named(tmp_path: Path):
    columns = {
        "quality": ["good"] * 4,
        "KSLabel": ["good"] * 4,
        "snr": [1.0] * 4,
        "mood": ["calm"] * 4,
        "waveform_mean": [np.ones((30, 4))] * 4,
        "spike_amplitudes": TRAINS,
    }
    recording = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns))
    assert recording.notes == (
        "a.nwb: columns of /units that were not read: KSLabel, mood, snr, spike_amplitudes, waveform_mean",
    )


def test_a_note_of_unread_columns_is_short(tmp_path: Path):
    columns = {f"metric_{number:02}": [1.0] * 4 for number in range(30)}
    (note,) = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns)).notes
    assert note.endswith("metric_18, metric_19 and 10 more")


def test_a_group_that_was_looked_at_but_not_used_is_named(tmp_path: Path):
    columns = {"probe_name": ["A"] * 4, "group": ["left", "left", "right", "right"]}
    recording = read(write_units_nwb(tmp_path / "a.nwb", TRAINS, columns=columns))
    assert [unit.probe for unit in recording.units] == ["A"] * 4
    assert recording.notes == ("a.nwb: columns of /units that were not read: group",)
