from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import DiskFull, HubError, StoreError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.publish.component import component_inputs
from neuralpile_dagster.records import ComponentRecord, CountsRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.schemas import PUBLISHED_SESSIONS_SCHEMA, PUBLISHED_UNITS_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.hub_folders import contents, silent
from neuralpile_dagster_tests.fixtures.sessions import (
    DATASET,
    KEYS,
    SMALL_SHARDS,
    counts_of,
    manifest_of,
    put_session,
    write,
)


def features(schema: pa.Schema) -> Any:
    import datasets

    return datasets.Features.from_arrow_schema(schema)


def test_load_dataset_gives_the_contracts_features_and_the_sessions_rows_in_order(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], load: Callable[..., Any]
):
    component = write(tmp_path / "mice", store, records, max_shard_bytes=SMALL_SHARDS)
    assert len(component.shards) > 1
    rows = load(tmp_path / "mice", split="train")
    assert rows.features == features(ROW_SCHEMA)
    assert str(rows.features["spike_counts"]) == "List(List(Value('uint8')))"
    ids = [(row["subject_id"], row["session_id"], row["segment_id"]) for row in rows]
    expected = [(records[key].subject_id, key, f"segment_{i}") for key in KEYS for i in range(3)]
    assert ids == expected
    for key in KEYS:
        pieces = [np.array(row["spike_counts"], np.uint8) for row in rows if row["session_id"] == key]
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), counts_of(key, 5, 100))


def test_streaming_gives_the_same_rows(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], load: Callable[..., Any]
):
    write(tmp_path / "mice", store, records, max_shard_bytes=SMALL_SHARDS)
    streamed = list(load(tmp_path / "mice", split="train", streaming=True))
    assert streamed == list(load(tmp_path / "mice", split="train"))


def test_units_sessions_and_preview_are_configs_of_their_own(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], load: Callable[..., Any]
):
    write(tmp_path / "mice", store, records)
    units = load(tmp_path / "mice", "units", split="train")
    assert units.features == features(PUBLISHED_UNITS_SCHEMA)
    assert [(u["session_id"], u["row"]) for u in units] == [(key, row) for key in KEYS for row in range(5)]
    sessions = load(tmp_path / "mice", "sessions", split="train")
    assert sessions.features == features(PUBLISHED_SESSIONS_SCHEMA)
    assert [(s["session_id"], s["tokens"], s["n_segments"]) for s in sessions] == [(key, 500, 3) for key in KEYS]
    assert sessions[0]["files"] == [{"path": "sub-1/s1.nwb", "file_id": "id-s1", "size": 9, "digest": "sha256:ab"}]
    preview = load(tmp_path / "mice", "preview", split="train")
    assert preview.features == features(ROW_SCHEMA)
    assert preview["session_id"][:] == list(KEYS)


def test_it_loads_through_the_local_hub_and_after_a_new_version(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], load: Callable[..., Any]
):
    hub = LocalHub(tmp_path / "hub", "local")
    folder = tmp_path / "staging" / "mice"
    write(folder, store, {"s1": records["s1"]}, missing={"s2": "x", "s3": "x"})
    hub.publish("mice", folder, silent)
    assert len(load(hub.path("mice"), split="train")) == 3
    write(folder, store, records)
    hub.publish("mice", folder, silent)
    assert len(load(hub.path("mice"), split="train")) == 9
    assert len(list(load(hub.path("mice"), split="train", streaming=True))) == 9


def test_the_record_says_what_is_in_the_files(tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]):
    component = write(tmp_path / "mice", store, records, max_shard_bytes=SMALL_SHARDS, missing={"s4": "broken"})
    for number, shard in enumerate(component.shards):
        path = tmp_path / "mice" / shard.path
        content = path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256 and len(content) == shard.bytes
        assert shard.path == f"data/train-{number:05d}-{shard.sha256[:8]}.parquet"
        footer = pq.read_metadata(path)
        assert (footer.num_rows, footer.num_row_groups) == (shard.rows, shard.rows)
        assert sum(footer.row_group(i).column(0).num_values for i in range(footer.num_row_groups)) == shard.tokens
    totals = component.totals
    assert (totals.sessions, totals.subjects, totals.units, totals.rows, totals.tokens) == (3, 2, 15, 9, 1_500)
    assert totals.spikes == sum(int(counts_of(key, 5, 100).sum(dtype=np.int64)) for key in KEYS)
    assert totals.minutes == pytest.approx(3 * 100 * 0.02 / 60)
    assert [session.key for session in component.sessions] == list(KEYS)
    assert component.missing == {"s4": "broken"}
    assert ComponentRecord.model_validate_json(component.model_dump_json()) == component


def test_the_same_inputs_give_the_same_bytes_whatever_was_there(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    first = write(tmp_path / "a", store, records, max_shard_bytes=SMALL_SHARDS)
    (tmp_path / "b" / "data").mkdir(parents=True)
    (tmp_path / "b" / "data" / "train-00009-deadbeef.parquet").write_bytes(b"stale")
    (tmp_path / "b" / "notes.txt").write_text("stale")
    write(tmp_path / "b", store, {"s2": records["s2"]}, max_shard_bytes=SMALL_SHARDS)
    second = write(tmp_path / "b", store, records, max_shard_bytes=SMALL_SHARDS)
    assert first == second
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_when_the_archive_was_listed_changes_nothing(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    today = manifest_of(*KEYS)
    said = {"source_state": "version 0.2", "newer_version": "version 0.3 is published", "replaced": today.sessions[:1]}
    later = today.model_copy(update={"listed_at": today.listed_at.replace(year=2030), **said})
    first = write(tmp_path / "a", store, records, manifest=today)
    assert write(tmp_path / "b", store, records, manifest=later) == first
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_inputs_change_with_anything_that_is_published_and_with_nothing_else(
    store: LocalStore, records: dict[str, CountsRecord]
):
    def inputs(**changes: Any) -> str:
        manifest = manifest_of(*KEYS, **changes.pop("manifest", {}))
        arguments = {"missing": {}, "repository": "local/mice", **changes}
        return component_inputs(
            arguments.pop("dataset", DATASET), manifest, arguments.pop("records", records), **arguments
        )

    same = {
        inputs(),
        inputs(manifest={"considered": 99, "dropped": {"no units": 96}}),
        inputs(dataset=DATASET.model_copy(update={"max_session_tokens": 10**12})),
    }
    assert len(same) == 1
    other = {
        inputs(missing={"s9": "broken"}),
        inputs(repository="lab/mice"),
        inputs(dataset=DATASET.model_copy(update={"title": "Other"})),
        inputs(manifest={"frozen": False}),
        inputs(manifest={"version": "0.2"}),
        inputs(records={key: records[key] for key in KEYS[:2]}),
        inputs(records={**records, "s1": put_session(store, "s1", n_bins=101)}),
    }
    assert len(other) == 7 and not same & other


def test_without_a_finished_session_there_is_nothing_to_publish(tmp_path: Path, store: LocalStore):
    with pytest.raises(HubError, match="mice has no finished session"):
        write(tmp_path / "mice", store, {})


def test_sessions_binned_differently_are_not_published_together(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    records["s2"] = put_session(store, "s2", bin_width_s=0.05)
    with pytest.raises(HubError, match="binned with different settings"):
        write(tmp_path / "mice", store, records)
    allowed = DATASET.model_copy(update={"allow_bin_width": True})
    component = write(tmp_path / "mice", store, records, dataset=allowed)
    assert (component.bin_width_s, component.other_bin_widths_s) == (0.02, (0.05,))
    card = (tmp_path / "mice" / "README.md").read_text()
    assert "1 of 3 sessions are in bins of 50 ms, as their files hold them, not of 20 ms." in card


def test_a_damaged_counts_file_is_named_and_nothing_is_published(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]
):
    write(tmp_path / "mice", store, {"s1": records["s1"]}, missing={"s2": "", "s3": ""})
    path = Path(store.uri(records["s2"].file.key))
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"s2\.parquet is damaged; found: sha256"):
        write(tmp_path / "mice", store, records)


def test_a_counts_file_that_is_gone_is_named(tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord]):
    store.delete(records["s3"].file.key)
    with pytest.raises(StoreError, match=r"s3\.parquet"):
        write(tmp_path / "mice", store, records)


def test_a_disk_that_is_too_small_is_noticed_before_shards_are_written(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("neuralpile_dagster.files.free_bytes", lambda path: 10)
    with pytest.raises(DiskFull, match="10 bytes available"):
        write(tmp_path / "mice", store, records)
    assert not (tmp_path / "mice" / "data").exists()
