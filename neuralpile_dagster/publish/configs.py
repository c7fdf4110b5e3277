"""The extra configs of a repository: what does not fit the rows' schema goes here, never into extra columns.

Written beside the rows, and read back from a hub, as a pile takes tables over from its components. Tables with a module
of their own are in `annotations`, `segments` and `token_counts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.publish.annotations import AnnotatedFacts
from neuralpile_dagster.publish.card_parts import Config, Split, row_arrow_bytes
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.records import CountsRecord, StoredFile
from neuralpile_dagster.store import Store, open_verified
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.rows import Row, RowReader, RowWriter
from neuralpile_dagster.tables.schemas import (
    ANNOTATED_UNITS_SCHEMA,
    CLOCKED_SESSIONS_SCHEMA,
    INTERVALS_SCHEMA,
    PUBLISHED_SESSIONS_SCHEMA,
    PUBLISHED_UNITS_SCHEMA,
    SESSIONS_SCHEMA,
    UNIT_METRICS_SCHEMA,
    UNITS_SCHEMA,
)

EXTRA_SCHEMAS: dict[str, tuple[pa.Schema, ...]] = {
    "units": (UNITS_SCHEMA, ANNOTATED_UNITS_SCHEMA, PUBLISHED_UNITS_SCHEMA),
    "sessions": (SESSIONS_SCHEMA, CLOCKED_SESSIONS_SCHEMA, PUBLISHED_SESSIONS_SCHEMA),
    "intervals": (INTERVALS_SCHEMA,),
    "unit_metrics": (UNIT_METRICS_SCHEMA,),
}
"""Schemas that the tables of a published repository may have, the newest last: newer ones only add columns."""
STREAMED = ("intervals", "unit_metrics")
"""Configs that are too large to be held, of all components at a time."""
SOURCE = pa.field("source_dataset", pa.string())
"""Last column of a pile's tables."""
MAX_ROWS = 8
"""Rows of a preview."""
MAX_BINS = 500
"""Bins of a preview's row, 10 s at 20 ms: a raster that fits a screen."""
MAX_TOKENS = 200_000
"""The Hub's viewer refuses rows above ~2 MB and sends them as JSON, two to four characters a token."""


def config_path(name: str) -> str:
    """Path of an extra config's only file in a repository."""
    return f"{name}/{name}.parquet"


def write_config(folder: Path, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> Config:
    """Write the tables, one row group each, as an extra config of one split; memory is that of one table.

    An empty table gets none: ``load_dataset`` cannot read a file whose first row group is empty, nor ``reshard`` any.
    """
    path = folder / config_path(name)
    rows = size = 0
    with (
        atomic_write(path) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd", write_page_index=True, write_page_checksum=True) as writer,
    ):
        for table in tables:
            if table.num_rows == 0:
                continue
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
            size += table.nbytes
    return Config(name, schema, {"train": Split(config_path(name), rows, size)}, path.stat().st_size)


def config_of_file(folder: Path, name: str, path: str) -> Config:
    """An extra config of one split whose file lies in ``folder`` already; it is read to measure it."""
    with open_parquet(folder / path, path) as parquet, damaged(path):
        rows = parquet.read(use_threads=False)
    every = Split(path, rows.num_rows, rows.nbytes)
    return Config(name, rows.schema, {"train": every}, (folder / path).stat().st_size)


def sessions_table(
    sessions: Sequence[tuple[Session, CountsRecord]],
    facts: Sequence[AnnotatedFacts],
    license: str | None,
    doi: str | None,
) -> pa.Table:
    """The ``sessions`` config: one row per session, in the order given; ``license`` and ``doi`` are of their source."""
    of_source = {"license": license, "doi": doi}
    rows = [_session_row(*pair, found) | of_source for pair, found in zip(sessions, facts, strict=True)]
    return pa.Table.from_pylist(rows, PUBLISHED_SESSIONS_SCHEMA)


def _session_row(session: Session, record: CountsRecord, found: AnnotatedFacts) -> dict[str, object]:
    stats, facts, observed = record.stats, record.facts, found.observed_s
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
        "origin_s": found.origin_s,
        "first_spike_s": stats.clock.first_spike_s if stats.clock else None,
        "observed_s": observed,
        "n_trials": found.n_trials,
        "areas": found.areas,
        "mean_rate_hz": stats.spikes_kept / (stats.n_units * observed) if observed else None,
    }


def _digest(file: ArchiveFile) -> str | None:
    """``algorithm:hex``, sha256 where the archive gives it."""
    names = sorted(file.digests, key=lambda name: (name != "sha256", name))
    return f"{names[0]}:{file.digests[names[0]]}" if names else None


def preview_bins(n_units: int, n_bins: int) -> int:
    """Number of bins of a segment in a preview row; at least one."""
    return min(n_bins, MAX_BINS, max(1, MAX_TOKENS // n_units))


def write_preview(folder: Path, rows: Iterable[Row], schema: pa.Schema) -> Config:
    """Write the first bins of each row; no more rows are taken than fit a preview, one at a time.

    ``schema`` is that of the repository: `ROW_SCHEMA` or `PILE_SCHEMA`.
    """
    path = folder / config_path("preview")
    size = written = 0
    with atomic_write(path) as aside, RowWriter(aside, schema) as writer:
        for row in islice(rows, MAX_ROWS):
            n_units, n_bins = row.counts.shape
            counts = row.counts[:, : preview_bins(n_units, n_bins)]
            writer.write(counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset)
            texts = [row.subject_id, row.session_id, row.segment_id, row.source_dataset]
            size += row_arrow_bytes(n_units, counts.shape[1], [text for text in texts if text is not None])
            written += 1
    return Config("preview", schema, {"train": Split(config_path("preview"), written, size)}, path.stat().st_size)


def read_preview(reader: RowReader, number: int) -> Row:
    """Read as many bins of a row as a preview shows; the others are not unpacked."""
    return reader.read_window(number, 0, preview_bins(*reader.shape(number)))


def first_rows(store: Store, files: Iterable[StoredFile]) -> Iterator[Row]:
    """The first row of each file, as far as a preview shows it."""
    for file in files:
        with open_verified(store, file) as opened, RowReader(opened, file.key) as reader:
            yield read_preview(reader, 0)


def open_published(hub: Hub, repository: str, path: str) -> pa.NativeFile:
    """Open a published file for random access; the caller closes it. Raises as `Hub.open` does."""
    return pa.PythonFile(hub.open(repository, path), "r")


def published_sessions(hub: Hub, repository: str) -> int:
    """Number of sessions of a component published on a hub; 0 when it is missing or lists no sessions."""
    path = config_path("sessions")
    if path not in {file.path for file in hub.files(repository)}:
        return 0
    with open_published(hub, repository, path) as file:
        return int(open_parquet(file, f"{repository}/{path}").metadata.num_rows)


def open_config(hub: Hub, repository: str, config: str) -> pq.ParquetFile | None:
    """Open the table of a published repository's extra config; None where it is missing. Raises `HubError`."""
    path = config_path(config)
    digests = {file.path: file.sha256 for file in hub.files(repository)}
    if path not in digests:
        return None
    with hub.open(repository, path) as file:
        content = file.read()  # some 200 bytes a unit
    if (found := hashlib.sha256(content).hexdigest()) != digests[path]:
        raise HubError(
            f"{path} of {repository} is damaged",
            found=f"sha256 {found}",
            expected=digests[path],
            remedy="materialize hub_dataset of that dataset again, then this",
        )
    return open_parquet(pa.BufferReader(content), f"{repository}/{path}")


def hub_tables(hub: Hub, repository: str) -> Callable[[str], Iterator[pa.Table]]:
    """Reader of a published repository's tables in `EXTRA_SCHEMAS`; yields nothing where one is missing.

    Those of a pile have a column ``source_dataset``. Tables in `STREAMED` are read one row group at a time; the others
    are small, and compared with their digest.
    """

    def tables(config: str) -> Iterator[pa.Table]:
        name = f"{repository}/{config_path(config)}"
        if config not in STREAMED:
            yield from _known_tables(open_config(hub, repository, config), config, name)
        elif config_path(config) in {file.path for file in hub.files(repository)}:
            with open_published(hub, repository, config_path(config)) as file:
                yield from _known_tables(open_parquet(file, name), config, name)

    return tables


def _known_tables(parquet: pq.ParquetFile | None, config: str, name: str) -> Iterator[pa.Table]:
    """Row groups of a table, if it has one of the schemas of its config."""
    known = EXTRA_SCHEMAS[config]
    if parquet and parquet.schema_arrow in (*known, *(schema.append(SOURCE) for schema in known)):
        with damaged(name):
            yield from (parquet.read_row_group(group) for group in range(parquet.num_row_groups))
