"""The extra configs of a repository: what does not fit the rows' schema goes here, never into extra columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.files import write_aside
from neuralpile_dagster.hub.metadata import Config, Split
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.records import CountsRecord, StoredFile
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.schemas import SESSIONS_SCHEMA
from neuralpile_dagster.tables.units import read_units


def config_path(name: str) -> str:
    """Where an extra config's only file lies in a repository."""
    return f"{name}/{name}.parquet"


def write_config(folder: Path, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> Config:
    """Write the tables, one row group each, as an extra config of one split; memory is that of one table."""
    path = folder / config_path(name)
    rows = size = 0
    with (
        write_aside(path) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd", write_page_index=True, write_page_checksum=True) as writer,
    ):
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
            size += table.nbytes
    return Config(name, schema, {"train": Split(config_path(name), rows, size)}, path.stat().st_size)


def units_tables(store: Store, files: Iterable[StoredFile]) -> Iterator[pa.Table]:
    """The units tables of sessions; raises `TableError` when one is damaged or has other columns."""
    for file in files:
        with store.open(file.key) as opened:
            yield read_units(opened, file.key)


def sessions_table(sessions: Sequence[tuple[Session, CountsRecord]]) -> pa.Table:
    """The ``sessions`` config: one row per session, in the order given."""
    return pa.Table.from_pylist([_session_row(*pair) for pair in sessions], SESSIONS_SCHEMA)


def _session_row(session: Session, record: CountsRecord) -> dict[str, object]:
    stats, facts = record.stats, record.facts
    return {
        "subject_id": record.subject_id,
        "session_id": record.session_id,
        "subject": facts.subject,
        "sex": facts.sex,
        "age": facts.age,
        "species": facts.species,
        "start_time": facts.start_time,
        "reference_time": facts.reference_time,
        "duration_s": stats.duration_s,
        "bin_width_s": stats.bin_width_s,
        "n_units": stats.n_units,
        "n_bins": stats.n_bins,
        "n_segments": len(record.rows),
        "n_spikes": stats.spikes_kept,
        "tokens": stats.tokens,
        "source_version": record.source_version,
        "files": [
            {"path": file.path, "file_id": file.file_id, "size": file.size, "digest": _digest(file)}
            for file in session.files
        ],
    }


def _digest(file: ArchiveFile) -> str | None:
    """``algorithm:hex``, sha256 where the archive gives it."""
    names = sorted(file.digests, key=lambda name: (name != "sha256", name))
    return f"{names[0]}:{file.digests[names[0]]}" if names else None
