"""Motifs of what a pile trains on: which histograms its buckets are the sum of, and what its table must agree with.

A session that is wholly in train is its own histogram (`analyses.motif_analysis`). Of one that is partly in train the
other rows are counted apart and subtracted; rows that are in no counts file of the store (those of other owners'
repositories, or of ``merge_from: hub``) are counted from their files and added. Both are made once and kept in the
store. Counting belongs in `motifs`.

    task = MotifTask(store, pile, settings, MotifShape(1, 15), plan, open_file, digest_of, progress)
    make_bucket(task, folder, "07") -> BucketRecord              # <folder>/07.parquet, .json
    make_table(task, prefix, buckets_folder, top) -> TableRecord # <prefix>.parquet, .tail.parquet, .json
    bucket_inputs(plan.record, shape), table_inputs(plan.record, shape, top)   # hashes that the records state
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError, MergeError
from neuralpile_dagster.ledger.analyses import inputs_of, is_current, motif_analysis
from neuralpile_dagster.ledger.pile_analyses import PileTask, PlannedPile
from neuralpile_dagster.ledger.piles import file_digests, file_opener, is_on_hub
from neuralpile_dagster.merge.model import PilePlan, PlanRecord, SourceFile
from neuralpile_dagster.merge.shards import DigestOf, opener_of_unchanged
from neuralpile_dagster.motifs.records import (
    BUCKETS,
    MOTIFS_VERSION,
    BucketRecord,
    HistogramNumbers,
    HistogramRecord,
    MotifShape,
    RowsRecord,
    TableRecord,
    Trained,
)
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.records import CountsRecord, json_hash
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, is_intact, map_items, put_file, read_record, write_record
from neuralpile_dagster.tables.copying.copy import FileOpener
from neuralpile_dagster.tables.rows import read_counts

TRAIN = "train"


@dataclass(frozen=True)
class MotifTask:
    """What the motifs of a plan are made from; the buckets of a run share one, which reads its documents once.

    Attributes
    ----------
    store : Store
    pile : Pile
    settings : Settings
    shape : MotifShape
    plan : PilePlan
    open_file, digest_of : callable
        Of the plan's files: `piles.file_opener`, `piles.file_digests`.
    progress : callable
    """

    store: Store
    pile: Pile
    settings: Settings
    shape: MotifShape
    plan: PilePlan
    open_file: FileOpener
    digest_of: DigestOf | None = None
    progress: Progress = silent

    @cached_property
    def trained_rows(self) -> dict[str, set[int]]:
        """Numbers of the rows in train, by file; files without any are not among them."""
        found: dict[str, set[int]] = defaultdict(set)
        columns = (self.plan.rows[name].to_pylist() for name in ("split", "file", "row"))
        for split, file, row in zip(*columns, strict=True):
            if split == TRAIN:
                found[file].add(row)
        return dict(found)

    @cached_property
    def files(self) -> dict[str, SourceFile]:
        """The plan's files by name."""
        return {file.name: file for file in self.plan.record.files}

    @cached_property
    def sessions(self) -> dict[str, HistogramRecord]:
        """Histograms of the sessions that have rows in train, by the name of their counts file."""
        names = [name for name in self.trained_rows if not is_on_hub(name)]
        records = map_items(self.store, lambda name: _histogram(self, name), names)
        return dict(zip(names, records, strict=True))

    @cached_property
    def added(self) -> list[RowsRecord]:
        """Histograms of the rows in train that are in no session's file, one for each file; made if missing."""
        files = {name: rows for name, rows in self.trained_rows.items() if is_on_hub(name)}
        return [_count_rows(self, {name: sorted(rows)}) for name, rows in files.items()]

    @cached_property
    def left_out(self) -> list[RowsRecord]:
        """Histogram of the rows of `sessions` that are not in train, none when there are none; made if missing."""
        others = {
            name: sorted(set(range(record.histogram.rows)) - self.trained_rows[name])
            for name, record in self.sessions.items()
        }
        others = {name: rows for name, rows in others.items() if rows}
        return [_count_rows(self, others)] if others else []


def task_of(task: PileTask, shape: MotifShape) -> MotifTask:
    """The task that partitions of one run share."""
    of = task.of

    def make() -> MotifTask:
        hub = task.open_hub()
        opener, digests = file_opener(of.store, hub), file_digests(of.store, hub)
        return MotifTask(of.store, of.pile, of.settings, shape, of.planned, opener, digests, task.progress)

    return of.kept(("motif task", shape), make)


def without_histogram(of: PlannedPile, shape: MotifShape) -> str:
    """Why the sessions cannot be summed yet: the first whose histogram is missing or not of the planned counts."""
    try:
        _ = MotifTask(of.store, of.pile, of.settings, shape, of.planned, of.store.open).sessions
    except ConfigurationError as error:
        return f"{error.what}; {error.remedy}"
    return ""


def bucket_inputs(plan: PlanRecord, shape: MotifShape) -> str:
    """Hash (sha256, hex) of all that the buckets of a plan are made from."""
    return json_hash(["motif_buckets", MOTIFS_VERSION, plan.digest, shape.name])


def table_inputs(plan: PlanRecord, shape: MotifShape, top: int) -> str:
    """Hash (sha256, hex) of all that the motif table of a plan is made from."""
    return json_hash(["motifs", MOTIFS_VERSION, plan.digest, shape.name, top])


def make_bucket(task: MotifTask, folder: str, bucket: str) -> BucketRecord:
    """Sum a bucket over what a plan trains on, unless that is done.

    Parameters
    ----------
    task : MotifTask
    folder : str
        Store prefix of the buckets.
    bucket : str
        One of `motifs.records.BUCKETS`.

    Raises
    ------
    ConfigurationError
        The motifs of a session are missing, or of other counts than planned; names the session.
    MergeError
        A file whose rows are counted has changed since the plan was made.
    StoreError, TableError
        A file is missing or damaged.
    """
    from neuralpile_dagster.motifs.table import build_bucket

    inputs = bucket_inputs(task.plan.record, task.shape)
    present = read_record(task.store, f"{folder}/{bucket}.json", BucketRecord)
    if present is not None and present.inputs == inputs and is_intact(task.store, present.file):
        return present
    whole = [record.file for record in task.sessions.values() if record.file]
    return build_bucket(
        task.store,
        f"{folder}/{bucket}",
        task.shape,
        int(bucket),
        inputs=inputs,
        whole=[*whole, *(rows.file for rows in task.added)],
        left_out=[rows.file for rows in task.left_out],
    )


def make_table(task: MotifTask, prefix: str, buckets_folder: str, top: int) -> TableRecord:
    """Write the motif table of a plan.

    Parameters
    ----------
    task : MotifTask
    prefix : str
        Store key of the table, without ending.
    buckets_folder : str
        Where `make_bucket` stored the buckets.
    top : int
        Rows of the table at most.

    Raises
    ------
    ConfigurationError
        A bucket is missing, or of another plan.
    """
    from neuralpile_dagster.motifs.table import build_table

    buckets = _buckets(task, buckets_folder)
    return build_table(
        task.store,
        prefix,
        task.shape,
        inputs=table_inputs(task.plan.record, task.shape, top),
        buckets=buckets,
        trained=trained_numbers(task),
        top=top,
    )


def trained_numbers(task: MotifTask) -> Trained:
    """Numbers of what a plan trains on, from the histograms and from the records of counts; errors as `make_bucket`."""
    sessions, added, left_out = task.sessions, task.added, task.left_out
    counts = map_items(task.store, lambda name: _counts_record(task, name), sessions)
    patches = [sum(task.shape.n_patches(record.stats.n_units, row.n_bins) for row in record.rows) for record in counts]
    signs: list[tuple[int, HistogramNumbers]] = [(1, record.histogram) for record in sessions.values()]
    signs += [*((1, rows.histogram) for rows in added), *((-1, rows.histogram) for rows in left_out)]

    def total(field: str) -> int:
        return sum(sign * int(getattr(numbers, field)) for sign, numbers in signs)

    def single(field: str) -> int:
        return sum(getattr(rows, field) for rows in added) - sum(getattr(rows, field) for rows in left_out)

    return Trained(
        histograms=len(sessions) + len(added),
        rows=total("rows"),
        tokens=total("tokens"),
        patches=total("patches"),
        silent=total("silent"),
        spikes=total("spikes"),
        expected_patches=sum(patches) + single("expected_patches"),
        expected_spikes=sum(record.stats.spikes_kept for record in counts) + single("expected_spikes"),
    )


def _buckets(task: MotifTask, folder: str) -> list[BucketRecord]:
    inputs = bucket_inputs(task.plan.record, task.shape)
    found = map_items(
        task.store, lambda bucket: read_record(task.store, f"{folder}/{bucket}.json", BucketRecord), BUCKETS
    )
    current = [record for record in found if record is not None and record.inputs == inputs]
    if len(current) < len(BUCKETS):
        missing = [
            name for name, record in zip(BUCKETS, found, strict=True) if record is None or record.inputs != inputs
        ]
        raise ConfigurationError(
            f"{task.pile.name}: the motifs of {task.shape.name} are not summed yet",
            found=f"{len(missing)} of {len(BUCKETS)} buckets missing or of another plan, e.g. {missing[0]}",
            expected=f"all buckets of the plan {task.plan.record.plan_id}",
            remedy=f"materialize {task.pile.key}/motif_buckets_{task.shape.name}",
        )
    return current


def _histogram(task: MotifTask, name: str) -> HistogramRecord:
    analysis = motif_analysis(task.shape)
    dataset, _, file = name.split("/")
    key = file.removesuffix(".parquet")
    folder = analysis.folder_of(dataset, task.settings)
    record = read_record(task.store, f"{folder}/{key}.json", HistogramRecord)
    planned = task.files[name].sha256
    if record is not None and is_current(task.store, record, inputs_of(analysis, planned)):
        return record
    missing = record is None or not all(is_intact(task.store, file) for file in record.files)
    raise ConfigurationError(
        f"the motifs ({task.shape.name}) of session {key} of {dataset} are "
        + ("missing" if missing else f"not those of the counts in the plan {task.plan.record.plan_id}"),
        expected=f"a histogram of {name} with sha256 {planned[:12]}",
        remedy=f"materialize {dataset}/{analysis.name} of that session"
        + ("" if missing else f"; if its counts are newer than the plan, {task.pile.key}/manifest first"),
    )


def _counts_record(task: MotifTask, name: str) -> CountsRecord:
    record = read_record(task.store, f"{name.removesuffix('.parquet')}.json", CountsRecord)
    if record is None or record.file.sha256 != task.files[name].sha256:
        raise MergeError(
            f"{name} has changed since the pile was planned",
            found=f"sha256 {record.file.sha256}" if record else "no record",
            expected=f"sha256 {task.files[name].sha256}",
            remedy=f"materialize {task.pile.key}/manifest again",
        )
    return record


def _count_rows(task: MotifTask, rows: Mapping[str, Sequence[int]]) -> RowsRecord:
    """Count the motifs of some rows of the plan's files, unless that is done."""
    from neuralpile_dagster.motifs.histogram import write_histogram

    contents = [[task.files[name].sha256, list(numbers)] for name, numbers in sorted(rows.items())]
    inputs = json_hash(["motif_rows", MOTIFS_VERSION, task.shape.name, contents])
    prefix = f"{task.pile.key}/motif_rows_{task.shape.name}{task.settings.variant}/{inputs[:16]}"
    present = read_record(task.store, f"{prefix}.json", RowsRecord)
    if present is not None and present.inputs == inputs and is_intact(task.store, present.file):
        return present
    n_rows = sum(map(len, rows.values()))
    task.progress(f"{task.pile.name}: counting the motifs of {n_rows:,} single rows of {len(rows):,} files")
    expected = {"expected_patches": 0, "expected_spikes": 0}
    open_unchanged = opener_of_unchanged(task.plan.record, task.open_file, task.digest_of)

    def counts() -> Iterator[np.ndarray]:
        for name, numbers in sorted(rows.items()):
            with open_unchanged(name) as file:
                for row in read_counts(file, name, numbers):
                    expected["expected_patches"] += task.shape.n_patches(*row.shape)
                    expected["expected_spikes"] += int(row.sum(dtype=np.int64))
                    yield row

    file, found = put_file(task.store, f"{prefix}.parquet", lambda path: write_histogram(path, counts(), task.shape))
    record = RowsRecord(inputs=inputs, file=file, histogram=found, **expected)
    write_record(task.store, f"{prefix}.json", record)
    return record
