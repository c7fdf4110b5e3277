"""Intervals and what is stated of units: as pynwb reads them, without opening what is large."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pynwb import NWBHDF5IO

from neuralpile_dagster.errors import DamagedRecording, RecordingError
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.nwb.annotations import MAX_PER_ROW, MAX_TEXT_BYTES, open_annotations
from neuralpile_dagster.tables.annotations import write_intervals, write_metrics
from neuralpile_dagster_tests.fixtures.reading import TRAINS
from neuralpile_dagster_tests.servers.nwb_files import Electrodes, remove, rewrite, write_units_nwb

RECORDINGS = Path(os.environ.get("NEURALPILE_SHARED", "../shared"), "data", "recordings", "990001")
TRIALS: dict[str, Any] = {
    "start_time": [0.5, 2.0, np.nan],
    "stop_time": [1.5, 3.25, 4.0],
    "columns": {
        "contrast": [0.25, np.nan, 1.0],
        "choice": [-1, 1, 0],
        "correct": [True, False, True],
        "stimulus": ["gabor", "", "Größe 2"],
        "licks": [np.array([0.6, 0.7]), np.empty(0), np.array([3.5])],
        "waveform_mean": [np.zeros(2), np.ones(2), np.ones(2)],  # any matrix of a vector per row
    },
}
PLACES = Electrodes(
    ids=[100, 205, 310],
    locations=["VISp", "CA1", "LP"],
    group_names=["probeA", "probeA", "probeB"],
    positions=[(1.0, 2.0, 3.0), (4.0, 5.0, np.nan), (7.0, 8.0, 9.0)],
)


@dataclass
class Watched(LocalFile):
    """A local file that notes which datasets are read whole."""

    datasets: list[str] = field(default_factory=list)

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        self.datasets.append(dataset.name)
        return super().read(dataset)


@dataclass
class Read:
    """What was stored of some files."""

    intervals: pa.Table
    metrics: pa.Table
    notes: list[str]
    rows: dict[str, int]

    def table(self, name: str) -> pd.DataFrame:
        """One table of intervals as pynwb shows it."""
        rows = [row for row in self.intervals.to_pylist() if row["table"] == name]
        return pd.DataFrame(
            [
                {"start_time": row["start_time"], "stop_time": row["stop_time"], **json.loads(row["values"])}
                for row in rows
            ]
        )

    def metric(self, name: str, column: str = "value") -> list[Any]:
        return [row[column] for row in self.metrics.to_pylist() if row["name"] == name]


def annotate(tmp_path: Path, *files: LocalFile | Path) -> Read:
    opened: Sequence[LocalFile] = [
        file if isinstance(file, LocalFile) else LocalFile(file.name, file) for file in files
    ]
    with open_annotations(opened) as found:
        rows = write_intervals(tmp_path / "intervals.parquet", found.intervals())
        names = write_metrics(tmp_path / "units.parquet", found.unit_metrics())
    read = Read(
        pq.read_table(tmp_path / "intervals.parquet"), pq.read_table(tmp_path / "units.parquet"), found.notes, rows
    )
    assert names == tuple(sorted(set(read.metrics["name"].to_pylist())))
    return read


def write(path: Path, intervals: dict[str, dict[str, Any]] | None = None, **units: Any) -> Path:
    return write_units_nwb(path, TRAINS, intervals=intervals or {}, **units)


def same(ours: Any, theirs: Any) -> bool:
    """Whether a value of ours is pynwb's: arrays are lists in JSON, and NaN is null."""
    if isinstance(theirs, np.ndarray | list | tuple):
        return list(ours) == list(theirs)
    if isinstance(theirs, float | np.floating) and np.isnan(theirs):
        return ours is None or np.isnan(ours)
    return bool(ours == theirs)


def assert_as_pynwb(read: Read, path: Path) -> int:
    """Compare every column of ours with pynwb's; give the number of tables."""
    with NWBHDF5IO(path, "r", load_namespaces=True) as io:
        tables = io.read().intervals or {}
        for name, table in tables.items():
            ours, theirs = read.table(name), table.to_dataframe()
            assert len(ours) == len(theirs) == read.rows[name]
            for column in ours.columns:
                assert all(map(same, ours[column], theirs[column])), (name, column)
        return len(tables)


def test_intervals_are_those_that_pynwb_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", {"trials": TRIALS, "epochs": {"start_time": [0.0], "stop_time": [9.0]}})
    read = annotate(tmp_path, path)
    assert assert_as_pynwb(read, path) == 2
    assert set(read.table("trials").columns) == {"start_time", "stop_time", *TRIALS["columns"]} - {"waveform_mean"}
    assert read.intervals["values"][0].as_py() == (
        "{}" if read.intervals["table"][0].as_py() == "epochs" else "unexpected order"
    )
    assert read.notes == ["a.nwb: /intervals/trials/waveform_mean is not used: dtype float64, shape (3, 2)"]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings in {RECORDINGS}")
def test_intervals_and_units_of_real_recordings_are_those_that_pynwb_reads(tmp_path: Path) -> None:
    rows = {}
    for path in sorted(RECORDINGS.rglob("*ecephys.nwb")):
        read = annotate(tmp_path, path)
        assert assert_as_pynwb(read, path)
        with NWBHDF5IO(path, "r", load_namespaces=True) as io:
            units = io.read().units.to_dataframe(exclude={"spike_times"})
        assert read.metric("location", "text") == units["location"].tolist()
        assert read.metric("group") == units["group"].tolist()
        rows[path.parent.name] = read.rows
    assert rows["sub-A2929"]["epochs"] == 2
    assert rows["sub-A2929"]["sleep_ripples"] == 594
    assert rows["sub-A8604"] == {"epochs": 1}


def test_tables_of_processing_modules_are_read_with_the_modules_name(tmp_path: Path) -> None:
    laps = {"start_time": [1.0], "stop_time": [2.0], "module": "behavior"}
    read = annotate(tmp_path, write(tmp_path / "a.nwb", {"laps": laps}))
    assert read.rows == {"behavior/laps": 1}


def test_a_file_without_intervals_gives_an_empty_table(tmp_path: Path) -> None:
    read = annotate(tmp_path, write(tmp_path / "a.nwb"))
    assert (read.intervals.num_rows, read.rows) == (0, {})


def test_references_and_long_rows_are_named_and_not_read(tmp_path: Path) -> None:
    many = [np.arange(MAX_PER_ROW + 1.0), np.empty(0), np.empty(0)]
    columns = {"many": many, "kept": [*many[1:], many[0][:-1]]}
    path = write(tmp_path / "a.nwb", {"trials": {**TRIALS, "columns": columns}})
    with h5py.File(path, "r+") as file:
        trials = file["intervals/trials"]
        trials.create_dataset("unit", data=np.array([file["units"].ref] * 3, h5py.ref_dtype))
        region = trials.create_dataset("electrodes", data=np.arange(3))
        region.attrs["table"] = file["units"].ref
        trials.create_dataset("timeseries", data=np.zeros(3, [("idx_start", "i4"), ("count", "i4")]))
    watched = Watched("a.nwb", path)
    read = annotate(tmp_path, watched)
    assert list(read.table("trials").columns) == ["start_time", "stop_time", "kept"]
    said = {note.removeprefix("a.nwb: /intervals/trials/").partition(" is not used: ")[::2] for note in read.notes}
    assert said == {
        ("electrodes", "rows of another table"),
        ("many", "up to 65 values per row, more than 64"),
        ("timeseries", "dtype [('idx_start', '<i4'), ('count', '<i4')]"),
        ("unit", "references"),
    }
    assert not {"/intervals/trials/many", "/intervals/trials/unit", "/intervals/trials/timeseries"} & {
        *watched.datasets
    }


@pytest.mark.parametrize(("change", "said"), [("cut", "2 values in stop_time for 3 rows"), ("removed", "0 values")])
def test_a_table_without_its_times_is_damaged(tmp_path: Path, change: str, said: str) -> None:
    path = write(tmp_path / "a.nwb", {"trials": TRIALS})
    if change == "cut":
        rewrite(path, "intervals/trials/stop_time", np.zeros(2))
    else:
        remove(path, "intervals/trials/stop_time")
    with pytest.raises(DamagedRecording, match=said):
        annotate(tmp_path, path)


def test_text_that_is_too_long_is_refused_with_the_name_of_its_column(tmp_path: Path) -> None:
    columns = {"note": ["", "x" * (MAX_TEXT_BYTES + 1), ""]}
    path = write(tmp_path / "a.nwb", {"trials": {**TRIALS, "columns": columns}})
    with pytest.raises(RecordingError, match=r"/intervals/trials/note holds text that is too long; found: 1,001"):
        annotate(tmp_path, path)


def test_a_table_that_several_files_of_a_session_hold_is_read_once(tmp_path: Path) -> None:
    other = {**TRIALS, "start_time": [0.0, 1.0, 2.0]}
    files = [
        write(tmp_path / f"{name}.nwb", {"trials": trials}, columns={"snr": [value] * len(TRAINS)})
        for name, trials, value in (("a", TRIALS, 1.0), ("b", TRIALS, 2.0), ("c", other, 3.0))
    ]
    read = annotate(tmp_path, *files)
    assert read.rows == {"trials": 3, "trials (c.nwb)": 3}
    assert read.metrics["row"].to_pylist() == list(range(3 * len(TRAINS))), "units after units, as they are stacked"
    assert read.metric("snr") == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_what_is_stated_of_units_is_read_and_what_is_large_is_not(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.nwb",
        columns={
            "isi_violations": [0.1, np.nan, 0.3, 0.0],
            "cluster_id": [3, 5, 8, 2**60 + 1],
            "passes": [True, False, True, True],
            "quality": ["good", "", "mua", "noise"],
            "spike_amplitudes": [np.ones(len(train)) for train in TRAINS],
            "waveform_mean": [np.zeros((2, 3))] * 4,
        },
        obs_intervals=[np.array([[0, 5.0]])] * 4,
    )
    watched = Watched("a.nwb", path)
    read = annotate(tmp_path, watched)
    assert read.metric("isi_violations") == [0.1, None, 0.3, 0.0]
    assert read.metric("passes") == [1.0, 0.0, 1.0, 1.0]
    assert read.metric("quality", "text") == ["good", "", "mua", "noise"]
    assert read.metric("cluster_id", "text") == ["3", "5", "8", str(2**60 + 1)], "float64 cannot hold the last"
    assert {name for name in watched.datasets if "spike" in name or "waveform" in name} == set()
    assert [note.partition(" is not used: ")[2] for note in read.notes] == [
        "several values per row",
        "dtype float64, shape (4, 2, 3)",
    ]


def test_a_unit_lies_at_its_peak_electrode_else_at_its_first_else_only_its_channel_is_known(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.nwb",
        electrodes=PLACES,
        unit_electrodes=[[2], [0, 1], [1], []],
        columns={"peak_channel_id": [205, 999, 310, 998]},
    )
    read = annotate(tmp_path, path)
    assert read.metric("electrodes.id") == [205.0, 100.0, 310.0, None]
    assert read.metric("electrodes.x") == [4.0, 1.0, 7.0, None]
    assert read.metric("electrodes.z") == [None, 3.0, 9.0, None], "NaN is null"
    assert read.metric("electrodes.location", "text") == ["CA1", "VISp", "LP", None]
    notes = read.metric("electrodes.note", "text")
    assert [note and note.partition(";")[0] for note in notes] == [
        "units.peak_channel_id -> electrodes.id",
        "the first of units.electrodes",
        "units.peak_channel_id -> electrodes.id",
        None,
    ]
    read = annotate(tmp_path, write(tmp_path / "b.nwb", columns={"max_channel": [7, 8, 9, 10]}))
    assert read.metric("electrodes.id") == [7.0, 8.0, 9.0, 10.0]
    assert read.metric("electrodes.x") == []
