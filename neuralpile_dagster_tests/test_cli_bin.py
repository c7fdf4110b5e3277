"""`neuralpile bin`: a recording of one's own in, rows out; the same numbers as numpy.histogram, and clear errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuralpile_dagster.session import build
from neuralpile_dagster.session.own_files import bin_files
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.house import Ran, cut, neuralpile
from neuralpile_dagster_tests.servers.nwb_files import (
    poisson_trains,
    remove,
    rewrite,
    write_nwb_without_units,
    write_units_nwb,
)

REAL = {
    "sub-A2929/sub-A2929_ses-200711_behavior+ecephys.nwb": (15, 59_999, 98_794),
    "sub-A8604/sub-A8604_ses-211122_behavior+ecephys.nwb": (3, 54_368, 21_354),
}


def matrix(path: Path) -> np.ndarray:
    """All counts of a file of rows, uint8, units x bins."""
    with RowReader(path) as reader:
        rows = [reader.row(number) for number in range(reader.n_rows)]
    assert [row.segment_id for row in rows] == [f"segment_{number}" for number in range(len(rows))]
    return np.concatenate([row.counts for row in rows], axis=1)


def reference(path: Path, bin_width_s: float = 0.02) -> np.ndarray:
    """The published procedure: numpy.histogram per unit, cast to uint8."""
    with h5py.File(path) as file:
        times = file["units/spike_times"][()].astype(np.float64)
        ends = file["units/spike_times_index"][()].astype(np.int64)
    edges = np.arange(0, times.max() + bin_width_s, bin_width_s)
    trains = np.split(times, ends[:-1])
    return np.stack([np.histogram(train, edges)[0] for train in trains]).astype(np.uint8)


@pytest.mark.parametrize("name", REAL)
def test_real_recordings_equal_numpy_histogram_bit_for_bit(shared_data: Path, tmp_path: Path, name: str) -> None:
    recording, out = shared_data / "recordings" / "990001" / name, tmp_path / "out.parquet"
    ran = neuralpile("bin", recording, "-o", out)
    units, bins, spikes = REAL[name]
    assert ran.code == 0
    assert f"{units:,} units x {bins:,} bins of 0.02 s = {units * bins:,} tokens" in ran.out
    assert f"{spikes:,} spikes kept" in ran.out
    counts = matrix(out)
    assert counts.shape == (units, bins)
    np.testing.assert_array_equal(counts, reference(recording))


def test_bin_width_and_segment_size_can_be_chosen(shared_data: Path, tmp_path: Path) -> None:
    recording, out = shared_data / "recordings" / "990001" / list(REAL)[1], tmp_path / "out.parquet"
    ran = neuralpile("bin", recording, "-o", out, "--bin-width", "0.005", "--max-tokens", "100000")
    assert ran.code == 0
    assert "in 7 rows" in ran.out
    np.testing.assert_array_equal(matrix(out), reference(recording, 0.005))


def test_a_long_session_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LOG_EVERY_S", 0.0)
    recording, said = write_units_nwb(tmp_path / "ses-1.nwb", poisson_trains(4, 20)), []
    bin_files([recording], tmp_path / "out.parquet", max_tokens=1000, progress=said.append)
    assert said == [f"{recording}: {number} of 4 segments" for number in range(4)]


def test_ids_come_from_the_path(tmp_path: Path) -> None:
    recording = write_units_nwb(tmp_path / "sub-7" / "sub-7_ses-9.nwb", poisson_trains(3, 5.0))
    assert neuralpile("bin", recording, "-o", tmp_path / "out.parquet").code == 0
    with RowReader(tmp_path / "out.parquet") as reader:
        row = reader.row(0)
    assert (row.subject_id, row.session_id, row.segment_id) == ("sub-7", "sub-7_ses-9", "segment_0")


def test_several_files_are_stacked_units_after_units(tmp_path: Path) -> None:
    trains = [np.array([0.01, 0.5]), np.array([0.1, 1.9])]
    files = [write_units_nwb(tmp_path / f"probe{n}.nwb", [train]) for n, train in enumerate(trains)]
    assert neuralpile("bin", *files, "-o", tmp_path / "out.parquet").code == 0
    counts = matrix(tmp_path / "out.parquet")
    assert counts.sum(axis=1).tolist() == [2, 2]
    assert np.flatnonzero(counts[1])[-1] >= np.flatnonzero(counts[0])[-1]


def test_an_output_in_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    recording = write_units_nwb(tmp_path / "a.nwb", poisson_trains(3, 5.0))
    assert neuralpile("bin", recording, "-o", tmp_path / "new" / "folder" / "out.parquet").code == 0
    assert matrix(tmp_path / "new" / "folder" / "out.parquet").shape[0] == 3


def damaged(folder: Path, kind: str) -> Path:
    """A recording that cannot be binned."""
    path = folder / "sub-1" / "bad.nwb"
    path.parent.mkdir()
    trains = {
        "no spikes": [np.array([])] * 2,
        "before zero": [np.array([-2.0, -1.0])],
        "infinite": [np.array([np.inf])],
    }
    if kind == "no units":
        return write_nwb_without_units(path)
    if kind == "missing":
        return path
    if kind == "a folder":
        path.mkdir()
        return path
    if kind == "empty file":
        path.touch()
        return path
    if kind == "text":
        path.write_text("these are no spikes\n" * 99)
        return path
    write_units_nwb(path, trains.get(kind, poisson_trains(4, 8.0)), index_dtype="int64")
    if kind == "truncated":
        cut(path)
    elif kind == "index falls":
        rewrite(path, "units/spike_times_index", np.array([9, 4, 20, 20]))
    elif kind == "index too long":
        rewrite(path, "units/spike_times_index", np.array([1, 2, 3, 10**6]))
    elif kind == "no times":
        remove(path, "units/spike_times")
    elif kind == "no index":
        remove(path, "units/spike_times_index")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such file"),
        ("a folder", "a folder"),
        ("empty file", "cannot be opened as HDF5; found: 0 bytes"),
        ("text", "cannot be opened as HDF5; found: 1,980 bytes"),
        ("truncated", "truncated"),
        ("index falls", "the index is not monotone: 9 is followed by 4"),
        ("index too long", "the index ends at 1,000,000"),
        ("no times", "has units without spike times"),
        ("no index", "the column spike_times_index is missing"),
        ("no units", "has no units table"),
        ("no spikes", "has nothing to bin; found: no spikes"),
        ("before zero", "found: spikes from -2.0 s to -1.0 s; expected: a spike later than 0 s"),
        ("infinite", "some spike times are infinite or NaN; found: 1 infinite"),
    ],
)
def test_bad_input_is_one_paragraph_that_names_the_file_and_leaves_nothing(
    tmp_path: Path, kind: str, said: str
) -> None:
    path = damaged(tmp_path, kind)
    refused(neuralpile("bin", path, "-o", tmp_path / "out.parquet"), str(path), said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sub-1"]


def test_a_mat_file_without_spks_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"behaviour": np.arange(3), "trials": np.arange(2)})
    ran = neuralpile("bin", tmp_path / "other.mat", "-o", tmp_path / "o.parquet", "--reader", "eight_probe_mat")
    refused(ran, "other.mat", "found: variables behaviour, trials; expected: a variable spks")


def test_a_truncated_mat_file_is_refused(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "cut.mat", {"spks": np.arange(30_000)})
    cut(tmp_path / "cut.mat")
    ran = neuralpile("bin", tmp_path / "cut.mat", "-o", tmp_path / "o.parquet", "--reader", "eight_probe_mat")
    refused(ran, "cut.mat", "cannot be read as a MATLAB file")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.nwb", "-o", "a.nwb"), "found: the suffix .nwb; expected: a name that ends in .parquet"),
        (("a.nwb", "-o", "rows.csv"), "found: the suffix .csv; expected: a name that ends in .parquet"),
        (("a.nwb", "-o", "rows"), "found: no suffix; expected: a name that ends in .parquet"),
        (("a.nwb", "-o", "folder"), "found: a folder"),
        (("a.nwb", "-o", "a.nwb/out.parquet"), "is a file"),
        (("a.nwb", "a.nwb", "-o", "out.parquet"), "named twice"),
        (("a.nwb", "-o", "out.parquet", "--bin-width", "0"), "bins of 0.0 s"),
        (("a.nwb", "-o", "out.parquet", "--bin-width", "nan"), "bins of nan s"),
        (("a.nwb", "-o", "out.parquet", "--max-tokens", "0"), "at most 0 tokens"),
        (("a.nwb", "-o", "out.parquet", "--reader", "firing_rates"), "a.nwb has no binned series"),
        (("a.nwb", "-o", "out.parquet", "--reader", "eight_probe_mat"), "a.nwb cannot be read as a MATLAB file"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_and_the_recording_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = write_units_nwb(tmp_path / "a.nwb", poisson_trains(3, 5.0)).read_bytes()
    (tmp_path / "folder").mkdir()
    refused(neuralpile("bin", *arguments), "", said)
    assert (tmp_path / "a.nwb").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nwb", "folder"]


def test_a_recording_given_to_raster_is_not_said_to_be_deleted(tmp_path: Path) -> None:
    recording = write_units_nwb(tmp_path / "a.nwb", poisson_trains(3, 5.0))
    ran = neuralpile("raster", recording, "-o", tmp_path / "out.png", NEURALPILE_HOME=tmp_path / "home")
    refused(ran, "a.nwb", f"neuralpile bin {recording}")
    assert "delete" not in ran.err


def refused(ran: Ran, named: str, said: str) -> None:
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert line.startswith("Error: ")
    assert named in line
    assert said in line
    assert ran.out == ""


def test_a_zarr_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nwb.zarr").mkdir()
    ran = neuralpile("bin", tmp_path / "a.nwb.zarr", "-o", tmp_path / "out.parquet")
    assert ran.code == 1
    assert "a.nwb.zarr is a Zarr folder" in ran.err and "hdmf-zarr" in ran.err


def test_columns_that_were_not_read_are_named_on_standard_error(tmp_path: Path) -> None:
    path = write_units_nwb(tmp_path / "a.nwb", poisson_trains(3, 5), columns={"mood": ["calm"] * 3})
    ran = neuralpile("bin", path, "-o", tmp_path / "out.parquet")
    assert (ran.code, ran.err) == (0, f"{path}: columns of /units that were not read: mood\n")


MOUSE, RAT = {"subject_id": "m01"}, {"subject_id": "r02"}
LATER = {"start_time": datetime(2020, 1, 2, 12, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (MOUSE, RAT, "subject m01, start 2020-01-01T12:00:00+00:00; "),
        (MOUSE, MOUSE | {"file_fields": LATER}, "start 2020-01-02T12:00:00+00:00"),
    ],
    ids=["two animals", "two days"],
)
def test_recordings_of_two_sessions_are_stacked_only_when_asked(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    first = write_units_nwb(tmp_path / "one.nwb", poisson_trains(3, 5), **one)
    second = write_units_nwb(tmp_path / "other.nwb", poisson_trains(2, 5), **other)
    out = tmp_path / "out.parquet"
    ran = neuralpile("bin", first, second, "-o", out)
    assert ran.code == 1 and not out.exists()
    assert f"{first} and {second} do not say that they are one session" in ran.err
    assert said in ran.err and "--stack" in ran.err
    assert neuralpile("bin", first, second, "-o", out, "--stack").code == 0
    assert len(matrix(out)) == 5


def test_probes_of_one_session_are_stacked_whatever_time_zone_they_state(tmp_path: Path) -> None:
    start = datetime(2020, 1, 1, 12, tzinfo=UTC)
    fields = [{"start_time": start}, {"start_time": start.astimezone(timezone(timedelta(hours=9)))}]
    files = [
        write_units_nwb(tmp_path / f"{number}.nwb", poisson_trains(2, 5), **MOUSE, file_fields=given)
        for number, given in enumerate(fields)
    ]
    assert neuralpile("bin", *files, "-o", tmp_path / "out.parquet").code == 0


def test_files_without_a_start_time_do_not_say_that_they_are_one_session(tmp_path: Path) -> None:
    files = [write_units_nwb(tmp_path / f"{number}.nwb", poisson_trains(2, 5)) for number in range(2)]
    for file in files:
        remove(file, "session_start_time")
    ran = neuralpile("bin", *files, "-o", tmp_path / "out.parquet")
    assert ran.code == 1 and "start not stated" in ran.err


def test_the_subject_of_a_nested_bids_folder_is_its_sub_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "ses-A" / "ecephys"
    folder.mkdir(parents=True)
    out = tmp_path / "out.parquet"
    assert neuralpile("bin", write_units_nwb(folder / "x.nwb", poisson_trains(2, 5)), "-o", out).code == 0
    with RowReader(out) as reader:
        assert reader.row(0).subject_id == "sub-01"
