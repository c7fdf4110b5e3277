"""Small synthetic components in a store, for tests of the merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralpile_dagster.merge.sources import PileSource, source_from_records
from neuralpile_dagster.records import CountsRecord, CountsStats, FactsRecord, RowRecord
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.footer import read_footer
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster_tests.tables.row_files import synthetic_rows, write_rows


def store_session(store: LocalStore, key: str, rows: Sequence[Row]) -> CountsRecord:
    """Store one session's counts and give its record; its stats are only as right as a merge needs."""
    file, path = put_file(store, f"{key}.parquet", lambda path: write_rows(path, rows))
    with store.open(file.key) as opened:
        row_bytes = read_footer(opened, str(path)).group_bytes
    n_units = rows[0].counts.shape[0]
    tokens = sum(row.counts.size for row in rows)
    stats = CountsStats(
        n_units=n_units,
        n_bins=tokens // n_units,
        bin_width_s=0.02,
        tokens=tokens,
        spikes_read=0,
        spikes_kept=0,
        silent_units=0,
        max_count=0,
        histogram=(),
        fingerprint=key,
    )
    return CountsRecord(
        inputs=key,
        trains_inputs=key,
        file=file,
        units_file=file,
        subject_id=rows[0].subject_id,
        session_id=rows[0].session_id,
        source_version="synthetic",
        max_tokens=300,
        facts=FactsRecord(),
        stats=stats,
        rows=tuple(
            RowRecord(segment_id=row.segment_id, n_bins=row.counts.shape[1], bytes=size)
            for row, size in zip(rows, row_bytes, strict=True)
        ),
    )


def store_component(store: LocalStore, name: str, lengths: Sequence[int]) -> list[CountsRecord]:
    """A component of sessions with so many rows each."""
    records = []
    for number, length in enumerate(lengths):
        rows = synthetic_rows(length, seed=hash_of(name, number), session=f"ses-{number}", subject=f"sub-{number % 2}")
        records.append(store_session(store, f"{name}/spike_counts/ses-{number}", rows))
    return records


def hash_of(name: str, number: int) -> int:
    """A seed for every session, the same in every process."""
    return sum(map(ord, name)) * 1_000 + number


def three_components(store: LocalStore) -> list[PileSource]:
    """Three components of several sessions; session ids repeat between components."""
    lengths = {"sample-a": [3, 1, 7], "sample-b": [2, 2, 5, 4, 1], "sample-c": [9]}
    return [source_from_records(name, store_component(store, name, some)) for name, some in lengths.items()]


def stored(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")
