"""Sum one bucket of the histograms that a pile trains on.

Which histograms these are is decided in `ledger.motifs`.

    build_bucket(store, prefix, shape, bucket, inputs=..., whole=..., left_out=...) -> BucketRecord
        writes <prefix>.parquet (`MOTIFS_SCHEMA`, row groups of 1 M motifs) and <prefix>.json
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.motifs.counts import MotifCounts, total_of
from neuralpile_dagster.motifs.files import MotifWriter, open_motifs
from neuralpile_dagster.motifs.records import BucketRecord
from neuralpile_dagster.motifs.shape import MotifShape
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store, is_intact, map_items, put_file, read_record, write_record

GROUP_MOTIFS = 1_000_000
"""Motifs in a row group of a bucket's file."""
_AT_ONCE = 64
"""Histograms that are read before they are summed: on S3 each takes several round trips."""


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
    """Sum a bucket of histograms and subtract that of others, unless that is done; the record is written last.

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
    present = read_record(store, f"{prefix}.json", BucketRecord)
    if present is not None and present.inputs == inputs and is_intact(store, present.file):
        return present
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
        with MotifWriter(path) as writer:
            for part in _parts(motifs):
                writer.write(bucket, part)

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
    def groups() -> Iterator[MotifCounts]:
        for start in range(0, len(files), _AT_ONCE):
            yield from map_items(
                store, lambda file: _group(store, file, shape, bucket), files[start : start + _AT_ONCE]
            )

    return total_of(groups(), shape)


def _group(store: Store, file: StoredFile, shape: MotifShape, bucket: int) -> MotifCounts:
    with open_motifs(store, file, shape) as reader:
        return reader.group(bucket)


def _parts(motifs: MotifCounts) -> Iterator[MotifCounts]:
    """Cut into parts of at most `GROUP_MOTIFS`; one when there are none."""
    none = MotifCounts.none(motifs.shape)
    for start in range(0, max(len(motifs.keys), 1), GROUP_MOTIFS):
        part = slice(start, start + GROUP_MOTIFS)
        yield MotifCounts(motifs.shape, motifs.keys[part], motifs.key_counts[part], none.patches, none.patch_counts)
    for start in range(0, len(motifs.patches), GROUP_MOTIFS):
        part = slice(start, start + GROUP_MOTIFS)
        yield MotifCounts(motifs.shape, none.keys, none.key_counts, motifs.patches[part], motifs.patch_counts[part])
