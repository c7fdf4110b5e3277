"""The motif table of a pile, and the 64 buckets that it is made of: sums of histograms.

The table has the most frequent motifs, the tail of the others, and how much the first ones cover.

    build_bucket(store, prefix, shape, bucket, inputs=..., whole=..., left_out=...) -> BucketRecord
        sums one bucket of the histograms that the pile trains on
        writes <prefix>.parquet (`MOTIFS_SCHEMA`, row groups of 1 M motifs) and <prefix>.json
    build_table(store, prefix, shape, inputs=..., buckets=..., trained=..., top=1_000_000) -> TableRecord
        writes <prefix>.parquet (`MOTIF_TABLE_SCHEMA`), <prefix>.tail.parquet (`MOTIF_TAIL_SCHEMA`), <prefix>.json
    read_top(store, record, n) -> (patches, frequencies, probabilities) of the first n motifs, for the figure

Which histograms and buckets these are is decided in `ledger.motifs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.motifs.counts import MotifCounts, as_texts, total_of
from neuralpile_dagster.motifs.histogram import motif_writer, open_motifs, write_group
from neuralpile_dagster.motifs.records import TOP, BucketRecord, MotifShape, TableRecord, Trained
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store, map_items, put_file, write_record
from neuralpile_dagster.tables.arrow_rows import lists_array, shared_array
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.schemas import MOTIF_TABLE_SCHEMA, MOTIF_TAIL_SCHEMA

COVERAGE = (1_000, 4_000, 16_000, 32_000, 64_000, 128_000)
"""Numbers of motifs whose cumulative probability is stated, as far as a table holds so many or all."""
_GROUP_ROWS = 100_000
"""Rows in a row group of the table."""
GROUP_MOTIFS = 1_000_000
"""Motifs in a row group of a bucket's file."""
_AT_ONCE = 64
"""Histograms that are read before they are summed: on S3 each takes several round trips."""


def build_table(
    store: Store,
    prefix: str,
    shape: MotifShape,
    *,
    inputs: str,
    buckets: Sequence[BucketRecord],
    trained: Trained,
    top: int = TOP,
) -> TableRecord:
    """Write the most frequent motifs of all buckets in order; the record is written last.

    Frequency descending, then the patch's bytes ascending. Silence is a motif like others. The same buckets give the
    same bytes. Memory: a part of a bucket (50 MB), and about 200 bytes for each of ``top``.

    Parameters
    ----------
    store : Store
    prefix : str
        Store key of the results, without ending.
    shape : MotifShape
    inputs : str
        Hash of everything that the result depends on.
    buckets : sequence of BucketRecord
        Of all buckets.
    trained : Trained
    top : int
        Rows of the table at most.

    Raises
    ------
    StoreError, TableError
        The file of a bucket is missing or damaged.
    """
    tail, best = _Tail(), MotifCounts.none(shape)
    silence = replace(best, patches=np.zeros((1, shape.cells), np.uint8), patch_counts=np.array([trained.silent]))
    motifs = (part for bucket in buckets for part in read_bucket(store, bucket.file, shape))
    for part in chain([silence] if trained.silent else [], motifs):
        tail.add(part.all_counts)
        best = _most_frequent_of(best, part, top)
    patches, frequencies = _in_order(best, top)
    total = max(tail.patches, 1)
    file, _ = put_file(store, f"{prefix}.parquet", lambda path: _write_table(path, patches, frequencies, total))
    tail_file, _ = put_file(
        store,
        f"{prefix}.tail.parquet",
        lambda path: pq.write_table(tail.table(), path, compression="zstd", write_page_checksum=True),
    )
    sums = np.cumsum(frequencies)
    record = TableRecord(
        inputs=inputs,
        shape=(shape.n_units, shape.n_bins),
        top=top,
        file=file,
        tail_file=tail_file,
        rows=len(frequencies),
        motifs=tail.motifs,
        patches=tail.patches,
        silent=trained.silent,
        spikes=sum(bucket.spikes for bucket in buckets),
        coverage=tuple((n, _covered(sums, n, total)) for n in COVERAGE if n <= len(sums) or len(sums) == tail.motifs),
        trained=trained,
    )
    write_record(store, f"{prefix}.json", record)
    return record


def read_top(store: Store, record: TableRecord, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first ``n`` motifs of a table, or all if it has fewer.

    Returns
    -------
    patches : numpy.ndarray, uint8, shape (n, n_units, n_bins)
    frequencies : numpy.ndarray, int64, shape (n,)
    probabilities : numpy.ndarray, float64, shape (n,)
    """
    name = store.uri(record.file.key)
    with store.open(record.file.key) as opened:
        parquet = open_parquet(opened, name)
        require_schema(parquet.schema_arrow, MOTIF_TABLE_SCHEMA, name)
        groups = range(min(parquet.num_row_groups, -(-n // _GROUP_ROWS)))
        with damaged(name):
            table = parquet.read_row_groups(groups, use_threads=False).slice(0, n)
    patches = np.asarray(table["patch"].combine_chunks().flatten()).astype(np.uint8, copy=False)
    return (
        patches.reshape(table.num_rows, *record.shape),
        table["frequency"].to_numpy(),
        table["probability"].to_numpy(),
    )


def _covered(sums: np.ndarray, n: int, total: int) -> float:
    """Share of the first ``n`` motifs (or of all, if there are fewer), given the cumulative frequencies."""
    return float(sums[min(n, len(sums)) - 1] / total) if len(sums) else 0.0


def _most_frequent_of(best: MotifCounts, more: MotifCounts, top: int) -> MotifCounts:
    """The most frequent motifs of both: at most ``top`` with a key, and as many without.

    They are compared apart, since keys and bytes sort in different ways, and together at the end.
    """
    by_bytes = partial(_as_bytes_sort, n_cells=best.shape.cells)
    keys = _most_frequent(best.keys, best.key_counts, more.keys, more.key_counts, top, by_bytes)
    patches = _most_frequent(best.patches, best.patch_counts, more.patches, more.patch_counts, top, as_texts)
    return MotifCounts(best.shape, *keys, *patches)


def _most_frequent(
    motifs: np.ndarray,
    counts: np.ndarray,
    more: np.ndarray,
    more_counts: np.ndarray,
    top: int,
    ranks: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The ``top`` most frequent of some motifs and more of them, with their counts.

    Parameters
    ----------
    motifs, more : numpy.ndarray, shape (n, ...)
    counts, more_counts : numpy.ndarray, int64, shape (n,)
    top : int
    ranks : callable
        Gives different, sortable ranks of motifs; of those that are equally frequent, the smallest are taken.
    """
    if not len(more):
        return motifs, counts
    motifs, counts = np.concatenate([motifs, more]), np.concatenate([counts, more_counts])
    if len(counts) <= top:
        return motifs, counts
    least = np.partition(counts, len(counts) - top)[len(counts) - top]
    above, equal = np.flatnonzero(counts > least), np.flatnonzero(counts == least)
    chosen = np.concatenate([above, equal[np.argsort(ranks(motifs[equal]))[: top - len(above)]]])
    return motifs[chosen], counts[chosen]


def _in_order(best: MotifCounts, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches and frequencies of the table."""
    patches, counts = best.all_patches, best.all_counts
    order = np.argsort(as_texts(patches), kind="stable")
    order = order[np.argsort(-counts[order], kind="stable")][:top]
    return patches[order], counts[order]


def _as_bytes_sort(keys: np.ndarray, n_cells: int) -> np.ndarray:
    """Numbers that are ordered as the patches' bytes: a key's digits the other way round, its first cell foremost."""
    turned = np.zeros_like(keys)
    for cell in range(n_cells):
        turned = (turned << np.uint64(4)) | ((keys >> np.uint64(4 * cell)) & np.uint64(15))
    return turned


class _Tail:
    """Motifs and patches by frequency: 1, 2, 3 to 10, 11 to 100, 101 to 1,000, and so on."""

    _GREATEST = np.array([0, 1, 2, *(10**power for power in range(1, 19))])

    def __init__(self) -> None:
        self._motifs = np.zeros(len(self._GREATEST), np.int64)
        self._patches = np.zeros(len(self._GREATEST), np.int64)

    def add(self, frequencies: np.ndarray) -> None:
        places = np.searchsorted(self._GREATEST, frequencies)
        self._motifs += np.bincount(places, minlength=len(self._motifs))
        np.add.at(self._patches, places, frequencies)

    @property
    def motifs(self) -> int:
        return int(self._motifs.sum())

    @property
    def patches(self) -> int:
        return int(self._patches.sum())

    def table(self) -> pa.Table:
        """As far as there are motifs."""
        some = slice(1, int(np.flatnonzero(self._motifs)[-1]) + 1) if self.motifs else slice(1, 1)
        least = self._GREATEST[some.start - 1 : some.stop - 1] + 1
        return pa.table(
            {
                "least_frequency": least,
                "greatest_frequency": self._GREATEST[some],
                "motifs": self._motifs[some],
                "patches": self._patches[some],
                "probability": self._patches[some] / max(self.patches, 1),
            },
            schema=MOTIF_TAIL_SCHEMA,
        )


def _write_table(path: Path, patches: np.ndarray, frequencies: np.ndarray, total: int) -> None:
    columns = [
        lists_array(patches, MOTIF_TABLE_SCHEMA.field("patch").type),
        shared_array(frequencies),
        shared_array(frequencies / total),
    ]
    table = pa.Table.from_arrays(columns, schema=MOTIF_TABLE_SCHEMA)
    pq.write_table(table, path, row_group_size=_GROUP_ROWS, compression="zstd", write_page_checksum=True)


def build_bucket(
    store: Store,
    prefix: str,
    shape: MotifShape,
    bucket: int,
    *,
    inputs: str,
    whole: Sequence[StoredFile],
    left_out: Sequence[StoredFile] = (),
) -> BucketRecord:
    """Sum a bucket of histograms and subtract that of others; the record is written last.

    Memory: 40 bytes for each motif of the bucket.

    Parameters
    ----------
    store : Store
    prefix : str
        Store key of the result, without ending.
    shape : MotifShape
    bucket : int
    inputs : str
        Hash of everything that the result depends on.
    whole, left_out : sequence of StoredFile
        Files of `histogram.write_histogram`, in any order.

    Raises
    ------
    StoreError, TableError
        A file is missing, damaged, or counts what the others do not have.
    """
    motifs = _total(store, whole, shape, bucket)
    try:
        motifs = motifs.minus(_total(store, left_out, shape, bucket)) if left_out else motifs
    except ValueError as error:
        raise TableError(
            f"the motifs left out of bucket {bucket:02d} are not those of the sessions",
            found=str(error),
            remedy=f"delete {', '.join(file.key for file in left_out)} and build the bucket again",
        ) from error

    def write(path: Path) -> None:
        with motif_writer(path) as writer:
            for part in _parts(motifs):
                write_group(writer, bucket, part)

    file, _ = put_file(store, f"{prefix}.parquet", write)
    record = BucketRecord(
        inputs=inputs,
        bucket=bucket,
        shape=(shape.n_units, shape.n_bins),
        file=file,
        histograms=len(whole),
        motifs=len(motifs),
        without_key=len(motifs.patches),
        patches=motifs.total,
        spikes=motifs.spikes,
    )
    write_record(store, f"{prefix}.json", record)
    return record


def read_bucket(store: Store, file: StoredFile, shape: MotifShape) -> Iterator[MotifCounts]:
    """The motifs of a bucket's file, some at a time: those with a key ascending, then those without."""
    with open_motifs(store, file, shape) as reader:
        for number in range(reader.n_groups):
            yield reader.group(number)


def _total(store: Store, files: Sequence[StoredFile], shape: MotifShape, bucket: int) -> MotifCounts:
    def group(file: StoredFile) -> MotifCounts:
        with open_motifs(store, file, shape) as reader:
            return reader.group(bucket)

    parts = (files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE))
    return total_of((found for some in parts for found in map_items(store, group, some)), shape)


def _parts(motifs: MotifCounts) -> Iterator[MotifCounts]:
    """Cut into parts of at most `GROUP_MOTIFS`; one when there are none."""
    none = MotifCounts.none(motifs.shape)
    for start in range(0, max(len(motifs.keys), 1), GROUP_MOTIFS):
        part = slice(start, start + GROUP_MOTIFS)
        yield MotifCounts(motifs.shape, motifs.keys[part], motifs.key_counts[part], none.patches, none.patch_counts)
    for start in range(0, len(motifs.patches), GROUP_MOTIFS):
        part = slice(start, start + GROUP_MOTIFS)
        yield MotifCounts(motifs.shape, none.keys, none.key_counts, motifs.patches[part], motifs.patch_counts[part])
