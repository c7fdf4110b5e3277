"""Small synthetic sessions in a store, with the records that `build` would write for them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.publish.component import write_component
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import Citation, ComponentRecord, CountsRecord, CountsStats, FactsRecord, RowRecord
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.footer import read_footer
from neuralpile_dagster.tables.rows import RowWriter
from neuralpile_dagster.tables.schemas import UNITS_SCHEMA
from neuralpile_dagster_tests.hub.folders import silent

SEGMENT_BINS = 40
KEYS = ("s1", "s2", "s3")
SMALL_SHARDS = 3_000  # bytes: more than one session, less than all
DATASET = Dataset(
    name="mice", title="Mice that run", source=Source(id="990002", version="0.1"), species="mouse", doi="10.48324/mice"
)
CITATION = Citation(
    title="Mice that run",
    authors=("Doe, Jane", "Roe, Richard"),
    citation="Doe and Roe (2020), Mice that run.",
    license="spdx:CC-BY-4.0",
    url="https://dandiarchive.org/dandiset/990002",
)


def counts_of(name: str, n_units: int, n_bins: int) -> np.ndarray:
    """Counts of a session: the same for the same arguments; the first unit is silent, one bin is saturated."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    counts = np.random.default_rng(seed).poisson(0.3, (n_units, n_bins)).astype(np.uint8)
    counts[0] = 0
    counts[-1, -1] = 255
    return counts


def put_session(
    store: LocalStore, name: str, n_units: int = 5, n_bins: int = 100, subject: str = "sub-1", **changes: Any
) -> CountsRecord:
    """Write the counts and units of a session as `neuralpile_dagster.build` does; ``changes`` are to its stats."""
    counts = counts_of(name, n_units, n_bins)
    starts = range(0, n_bins, SEGMENT_BINS)

    def write_counts(path: Path) -> None:
        with RowWriter(path) as writer:
            for number, start in enumerate(starts):
                writer.write(counts[:, start : start + SEGMENT_BINS], subject, name, f"segment_{number}")

    def write_units(path: Path) -> None:
        pq.write_table(_units(counts, subject, name), path)

    file, _ = put_file(store, f"mice/spike_counts/{name}.parquet", write_counts)
    units_file, _ = put_file(store, f"mice/spike_counts/{name}.units.parquet", write_units)
    with store.open(file.key) as opened:
        sizes = read_footer(opened, file.key).group_bytes
    rows = [
        RowRecord(segment_id=f"segment_{i}", n_bins=min(SEGMENT_BINS, n_bins - start), bytes=size)
        for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]
    return CountsRecord(
        inputs="inputs",
        trains_inputs="trains",
        file=file,
        units_file=units_file,
        subject_id=subject,
        session_id=name,
        source_version="0.1",
        max_tokens=n_units * SEGMENT_BINS,
        facts=FactsRecord(subject="Alice", sex="F", species="Mus musculus"),
        stats=_stats(counts, **changes),
        rows=tuple(rows),
    )


def _units(counts: np.ndarray, subject: str, name: str) -> pa.Table:
    spikes = counts.sum(axis=1, dtype=np.int64)
    rows = [
        {"subject_id": subject, "session_id": name, "row": i, "unit_id": 10 + i, "file": f"{name}.nwb", "n_spikes": n}
        for i, n in enumerate(spikes.tolist())
    ]
    return pa.Table.from_pylist(rows, UNITS_SCHEMA)


def _stats(counts: np.ndarray, **changes: Any) -> CountsStats:
    kept = int(counts.sum(dtype=np.int64))
    values: dict[str, Any] = {
        "n_units": counts.shape[0],
        "n_bins": counts.shape[1],
        "bin_width_s": 0.02,
        "tokens": counts.size,
        "spikes_read": kept + 45,
        "spikes_kept": kept,
        "dropped_negative": 3,
        "lost_to_saturation": 42,
        "saturated_bins": 1,
        "silent_units": 1,
        "max_count": 255,
        "histogram": tuple(np.bincount(counts.ravel()).tolist()),
        "fingerprint": "f",
    }
    return CountsStats(**{**values, **changes})


def manifest_of(*keys: str, **changes: Any) -> Manifest:
    """A manifest with one session per key; ``changes`` are to its own fields."""
    sessions = tuple(
        Session(
            key=key,
            subject_id="sub-1",
            session_id=key,
            files=(ArchiveFile(path=f"sub-1/{key}.nwb", size=9, file_id=f"id-{key}", digests={"sha256": "ab"}),),
        )
        for key in keys
    )
    values: dict[str, Any] = {
        "dataset": "mice",
        "archive": "dandi",
        "source_id": "990002",
        "version": "0.1",
        "frozen": True,
        "listed_at": datetime(2024, 5, 17, tzinfo=UTC),
        "citation": CITATION,
        "considered": len(keys),
        "dropped": {},
        "sessions": sessions,
    }
    return Manifest(**{**values, **changes})


def write(folder: Path, store: LocalStore, records: dict[str, CountsRecord], **options: Any) -> ComponentRecord:
    """`write_component` with what most tests want."""
    options = {"missing": {}, "repository": "local/mice", "progress": silent, **options}
    manifest = options.pop("manifest", None) or manifest_of(*sorted({*KEYS, *records}))
    return write_component(folder, store, DATASET, manifest, records, **options)
