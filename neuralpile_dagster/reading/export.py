"""Write a pile's rows into one file to map into memory, for jobs that have a loader of their own.

A folder that is exported to holds ``counts.u8`` (all rows, one after the other), ``index.parquet`` (one line per
row: where it begins, what it is) and, written last, ``meta.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.files import atomic_write, explained, locked, require_free, write_bytes
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.reading.pile import Pile
from neuralpile_dagster.reading.selection import select
from neuralpile_dagster.tables.arrow_rows import shared_array

FORMAT = 1
COUNTS, INDEX, META = "counts.u8", "index.parquet", "meta.json"
_PARTIAL, _DONE = "counts.u8.partial", "export.json"
_SYNC_BYTES = 1 << 30
"""Bytes after which what is written is flushed to the disk, and counted as done."""
_BLOCK_BINS = 4_096

Layout = Literal["time-major", "unit-major"]


def export_pile(
    pile: Pile,
    folder: Path,
    layout: Layout,
    *,
    split: str | None = None,
    exclude: Sequence[str] = (),
    max_rows: int | None = None,
    seed: int = 0,
    progress: Progress = print,
) -> dict[str, Any]:
    """Write rows as uint8; call it again after an interruption to resume. Memory is that of one row.

    Parameters
    ----------
    pile : Pile
    folder : Path
        Made if it is missing.
    layout : {"time-major", "unit-major"}
        Of each row: bins x units, or units x bins as in the pile; the last dimension is contiguous.
    split : str, optional
        All when not given.
    exclude : sequence of str
        Datasets and sessions to leave out; see `windows.Windows`.
    max_rows : int, optional
        Take so many rows at random, by ``seed``; they stay in the order of the pile.
    seed : int
    progress : callable

    Returns
    -------
    dict
        What ``meta.json`` says: source, revision, layout, dtype, rows, tokens, bytes, arguments.

    Raises
    ------
    ConfigurationError
        An argument names nothing in the pile, or the folder holds another export.
    DiskFull
        Raised before writing.
    """
    rows = _rows(pile, split, exclude, max_rows, seed)
    table = pile.segments.take(shared_array(rows))
    sizes = table["tokens"].to_numpy()
    offsets = np.cumsum(sizes) - sizes
    index = table.append_column("offset", [shared_array(offsets)])
    arguments = {"split": split, "exclude": list(exclude), "max_rows": max_rows, "seed": seed}
    digest = _digest(index, layout)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "source": pile.place,
        "revision": pile.revision,
        "layout": layout,
        "dtype": "uint8",
        "shape_of_a_row": ["n_bins", "n_units"] if layout == "time-major" else ["n_units", "n_bins"],
        "rows": len(rows),
        "tokens": int(sizes.sum()),
        **arguments,
        "digest": digest,
    }
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", progress, f"{folder} is being written by another process"):
        if _is_done(folder, meta):
            progress(f"{folder} is up to date")
            return meta
        done = _done(folder, digest)
        written = int(offsets[done]) if done < len(rows) else int(sizes.sum())
        require_free(folder, int(sizes.sum()) - written, f"an export of {len(rows):,} rows")
        if done:
            progress(f"resuming after {done:,} of {plural(len(rows), 'row')}")
        with explained(folder / _PARTIAL), (folder / _PARTIAL).open("r+b" if done else "w+b") as file:
            file.truncate(written)
            file.seek(written)
            _write(pile, rows, done, file, folder, meta, progress)
        (folder / _PARTIAL).replace(folder / COUNTS)
        with atomic_write(folder / INDEX) as aside:
            pq.write_table(index, aside, compression="zstd")
        write_bytes(folder / META, (json.dumps(meta, indent=1) + "\n").encode())
        (folder / _DONE).unlink(missing_ok=True)
    return meta


def _write(
    pile: Pile, rows: np.ndarray, done: int, file: BinaryIO, folder: Path, meta: dict[str, Any], progress: Progress
) -> None:
    unsynced = 0
    for number, row in enumerate(rows[done:].tolist(), done + 1):
        for block in _blocks(pile, row, meta["layout"]):
            unsynced += file.write(np.ascontiguousarray(block).data)
        if unsynced >= _SYNC_BYTES or number == len(rows):
            file.flush()
            os.fsync(file.fileno())
            write_bytes(folder / _DONE, json.dumps({"digest": meta["digest"], "rows": number}).encode())
            progress(f"{number:,} of {plural(len(rows), 'row')}, {file.tell():,} bytes")
            unsynced = 0


def _blocks(pile: Pile, row: int, layout: Layout) -> Iterator[np.ndarray]:
    if layout == "unit-major":
        yield pile.counts(row)
        return
    n_bins = pile.segments["n_bins"][row].as_py()
    for start in range(0, n_bins, _BLOCK_BINS):
        yield pile.window(row, start, min(_BLOCK_BINS, n_bins - start)).T


def _rows(pile: Pile, split: str | None, exclude: Sequence[str], max_rows: int | None, seed: int) -> np.ndarray:
    rows, _ = select(pile, split, None, None, exclude, (), held_out=False)
    if max_rows is not None and max_rows < len(rows):
        random = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(rows))
        rows = rows[np.sort(np.argsort(random, kind="stable")[:max_rows])]
    if not len(rows):
        raise ConfigurationError(f"no row of {pile.place} is chosen", remedy="exclude less, or take another split")
    return rows


def _digest(index: pa.Table, layout: Layout) -> str:
    """Of everything that the bytes depend on; the place of a pile may change, its files' names hold their digests."""
    columns = ("file", "row_group", "n_units", "n_bins", "bytes", "offset")
    content = repr((FORMAT, layout, *(index[name].to_pylist() for name in columns)))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _is_done(folder: Path, meta: dict[str, Any]) -> bool:
    path = folder / META
    if not path.exists():
        return False
    found = json.loads(path.read_text())
    if found.get("digest") != meta["digest"]:
        raise ConfigurationError(
            f"{folder} holds another export",
            found=f"{found.get('rows')} rows of {found.get('source')}, {found.get('layout')}",
            remedy="delete it, or give another folder",
        )
    return True


def _done(folder: Path, digest: str) -> int:
    """Rows of an interrupted export of the same that are on the disk; 0 when there are none."""
    try:
        found = json.loads((folder / _DONE).read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return int(found["rows"]) if found.get("digest") == digest and (folder / _PARTIAL).exists() else 0
