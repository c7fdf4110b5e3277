"""Histogram of motifs: how often each occurs in some rows, as a file with a row group for each bucket, and its numbers.

    write_histogram(path, rows, shape) -> HistogramNumbers
    count_silent(counts, shape) -> int, by another way than the histogram

`MotifCounter` counts in memory, row after row, in hash tables with open addressing: most patches are ones that were
seen before, and only the different ones are sorted, once. `write_group` and `MotifReader` write and read files of
motifs (`MOTIFS_SCHEMA`), also those of `table`. What rows are counted together (a session's, or those of a plan that
are no whole session) is decided in `ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.files import temporary_name
from neuralpile_dagster.motifs.counts import (
    MotifCounts,
    bucket_of_keys,
    bucket_of_patches,
    pack,
    summed_patches,
    take,
    total_of,
)
from neuralpile_dagster.motifs.records import N_BUCKETS, HistogramNumbers, MotifShape
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.arrow_rows import shared_array
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.schemas import MOTIFS_SCHEMA

MAX_MOTIFS = 4_000_000
"""Different motifs that are held in memory: half a gigabyte. More are written in order, and merged at the end."""
_SMALLEST = 1 << 12
"""Slots of an empty hash table."""


def write_histogram(
    path: Path, rows: Iterable[np.ndarray], shape: MotifShape, max_motifs: int = MAX_MOTIFS
) -> HistogramNumbers:
    """Count the motifs of rows, each padded for itself, and write them to a new file.

    The file depends on the rows only, not on their order or on ``max_motifs``. Row group ``b`` holds bucket ``b``.
    Memory: one row, and about 120 bytes for each of ``max_motifs`` while they are sorted.

    Parameters
    ----------
    path : Path
        File to write: use it inside `files.atomic_write` or `store.put_file`. Runs of motifs beside it are removed.
    rows : iterable of numpy.ndarray, uint8, shape (n_units, n_bins)
        Taken one by one.
    shape : MotifShape
    max_motifs : int
        Different motifs after which a row is the last of a run.
    """
    counter = MotifCounter(shape)
    with ExitStack() as stack:
        runs: list[Path] = []
        for counts in rows:
            counter.add(counts)
            if len(counter) >= max_motifs:
                runs.append(_run(stack, path, counter))
        if runs:
            runs.append(_run(stack, path, counter))
            readers = [MotifReader(run, str(run), shape) for run in runs]
            buckets: Iterable[MotifCounts] = (
                total_of((reader.group(bucket) for reader in readers), shape) for bucket in range(N_BUCKETS)
            )
        else:
            buckets = counter.take()
        spikes = motifs = without_key = 0
        with motif_writer(path) as writer:
            for bucket, found in enumerate(buckets):
                write_group(writer, bucket, found)
                spikes += found.spikes
                motifs += len(found)
                without_key += len(found.patches)
    return HistogramNumbers(
        shape=(shape.n_units, shape.n_bins),
        rows=counter.rows,
        tokens=counter.tokens,
        patches=counter.patches,
        silent=counter.silent,
        spikes=spikes,
        motifs=motifs,
        without_key=without_key,
    )


def _run(stack: ExitStack, path: Path, counter: MotifCounter) -> Path:
    """Write what was counted so far beside ``path``; removed when the stack is left."""
    run = path.with_name(temporary_name("run"))
    stack.callback(run.unlink, missing_ok=True)
    with motif_writer(run) as writer:
        for bucket, motifs in enumerate(counter.take()):
            write_group(writer, bucket, motifs)
    return run


def count_silent(counts: np.ndarray, shape: MotifShape) -> int:
    """Number of patches of a row without a spike, found without packing them.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    shape : MotifShape
    """
    if not counts.size:
        return 0
    by_bins = np.logical_or.reduceat(counts, np.arange(0, counts.shape[1], shape.n_bins), axis=1)
    spikes = np.logical_or.reduceat(by_bins, np.arange(0, counts.shape[0], shape.n_units), axis=0)
    return int(spikes.size - np.count_nonzero(spikes))


def motif_writer(target: Path) -> pq.ParquetWriter:
    """A writer of motifs (`write_group`); the same motifs give the same bytes.

    Parameters
    ----------
    target : Path
        File to write: use it inside `files.atomic_write` or `store.put_file`.
    """
    return pq.ParquetWriter(
        target,
        MOTIFS_SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=["bucket"],
        write_statistics=False,
        write_page_checksum=True,
    )


def write_group(writer: pq.ParquetWriter, bucket: int, motifs: MotifCounts) -> None:
    """Append the motifs of a bucket as a row group, also when there are none: those with a key, then those without."""
    n_keys, n_patches = len(motifs.keys), len(motifs.patches)
    ends = np.arange(n_patches + 1, dtype=np.int64) * motifs.shape.cells
    texts = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), n_patches, [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(motifs.patches))]
    ).cast(pa.binary())
    with_keys = [shared_array(motifs.keys), pa.nulls(n_keys, pa.binary()), shared_array(motifs.key_counts)]
    without = [pa.nulls(n_patches, pa.uint64()), texts, shared_array(motifs.patch_counts)]
    columns = [
        shared_array(np.full(len(motifs), bucket, np.uint8)),
        *(pa.chunked_array(pair) for pair in zip(with_keys, without, strict=True)),
    ]
    table = pa.Table.from_arrays(columns, schema=MOTIFS_SCHEMA)
    writer.write_table(table, row_group_size=max(len(motifs), 1))


class MotifReader:
    """Read a file of `motif_writer` group by group; page checksums are verified.

    Raises `TableError` naming the file when it is damaged, or of another shape.
    """

    def __init__(self, file: Path | pa.NativeFile, name: str, shape: MotifShape, *, remote: bool = False) -> None:
        self.name, self.shape = name, shape
        self._file = open_parquet(file, name, pre_buffer=remote)  # one request for a group
        require_schema(self._file.schema_arrow, MOTIFS_SCHEMA, name)

    @property
    def n_groups(self) -> int:
        """Number of row groups."""
        return int(self._file.num_row_groups)

    def group(self, number: int) -> MotifCounts:
        """The motifs of a row group."""
        with damaged(self.name):
            table = self._file.read_row_group(number, columns=["key", "patch", "count"], use_threads=False)
        keys, patches, counts = (table[name].combine_chunks() for name in table.column_names)
        n_patches = keys.null_count
        n_keys = len(keys) - n_patches
        cells = pa.concat_arrays([patches.slice(n_keys).cast(pa.large_binary())])
        ends = np.frombuffer(cells.buffers()[1], np.int64)[: n_patches + 1]
        if patches.null_count != n_keys or np.any(np.diff(ends) != self.shape.cells):
            raise TableError(
                f"{self.name} is damaged, or holds motifs of another shape",
                expected=f"motifs of {self.shape.name}",
                remedy="delete it and materialize the asset that makes it",
            )
        content = np.frombuffer(cells.buffers()[2], np.uint8) if n_patches else np.zeros(0, np.uint8)
        values = counts.to_numpy(zero_copy_only=False)
        return MotifCounts(
            self.shape,
            keys.slice(0, n_keys).to_numpy(zero_copy_only=False).astype(np.uint64, copy=False),
            values[:n_keys],
            content[ends[0] : ends[-1]].reshape(n_patches, self.shape.cells),
            values[n_keys:],
        )


@contextmanager
def open_motifs(store: Store, file: StoredFile, shape: MotifShape) -> Iterator[MotifReader]:
    """Open a stored file of motifs; raises `StoreError` when it is missing, `TableError` when it is no such file."""
    with store.open(file.key) as opened:
        yield MotifReader(opened, store.uri(file.key), shape, remote=store.readers > 1)


class MotifCounter:
    """Motifs of the rows added so far.

    Memory: 32 to 64 bytes for each motif with a key, and for each without one its cells and 24 to 48 bytes.

    Attributes
    ----------
    shape : MotifShape
    rows, tokens, patches, silent : int
        Of all rows added, also those before `take`; ``patches`` are all, ``silent`` those without a spike.
    """

    def __init__(self, shape: MotifShape) -> None:
        self.shape = shape
        self.rows = self.tokens = self.patches = self.silent = 0
        self._empty()

    def _empty(self) -> None:
        self._keys = np.zeros((_SMALLEST, 2), np.uint64)
        self._n_keys = 0
        self._slots = np.full(_SMALLEST, -1, np.int64)
        self._patches = np.zeros((_SMALLEST // 2, self.shape.cells), np.uint8)
        self._patch_counts = np.zeros(_SMALLEST // 2, np.int64)
        self._n_patches = 0

    def __len__(self) -> int:
        """Number of different motifs."""
        return self._n_keys + self._n_patches

    def add(self, counts: np.ndarray) -> None:
        """Count the patches of a row: uint8, shape (n_units, n_bins)."""
        patches = self.shape.n_patches(*counts.shape)
        self.rows += 1
        self.tokens += counts.size
        self.patches += patches
        if self.shape.has_keys:
            keys, without = pack(counts, self.shape)
            self.silent += self._add_keys(keys.reshape(-1)) - len(without)
            if len(without):
                self._add_patches(take(counts, self.shape, without))
        elif patches:
            self.silent += self._add_patches(take(counts, self.shape))

    def take(self) -> Iterator[MotifCounts]:
        """The motifs of each bucket, one after the other; from then on the counter is empty."""
        used = self._keys[self._keys[:, 0] != 0]
        patches, counts = self._patches[: self._n_patches], self._patch_counts[: self._n_patches]
        self._empty()
        keys, key_counts = used[:, 0].copy(), used[:, 1].astype(np.int64)
        del used
        order = np.argsort(keys)
        order = order[np.argsort(bucket_of_keys(keys[order]), kind="stable")]
        keys, key_counts = keys[order], key_counts[order]
        patches, counts = summed_patches(patches, counts)
        places = bucket_of_patches(patches)
        ends = np.searchsorted(bucket_of_keys(keys), np.arange(N_BUCKETS + 1))
        for bucket in range(N_BUCKETS):
            part, chosen = slice(ends[bucket], ends[bucket + 1]), places == bucket
            yield MotifCounts(self.shape, keys[part], key_counts[part], patches[chosen], counts[chosen])

    def _add_keys(self, keys: np.ndarray) -> int:
        """Count keys; the number of those that are 0."""
        silent, ones = 0, np.zeros(0, np.uint64)
        while True:
            done, self._n_keys, zeros = _count_keys(keys, ones, self._keys, self._n_keys)
            silent += zeros
            if done == len(keys):
                return silent
            keys = keys[done:]
            old = self._keys[self._keys[:, 0] != 0]
            self._keys = np.zeros((2 * len(self._keys), 2), np.uint64)
            _, self._n_keys, _ = _count_keys(old[:, 0].copy(), old[:, 1].copy(), self._keys, 0)

    def _add_patches(self, patches: np.ndarray) -> int:
        """Count patches; the number of those without a spike."""
        silent = 0
        while True:
            done, self._n_patches, zeros = _count_patches(
                patches, self._slots, self._patches, self._patch_counts, self._n_patches
            )
            silent += zeros
            if done == len(patches):
                return silent
            patches = patches[done:]
            room = len(self._slots)
            old, old_counts = self._patches, self._patch_counts
            self._slots = np.full(2 * room, -1, np.int64)
            self._patches = np.zeros((room, self.shape.cells), np.uint8)
            self._patch_counts = np.zeros(room, np.int64)
            _count_patches(old, self._slots, self._patches, self._patch_counts, 0)
            self._patch_counts[: len(old)] = old_counts  # they were inserted in their order


@njit(cache=True, nogil=True)
def _count_keys(keys: np.ndarray, weights: np.ndarray, table: np.ndarray, used: int) -> tuple[int, int, int]:
    """Count keys (by weights, if there are any) in a table of (key, count) whose free slots have key 0.

    Stops before a new key when the table is half full: number of keys counted, of slots used, of keys that are 0.
    """
    mask, shift, silent = len(table) - 1, np.uint64(64), 0
    while (1 << (64 - np.int64(shift))) < len(table):
        shift -= np.uint64(1)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0:
            silent += 1
            continue
        slot = np.int64(((key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
        while table[slot, 0] != key:
            if table[slot, 0] == 0:
                if 2 * used >= len(table):
                    return i, used, silent
                table[slot, 0] = key
                used += 1
                break
            slot = (slot + 1) & mask
        table[slot, 1] += weights[i] if len(weights) else np.uint64(1)
    return len(keys), used, silent


@njit(cache=True, nogil=True)
def _count_patches(
    patches: np.ndarray, slots: np.ndarray, known: np.ndarray, counts: np.ndarray, used: int
) -> tuple[int, int, int]:
    """Count patches whose places in ``known`` are in ``slots`` (-1: free).

    Stops before a new patch when ``known`` is full: number of patches counted, of patches known, of silent ones.
    """
    mask, silent = len(slots) - 1, 0
    for i in range(len(patches)):
        patch = patches[i]
        hashed, spikes = np.uint64(0xCBF29CE484222325), False
        for cell in patch:  # FNV-1a
            hashed = (hashed ^ np.uint64(cell)) * np.uint64(0x100000001B3)
            spikes |= cell != 0
        if not spikes:
            silent += 1
            continue
        slot = np.int64((hashed ^ (hashed >> np.uint64(29))) & np.uint64(mask))
        while True:
            place = slots[slot]
            if place < 0:
                if used == len(known):
                    return i, used, silent
                known[used] = patch
                slots[slot] = used
                place = used
                used += 1
                break
            same = True
            for j in range(len(patch)):
                if known[place, j] != patch[j]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & mask
        counts[place] += 1
    return len(patches), used, silent
