"""Shards of a pile: where rows are cut into shards, and one shard written, independently of all others.

Copying rows belongs in `tables.copying`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.files import atomic_write, require_free
from neuralpile_dagster.merge.model import PilePlan, PileShard, PlanRecord
from neuralpile_dagster.store import Store, is_intact, put_file, read_record, write_record
from neuralpile_dagster.tables.copying.copy import CopyReport, FileOpener, copy_rows
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

SHARD_BYTES = 500_000_000
MAX_SHARD_ROWS = 10_000
"""Bounds memory: writing or reading a file takes ~5 kB of metadata per row group. Real shards have ~500."""
ROW_OVERHEAD = 10_240
"""Bytes allowed for what a row adds to its encoded size: gaps (8.3 kB), ``source_dataset``, footer, index (~0.9 kB)."""
FILE_OVERHEAD = 16_384
"""Bytes allowed for what a file adds: schema and Arrow schema (~2 kB)."""
_CHECKED_AT_ONCE = 1_000  # rows
_BLOCK = 1 << 22

DigestOf = Callable[[str], str]
"""Gives the sha256 (hex) that a source file has now, by its name."""


def write_shard(
    plan: PilePlan, shard_name: str, open_file: FileOpener, path: Path, digest_of: DigestOf | None = None
) -> CopyReport:
    """Write a shard to ``path``, which appears complete or not at all.

    Its bytes depend on the plan and the contents of its sources only, not on
    where the same rows are read from.

    Parameters
    ----------
    plan : PilePlan
    shard_name : str
    open_file : callable
        Opens a source file for random access, by its name.
    path : Path
    digest_of : callable, optional
        Tells what a source file is now, where that costs less than reading all of it (a shard takes a few rows of
        each). By default every file is read and hashed before its first row is copied.

    Raises
    ------
    MergeError
        The plan has no such shard, or a source has changed since the plan was made.
    TableError
        A source is damaged; names the file.
    DiskFull
        There is not enough free space, before anything is written.
    """
    shard = plan.record.shard(shard_name)
    require_free(path.parent, shard.bytes, f"the shard {shard_name}")
    open_unchanged = opener_of_unchanged(plan.record, open_file, digest_of)

    with atomic_write(path) as aside:
        report = copy_rows(plan.refs(shard_name), open_unchanged, aside, PILE_SCHEMA)
        _require_match_plan(aside, plan.shard_rows(shard_name))
    return report


def opener_of_unchanged(plan: PlanRecord, open_file: FileOpener, digest_of: DigestOf | None = None) -> FileOpener:
    """Opener of a plan's source files that raises `MergeError` for one that is not as planned; see `write_shard`."""
    planned = {file.name: file for file in plan.files}
    compared: set[str] = set()

    def open_unchanged(name: str) -> pa.NativeFile:
        file = open_file(name)
        try:
            if file.size() != planned[name].size:
                raise _changed(name, f"{file.size():,} bytes", f"{planned[name].size:,} bytes")
            if name not in compared:
                found = digest_of(name) if digest_of else _sha256(file)
                if found != planned[name].sha256:
                    raise _changed(name, f"sha256 {found}", f"sha256 {planned[name].sha256}")
                compared.add(name)
        except BaseException:
            file.close()
            raise
        return file

    return open_unchanged


def _sha256(file: pa.NativeFile) -> str:
    digest, position, size = hashlib.sha256(), 0, file.size()
    while position < size:
        block = file.read_at(min(_BLOCK, size - position), position)
        if not block:
            break
        digest.update(block)
        position += len(block)
    return digest.hexdigest()


def build_shard(
    store: Store,
    folder: str,
    plan: PilePlan,
    shard_name: str,
    open_file: FileOpener,
    digest_of: DigestOf | None = None,
) -> PileShard:
    """Write a shard to ``<folder>/<shard>.parquet`` of the store, and its record beside it, unless they are there."""
    shard = plan.record.shard(shard_name)
    present = read_record(store, f"{folder}/{shard_name}.json", PileShard)
    if present is not None and present.inputs == plan.record.digest and is_intact(store, present.file):
        return present
    file, report = put_file(
        store, f"{folder}/{shard_name}.parquet", lambda path: write_shard(plan, shard_name, open_file, path, digest_of)
    )
    record = PileShard(
        inputs=plan.record.digest,
        name=shard_name,
        split=shard.split,
        file=file,
        rows=report.rows,
        tokens=shard.tokens,
        decoded=report.reasons,
    )
    write_record(store, f"{folder}/{shard_name}.json", record)
    return record


def _require_match_plan(path: Path, planned: pa.Table) -> None:
    """Compare every row's ids and tokens with the plan: a source may have changed since."""
    ids = ["subject_id", "session_id", "source_dataset"]
    with open_parquet(path, str(path)) as parquet, damaged(str(path)):
        for start in range(0, planned.num_rows, _CHECKED_AT_ONCE):
            expected = planned.slice(start, _CHECKED_AT_ONCE)
            rows = range(start, start + expected.num_rows)
            found = parquet.read_row_groups(rows, columns=ids, use_threads=False)
            tokens = [parquet.metadata.row_group(row).column(0).num_values for row in rows]
            _require_equal(found.append_column("tokens", pa.array(tokens, pa.int64())), expected)


def _require_equal(found: pa.Table, planned: pa.Table) -> None:
    expected = planned.select(found.schema.names).cast(found.schema)
    if found.equals(expected):
        return
    pairs = zip(found.to_pylist(), expected.to_pylist(), strict=True)
    row, one, other = next((row, one, other) for row, (one, other) in enumerate(pairs) if one != other)
    raise _changed(planned["file"][row].as_py(), f"in row {planned['row'][row]}: {one}", str(other))


def _changed(name: str, found: str, expected: str) -> MergeError:
    return MergeError(
        f"{name} has changed since the pile was planned",
        found=found,
        expected=expected,
        remedy="materialize the pile's manifest again, then the shards that it names",
    )


def cut(row_bytes: np.ndarray, limit: int, overhead: int, max_rows: int) -> list[tuple[int, int]]:
    """Cut rows, in order, into runs as long as ``limit`` bytes and ``max_rows`` allow.

    Parameters
    ----------
    row_bytes : numpy.ndarray, integer, shape (n_rows,)
        Bytes of each encoded row.
    limit : int
        Bytes of a run; a row that is larger is a run of its own.
    overhead : int
        Bytes added to every row.
    max_rows : int
        Rows of a run.

    Returns
    -------
    list of (start, stop)
        Together they cover all rows.
    """
    ends = np.cumsum(np.asarray(row_bytes, dtype=np.int64) + overhead)
    cuts = []
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        stop = min(stop, start + max_rows)
        cuts.append((start, stop))
        start = stop
    return cuts


def count_shards(row_bytes: np.ndarray, limit: int, overhead: int, max_rows: int, at_least: int = 1) -> int:
    """Number of shards of a split whose rows are placed by hash: the power of two that keeps their mean in the limits.

    ``row_bytes`` are integers, shape (n_rows,); others as in `cut`. ``at_least`` is what is published: while it is
    enough, it stays, so that no row moves.
    """
    size = int(np.asarray(row_bytes, dtype=np.int64).sum()) + overhead * len(row_bytes)
    needed = max(-(-size // limit), -(-len(row_bytes) // max_rows), 1)
    return max(1 << (needed - 1).bit_length(), at_least)


def cut_by_hash(row_hash: np.ndarray, n_shards: int) -> list[tuple[int, int, int]]:
    """Cut rows at fixed hashes, so that a row's shard does not depend on other rows.

    Parameters
    ----------
    row_hash : numpy.ndarray, float64, shape (n_rows,)
        Ascending, from 0 to below 1.
    n_shards : int
        Row r is in shard ``floor(row_hash[r] * n_shards)``.

    Returns
    -------
    list of (number, start, stop)
        Of the shards that have rows.
    """
    numbers = np.floor(row_hash * n_shards).astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    stops = [*starts[1:].tolist(), len(numbers)]
    return [(int(numbers[start]), start, stop) for start, stop in zip(starts.tolist(), stops, strict=True)]
