"""Annotations as they are published: joined to counts, units and sessions, and null where they are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from neuralpile_dagster.binning.clock import bins_of_times, observed_times
from neuralpile_dagster.catalog.unit_rules import parse_rule
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger.piles import annotations_digest
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.shards import build_shard
from neuralpile_dagster.merge.sources import source_from_component
from neuralpile_dagster.publish.annotations import AnnotatedSession, interval_rows
from neuralpile_dagster.publish.card_parts import cite_dataset
from neuralpile_dagster.publish.component import component_inputs, write_component
from neuralpile_dagster.publish.configs import STREAMED, hub_tables
from neuralpile_dagster.publish.pile import write_pile
from neuralpile_dagster.publish.pile_card import PileComponent
from neuralpile_dagster.recordings.nwb.annotations import IntervalTable, Metric
from neuralpile_dagster.recordings.nwb.table import Column
from neuralpile_dagster.records import ClockRecord, ComponentRecord, CountsRecord
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.annotations import AnnotationsRecord, write_intervals, write_metrics
from neuralpile_dagster.tables.schemas import STORED_INTERVALS_SCHEMA, UNITS_SCHEMA
from neuralpile_dagster_tests.fixtures.hub_folders import silent
from neuralpile_dagster_tests.fixtures.sessions import CITATION, DATASET, counts_of, manifest_of, put_session

RULES = {"low contamination": "isi_violations < 0.5 and presence_ratio > 0.9", "fast": "mean_rate_hz > 1e9"}
CLOCK = ClockRecord(start_s=0.0, first_spike_s=0.1, last_spike_s=1.9, observed_s=1.8)


def table(name: str, start: list[float], stop: list[float], **columns: list[str]) -> IntervalTable:
    found = {
        key: Column(np.array(values, object if isinstance(values[0], str) else None)) for key, values in columns.items()
    }
    return IntervalTable(name, np.array(start), np.array(stop), found)


def annotate(
    store: LocalStore, record: CountsRecord, *tables: IntervalTable, **metrics: list[Any]
) -> AnnotationsRecord:
    """Annotations of a session as `ledger.analyses` stores them; ``metrics`` by name, with ``__`` for a dot."""
    path = f"mice/annotations/{record.session_id}"
    found = [
        Metric(name.replace("__", "."), None, values)
        if any(isinstance(value, str) for value in values)
        else Metric(name.replace("__", "."), np.array(values, float))
        for name, values in metrics.items()
    ]
    file, rows = put_file(store, f"{path}.parquet", lambda path: write_intervals(path, tables))
    units_file, names = put_file(
        store, f"{path}.units.parquet", lambda path: write_metrics(path, [(0, metric) for metric in found])
    )
    return AnnotationsRecord(
        inputs="i",
        session_id=record.session_id,
        file=file,
        units_file=units_file,
        trains_inputs=record.trains_inputs,
        tables=rows,
        metrics=names,
    )


class Published:
    """A component of two sessions, of which the first is annotated."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.store = LocalStore(home / "store")
        self.folder = home / "mice"
        self.records = {key: put_session(self.store, key, clock=CLOCK) for key in ("s1", "s2")}
        self.annotations = {
            "s1": annotate(
                self.store,
                self.records["s1"],
                table("trials", [0.1, 0.5, 1.905], [0.3, np.nan, 2.5], choice=["left", "right", "left"]),
                table("invalid_times", [1.0, 5.0], [1.5, 6.0]),
                isi_violations=[0.1, 0.9, np.nan, 0.2, 0.3],
                presence_ratio=[0.99, 0.99, 0.99, 0.5, 0.95],
                label=["a", "", None, "d", "e"],
                electrodes__id=[3, 4, 5, np.nan, 7],
                electrodes__x=[1.0, 2.0, np.nan, np.nan, 5.0],
                electrodes__note=["peak", "peak", "peak", None, "peak"],
            )
        }
        self.dataset = DATASET.model_copy(update={"good_units": RULES, **changes})

    def write(self, **changes: Any) -> ComponentRecord:
        return write_component(
            self.folder,
            self.store,
            self.dataset,
            manifest_of("s1", "s2"),
            self.records,
            **{
                "missing": {},
                "repository": "local/mice",
                "progress": silent,
                "annotations": self.annotations,
                **changes,
            },
        )

    def rows(self, config: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.folder / config / f"{config}.parquet").to_pylist()
        return rows


@pytest.fixture
def published(tmp_path: Path) -> Published:
    made = Published(tmp_path)
    made.write()
    return made


def test_intervals_have_the_bins_that_they_span(published: Published) -> None:
    rows = published.rows("intervals")
    bins = [(r["table"], r["row"], r["start_bin"], r["stop_bin"], r["inside"]) for r in rows]
    assert bins == [
        ("trials", 0, 5, 15, True),
        ("trials", 1, 25, None, False),
        ("trials", 2, 95, 100, True),
        ("invalid_times", 0, 50, 75, True),
        ("invalid_times", 1, 100, 100, False),
    ]
    assert [json.loads(row["values"]) for row in rows[:3]] == [{"choice": c} for c in ("left", "right", "left")]
    assert {row["session_id"] for row in rows} == {"s1"}


def test_a_bin_is_that_of_a_spike_at_the_same_time() -> None:
    rng = np.random.default_rng(0)
    for width in (0.02, 0.1, 1 / 3, 0.005):
        edges = np.arange(1001) * width
        times = np.concatenate([rng.uniform(0, 1000 * width, 2_000), edges[:-1], np.nextafter(edges[1:], 0)])
        expected = np.searchsorted(edges, times, side="right") - 1
        np.testing.assert_array_equal(bins_of_times(times, width, 0.0), expected)
    assert bins_of_times(np.array([-0.001, 5.0, np.inf, -np.inf]), 0.02, 5.0)[:2].tolist() == [-251, 0]


def test_bins_are_null_where_counts_have_no_clock(tmp_path: Path) -> None:
    write_intervals(tmp_path / "i.parquet", [table("trials", [0.0], [1.0])])
    stored = pq.read_table(tmp_path / "i.parquet", schema=STORED_INTERVALS_SCHEMA)
    (row,) = interval_rows(stored, "s", None, 0.02, 100).to_pylist()
    assert (row["start_bin"], row["stop_bin"], row["inside"]) == (None, None, False)


def test_units_and_sessions_gain_columns_at_their_end_and_null_where_nothing_is_known(published: Published) -> None:
    units = published.rows("units")
    first, second = units[:5], units[5:]
    assert [u["x_um"] for u in first] == [1.0, 2.0, None, None, 5.0]
    assert [u["electrode"] for u in first] == [3, 4, 5, None, 7]
    assert [u["coordinate_note"] for u in first] == ["peak", "peak", "peak", None, "peak"]
    assert {(u["x_um"], u["electrode"], u["coordinate_note"], u["good"] and tuple(u["good"])) for u in second} == {
        (None,) * 4
    }
    assert [u["observed_s"] for u in first] == [pytest.approx(1.8 - 0.5)] * 5, "without the invalid half second"
    assert [u["observed_s"] for u in second] == [pytest.approx(1.8)] * 5
    stored = pq.read_table(published.store.root / published.records["s1"].units_file.key, schema=UNITS_SCHEMA)
    table = pq.read_table(published.folder / "units" / "units.parquet")
    assert table.schema.names[: len(UNITS_SCHEMA)] == UNITS_SCHEMA.names
    assert table.slice(0, 5).select(UNITS_SCHEMA.names).equals(stored)
    one, two = published.rows("sessions")
    assert (one["n_trials"], two["n_trials"]) == (3, None)
    assert (one["observed_s"], two["observed_s"]) == (pytest.approx(1.3), 1.8)
    kept = published.records["s1"].stats.spikes_kept
    assert one["mean_rate_hz"] == pytest.approx(kept / (5 * 1.3))
    assert (one["license"], one["doi"], one["origin_s"]) == ("spdx:CC-BY-4.0", DATASET.doi, 0.0)


def test_good_names_the_rules_that_hold_and_leaves_no_unit_out(published: Published) -> None:
    assert [unit["good"] for unit in published.rows("units")[:5]] == [
        ["low contamination"],
        [],
        [],  # what is not stated is not good
        [],
        ["low contamination"],
    ]


def test_metrics_are_in_long_form_by_row_of_the_counts(published: Published) -> None:
    rows = [(r["session_id"], r["row"], r["name"], r["value"], r["text"]) for r in published.rows("unit_metrics")]
    assert [row for row in rows if row[2] == "label"] == [
        ("s1", i, "label", None, text) for i, text in enumerate(["a", "", None, "d", "e"])
    ]
    assert [row[3] for row in rows if row[2] == "isi_violations"] == [0.1, 0.9, None, 0.2, 0.3]
    assert {row[2] for row in rows} == {"isi_violations", "presence_ratio", "label"}, "positions are columns of units"


def test_load_dataset_reads_intervals_and_metrics_where_the_first_session_has_none(tmp_path: Path) -> None:
    made = Published(tmp_path)
    made.annotations = {
        "s1": annotate(made.store, made.records["s1"], electrodes__x=[1.0, 2.0, 3.0, 4.0, 5.0]),
        "s2": annotate(made.store, made.records["s2"], table("trials", [0.1, 0.5], [0.3, 0.9]), label=["a"] * 5),
    }
    made.write()
    for config, expected in (("intervals", 2), ("unit_metrics", 5)):
        loaded = load_dataset(str(made.folder), config, split="train", streaming=True)
        assert [row["session_id"] for row in loaded] == ["s2"] * expected
        assert len(list(loaded.reshard())) == expected


def test_metrics_that_are_all_columns_of_units_make_no_config(tmp_path: Path) -> None:
    made = Published(tmp_path)
    made.annotations = {"s1": annotate(made.store, made.records["s1"], electrodes__x=[1.0, 2.0, 3.0, 4.0, 5.0])}
    made.write()
    assert [row["x_um"] for row in made.rows("units")] == [1.0, 2.0, 3.0, 4.0, 5.0, *[None] * 5]
    assert not (made.folder / "unit_metrics").exists()


def test_segments_say_where_each_row_lies(published: Published) -> None:
    segments = published.rows("segments")
    assert len(segments) == 6
    for segment in segments:
        assert_is_there(published.folder, segment)


def assert_is_there(folder: Path, segment: dict[str, Any]) -> None:
    """The row group that a segment names holds the counts of the bins that it names."""
    group = pq.ParquetFile(folder / segment["file"]).read_row_group(segment["row_group"])
    assert group["session_id"].to_pylist() == [segment["session_id"]]
    assert group["segment_id"].to_pylist() == [segment["segment_id"]]
    counts = np.array(group["spike_counts"][0].as_py(), np.uint8)
    whole = counts_of(segment["session_id"], 5, 100)
    np.testing.assert_array_equal(counts, whole[:, segment["start_bin"] : segment["stop_bin"]])
    assert (segment["n_units"], segment["tokens"]) == (5, counts.size)
    assert segment["start_s"] == pytest.approx(segment["start_bin"] * 0.02)


def test_the_pile_has_them_with_their_source_and_says_where_each_segment_lies(
    published: Published, tmp_path: Path
) -> None:
    record = published.write()
    hub = LocalHub(tmp_path / "hub", "local")
    hub.publish("mice", published.folder, silent)
    source = source_from_component("mice", record.sessions)
    plan = plan_pile([source], seed=1, test_size=0.3)
    shards = [
        build_shard(published.store, "pile", plan, shard.name, published.store.open) for shard in plan.record.shards
    ]
    component = PileComponent(
        "mice", 6, 2, record.totals.tokens, record, hub_tables(hub, "mice"), cite_dataset(DATASET, CITATION, "0.1")
    )
    alone = {config: repr([{**row, "source_dataset": "mice"} for row in published.rows(config)]) for config in STREAMED}
    published.folder = tmp_path / "pile"
    made = write_pile(
        published.folder,
        published.store,
        plan.record,
        shards,
        [component],
        repository="local/pile",
        annotations=annotations_digest({"mice": record}),
        progress=silent,
    )
    assert made.annotations
    assert {config: repr(published.rows(config)) for config in STREAMED} == alone
    segments = published.rows("segments")
    assert [s["split"] for s in segments].count("test") == 2
    for segment in segments:
        assert segment["file"].startswith(f"data/{segment['split']}-")
        assert_is_there(published.folder, segment)
    assert "| mice | 1 of 2 | 5 | 3 |" in (published.folder / "README.md").read_text("utf-8")


def test_the_card_counts_what_is_annotated_and_shows_the_rules(published: Published) -> None:
    card = (published.folder / "README.md").read_text("utf-8")
    assert "1 of 2 sessions are annotated: 1 have intervals, 1 have metrics of units." in card
    assert "| trials | 3 |" in card
    assert "`isi_violations < 0.5 and presence_ratio > 0.9`" in card
    published.annotations = {}
    published.write()
    card = (published.folder / "README.md").read_text("utf-8")
    assert "0 of 2 sessions are annotated" in card
    assert not (published.folder / "intervals").exists()


def test_annotations_of_other_files_than_were_counted_are_not_published(published: Published) -> None:
    other = published.annotations["s1"].model_copy(update={"trains_inputs": "of another version of the file"})
    assert published.write(annotations={"s1": other}).annotations is None


def test_neither_the_rows_nor_the_inputs_of_a_component_depend_on_annotations(published: Published) -> None:
    data = {path.name: path.stat().st_mtime_ns for path in (published.folder / "data").iterdir()}
    with_them, without = published.write(), published.write(annotations={})
    assert with_them.inputs == without.inputs
    assert with_them.annotations is not None
    assert {path.name: path.stat().st_mtime_ns for path in (published.folder / "data").iterdir()} == data
    manifest = manifest_of("s1", "s2")
    plain = component_inputs(DATASET, manifest, published.records, missing={}, repository="local/mice")
    assert plain == with_them.inputs, "nor on rules for good units"


def test_a_record_of_before_has_no_annotations_field(published: Published) -> None:
    assert "annotations" not in published.write(annotations={}).model_dump()


def test_time_observed_is_that_of_the_intervals_without_invalid_times() -> None:
    intervals = [[[0.0, 4.0], [3.0, 6.0]], [[8.0, 99.0]], None]
    invalid = np.array([[5.0, 9.0], [np.nan, 1.0]])
    per_unit, union = observed_times(intervals, CLOCK, 0.0, 10.0, [invalid] * 3)
    assert per_unit.tolist() == pytest.approx([5.0, 1.0, 1.8])
    assert union == pytest.approx(5.0 + 1.0)
    nothing = np.zeros((0, 2))
    per_unit, union = observed_times(intervals, None, 0.0, 10.0, [nothing] * 3)
    assert per_unit[:2].tolist() == [6.0, 2.0]
    assert np.isnan(per_unit[2]), "a record of before does not know its first and last spike"
    assert union is None
    per_unit, union = observed_times([None, None], CLOCK, 0.0, 10.0, [np.array([[0.0, 1.0]]), nothing])
    assert per_unit.tolist() == pytest.approx([0.9, 1.8])
    assert union == pytest.approx(1.8), "one of them was observed all the time"


def test_invalid_times_that_name_a_probe_are_those_of_its_units(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    record = put_session(store, "s1", clock=CLOCK)
    units = pq.read_table(tmp_path / record.units_file.key)
    probes = pa.array(["probeA", "probeA", "probeB", "probeB", None], pa.string())
    at = units.schema.names.index("probe")
    file, _ = put_file(
        store, record.units_file.key, lambda path: pq.write_table(units.set_column(at, "probe", probes), path)
    )
    invalid = table("invalid_times", [0.5, 1.5], [1.0, 1.6], probe=["probeB", "all of it"])
    record = record.model_copy(update={"units_file": file})
    found, facts = AnnotatedSession(store, DATASET, record, annotate(store, record, invalid)).units()
    assert found["observed_s"].to_pylist() == pytest.approx([1.7, 1.7, 1.2, 1.2, 1.7])
    assert facts.observed_s == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("snr > 2", [True, False, False]),
        ("not snr > 2", [False, True, True]),
        ("snr >= -1 and (label == 'good' or label == 'mua')", [True, False, False]),
        ('label != "good"', [False, True, False]),
        ("unknown < 1 or snr < 2", [False, True, False]),
    ],
)
def test_a_rule_compares_and_what_is_not_stated_fails_each_comparison(rule: str, expected: list[bool]) -> None:
    numbers = {"snr": np.array([3.0, 1.0, np.nan])}
    texts = {"label": np.array(["good", "noise", None], object)}
    assert parse_rule(rule).holds(numbers, texts, 3).tolist() == expected


@pytest.mark.parametrize(
    "rule",
    [
        *("", "snr", "snr > other", "1 < snr < 3", "f(snr) > 1", "snr > 1 + 1", "x.y > 1", "label > 'a'"),
        *("snr > True", "__import__('os')", "snr > (", "[snr > 1]", "snr > 1 " * 100),
    ],
)
def test_anything_but_comparisons_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r"rule|compar"):
        parse_rule(rule)
