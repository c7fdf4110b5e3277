"""Per-session assets besides spike trains and counts, each one row: its inputs, and how one session is made.

A row lists itself in `neuralpile status`, `neuralpile build` and automation, gets a partitioned asset and a record per
session, and costs nothing where no dataset wants it. Rows of this package are in `BUILT_IN`; other packages add theirs
through the entry point group ``neuralpile.analyses``. What an analysis computes belongs in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.errors import CatalogError, TableError
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.ledger.kinds import DATASET_KINDS, AssetKind
from neuralpile_dagster.motifs.records import MOTIFS_VERSION, HistogramRecord, MotifShape
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.records import AnalysisRecord, CountsRecord, UnitOrderRecord, json_hash
from neuralpile_dagster.session import build
from neuralpile_dagster.session.unit_order import ORDER_VERSION, store_unit_order
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, is_intact, map_items, put_file, read_record
from neuralpile_dagster.tables.annotations import AnnotationsRecord, write_intervals, write_metrics
from neuralpile_dagster.tables.rows import RowReader

if TYPE_CHECKING:
    from neuralpile_dagster.ledger.pile_analyses import MadeRecord
    from neuralpile_dagster.plots.window import RasterSample

__all__ = ["ANNOTATIONS", "UNIT_ORDER", "Analysis", "AnalysisRecord", "AnalysisTask", "all_analyses", "analyses_of"]

AnyRecord = TypeVar("AnyRecord", bound=AnalysisRecord)
ENTRY_POINTS = "neuralpile.analyses"


@dataclass(frozen=True)
class AnalysisTask:
    """Inputs for one session of an analysis.

    Attributes
    ----------
    store : Store
    dataset : Dataset
    settings : Settings
    session : Session
        As the manifest lists it.
    folder : str
        Store prefix for files of this analysis; they are named after ``session.key``.
    inputs : str
        For the record.
    counts : CountsRecord or None
        The session's spike counts, where the analysis is made from them.
    open_files : callable
        Opens the session's archive files, in a ``with``.
    progress : callable
        Called with a line of text now and then, by analyses that take long.
    synthetic : bool
        Whether pictures of the session must say that it was recorded from no animal.
    """

    store: Store
    dataset: Dataset
    settings: Settings
    session: Session
    folder: str
    inputs: str
    counts: CountsRecord | None
    open_files: Callable[[], AbstractContextManager[Sequence[OpenFile]]]
    progress: Progress = silent
    synthetic: bool = False


@dataclass(frozen=True, kw_only=True)
class Analysis(AssetKind):
    """A per-session asset as a row.

    Attributes
    ----------
    made_from : {"spike_counts", "manifest"}
        Its upstream asset: counts that are done, or the archive's files alone.
    record : type of AnalysisRecord
    make : callable
        Makes one session; raises `NeuralPileError` when that is not possible.
    numbers : callable
        Numbers of a record for the UI, by name.
    wanted : callable
        Whether a dataset has this asset.
    options : callable
        Parts of the dataset's row that the result depends on, as JSON values.
    samples : callable
        What to draw of a session's record in the UI.
    on_request : bool
        Whether sessions of earlier versions get it only when a person asks, so that an upgrade makes nothing due.
    """

    made_from: Literal["spike_counts", "manifest"]
    record: type[AnalysisRecord]
    make: Callable[[AnalysisTask], AnalysisRecord]
    numbers: Callable[[Any], Mapping[str, int | float | str]]
    wanted: Callable[[Dataset], bool] = lambda dataset: True
    options: Callable[[Dataset], Any] = lambda dataset: None
    samples: Callable[[AnalysisTask, Any], Sequence[RasterSample]] = lambda task, record: ()
    on_request: bool = False

    def record_key(self, dataset: Dataset, settings: Settings, key: str) -> str:
        """Store key of one session's record."""
        return f"{self.folder(dataset, settings)}/{key}.json"


def annotate(task: AnalysisTask) -> AnnotationsRecord:
    """Read a session's intervals, and what is stated of its units; see `recordings.nwb.annotations`."""
    from neuralpile_dagster.recordings.nwb.annotations import open_annotations

    path = f"{task.folder}/{task.session.key}"
    reader = get_reader(task.dataset.reader)
    units = task.dataset.reader_options.get("table", "/units")
    with task.open_files() as files, open_annotations(files, units) as found:
        file, tables = put_file(
            task.store, f"{path}.parquet", lambda target: write_intervals(target, found.intervals())
        )
        metrics = found.unit_metrics() if reader.annotations == "units" else ()
        units_file, names = put_file(task.store, f"{path}.units.parquet", lambda target: write_metrics(target, metrics))
    return AnnotationsRecord(
        inputs=task.inputs,
        session_id=task.session.session_id,
        file=file,
        units_file=units_file,
        trains_inputs=build.session_inputs(task.session, task.dataset),
        tables=tables,
        metrics=names,
        notes=tuple(found.notes),
    )


def _annotation_numbers(record: AnnotationsRecord) -> dict[str, int | str]:
    tables = ", ".join(f"{name} ({rows:,})" for name, rows in record.tables.items())
    numbers: dict[str, int | str] = {"intervals": sum(record.tables.values()), "tables": tables or "none"}
    numbers |= {"unit_metrics": ", ".join(record.metrics) or "none", "bytes": sum(file.size for file in record.files)}
    return numbers | ({"notes": "\n".join(record.notes[:20])} if record.notes else {})


ANNOTATIONS = Analysis(
    name="annotations",
    text=(
        "Trials, epochs, stimuli and invalid times of a session, and what its file states of each unit: quality "
        "metrics, and the position of its peak electrode. Only these small parts are read. They are published as the "
        "configs `intervals` and `unit_metrics` the next time that `hub_dataset` is; publishing never waits for them, "
        "and spike counts do not depend on them. Sessions of earlier versions are annotated when you materialize this, "
        "or with `neuralpile build --annotations`."
    ),
    badges=frozenset({"parquet", "hdf5"}),
    version="annotations-1",
    of_settings=False,
    pool="archive",
    made_from="manifest",
    record=AnnotationsRecord,
    make=annotate,
    numbers=_annotation_numbers,
    wanted=lambda dataset: bool(get_reader(dataset.reader).annotations),
    on_request=True,
)


def order_units(task: AnalysisTask) -> UnitOrderRecord:
    """Order a session's units by how alike they fire; see `session.unit_order`."""
    assert task.counts is not None, "made from them"
    return store_unit_order(task.store, task.folder, task.session.key, task.counts, task.inputs, task.progress)


def _order_samples(task: AnalysisTask, record: UnitOrderRecord) -> Sequence[RasterSample]:
    from neuralpile_dagster.ledger.samples import order_samples

    assert task.counts is not None, "made from them"
    return order_samples(task.store, task.counts, record, task.synthetic)


UNIT_ORDER = Analysis(
    name="unit_order",
    text=(
        "An order of the units of a session in which units that fire together lie side by side: cosine distances of "
        "their spike counts, clustered by Ward's method, leaves in optimal order. The place of each unit is the column "
        "`order` of `units` the next time that `hub_dataset` is published; publishing never waits for it, and rows "
        "of spike counts keep their order. It is made where `unit_order` is true in `catalog.yaml`, also for sessions "
        "that are built already. Sessions of some thousand units take minutes."
    ),
    badges=frozenset({"parquet", "scipy"}),
    version=ORDER_VERSION,
    pool="sessions",
    made_from="spike_counts",
    record=UnitOrderRecord,
    make=order_units,
    numbers=lambda record: {"units": record.n_units, "silent_units": record.silent_units, "scipy": record.scipy},
    wanted=lambda dataset: bool(dataset.unit_order),
    samples=_order_samples,
)
BUILT_IN: tuple[Analysis, ...] = (ANNOTATIONS, UNIT_ORDER)


def count_motifs(task: AnalysisTask, shape: MotifShape) -> HistogramRecord:
    """Count the motifs of a session's rows; see `motifs.histogram`.

    Raises `TableError` when its counts file does not hold what its record says.
    """
    from neuralpile_dagster.motifs.histogram import write_histogram

    counts = task.counts
    assert counts is not None
    name = task.store.uri(counts.file.key)

    def rows() -> Iterator[np.ndarray]:
        with task.store.open(counts.file.key) as opened, RowReader(opened, name) as reader:
            yield from (reader.row(number).counts for number in range(reader.n_rows))

    path = f"{task.folder}/{task.session.key}.parquet"
    file, found = put_file(task.store, path, lambda target: write_histogram(target, rows(), shape))
    patches = sum(shape.n_patches(counts.stats.n_units, row.n_bins) for row in counts.rows)
    if (found.patches, found.spikes) != (patches, counts.stats.spikes_kept):
        raise TableError(
            f"{name} does not hold what its record says",
            found=f"{found.spikes:,} spikes in {found.patches:,} patches of {shape.name}",
            expected=f"{counts.stats.spikes_kept:,} spikes in {patches:,} patches",
            remedy=f"materialize {task.dataset.key}/spike_counts of {task.session.key} again",
        )
    return HistogramRecord(inputs=task.inputs, session_id=task.session.session_id, file=file, histogram=found)


def _motif_numbers(record: HistogramRecord) -> dict[str, int | float]:
    found = record.histogram
    silent = found.silent / max(found.patches, 1)
    numbers: dict[str, int | float] = {"patches": found.patches, "silent_share": silent, "motifs": found.motifs}
    return numbers | {"spikes": found.spikes, "bytes": sum(file.size for file in record.files)}


@cache
def motif_analysis(shape: MotifShape) -> Analysis:
    """The row that counts motifs of a shape."""
    return Analysis(
        name=f"motifs_{shape.name}",
        text=(
            f"How often each motif occurs in a session: each patch of {shape.n_units} x {shape.n_bins} counts (units x "
            "bins) that its rows are cut into. The motif table of a pile is the sum of these, over what the pile "
            "trains on. Turned on by `motif_shapes` in catalog.yaml."
        ),
        badges=frozenset({"parquet", "numpy"}),
        version=MOTIFS_VERSION,
        pool="sessions",
        made_from="spike_counts",
        record=HistogramRecord,
        make=partial(count_motifs, shape=shape),
        numbers=_motif_numbers,
        wanted=lambda dataset: (shape.n_units, shape.n_bins) in dataset.motif_shapes,
    )


@cache
def all_analyses() -> tuple[Analysis, ...]:
    """Every row; raises `CatalogError` when two have one name, or one cannot be loaded."""
    rows = (*BUILT_IN, *map(_load, entry_points(group=ENTRY_POINTS)))
    names = [row.name for row in (*DATASET_KINDS, *rows)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogError(
            f"two kinds of asset are named {twice[0]}",
            expected="a name for each",
            remedy=f"uninstall one of the packages that add to {ENTRY_POINTS}",
        )
    return rows


def _load(point: EntryPoint) -> Analysis:
    remedy = f"correct or uninstall the package that adds it to {ENTRY_POINTS}"
    try:
        row = point.load()
    except (ImportError, AttributeError) as error:
        raise CatalogError(
            f"the analysis {point.name} ({point.value}) cannot be loaded", found=str(error), remedy=remedy
        ) from error
    if not isinstance(row, Analysis):
        raise CatalogError(
            f"the analysis {point.name} ({point.value}) is invalid",
            found=f"a {type(row).__name__}",
            expected="a neuralpile_dagster.ledger.analyses.Analysis",
            remedy=remedy,
        )
    return row


def analyses_of(dataset: Dataset) -> tuple[Analysis, ...]:
    """The analyses that a dataset wants: rows, and one for each of its shapes of motifs."""
    counted = (motif_analysis(MotifShape(*shape)) for shape in dataset.motif_shapes)
    return (*(row for row in all_analyses() if row.wanted(dataset)), *counted)


def read_analysis(
    store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, key: str
) -> AnalysisRecord | None:
    """One session's record, or None."""
    return read_record(store, analysis.record_key(dataset, settings, key), analysis.record)


def analysis_inputs(analysis: Analysis, dataset: Dataset, session: Session, counts: CountsRecord | None) -> str | None:
    """Hash (sha256, hex) of the inputs of a session's record; None while its upstream asset is missing."""
    if analysis.made_from == "spike_counts":
        if counts is None:
            return None
        source = counts.file.sha256
    else:
        source = build.session_inputs(session, dataset)
    return inputs_of(analysis, source, analysis.options(dataset))


def inputs_of(analysis: Analysis, source: str, options: Any = None) -> str:
    """Hash of the inputs of a record that is made from ``source``: the sha256 of a counts file, or of a session."""
    return json_hash([analysis.name, analysis.version, source, options])


def is_current(store: Store, record: AnalysisRecord | MadeRecord | None, inputs: str | None) -> bool:
    """Whether a record is up to date: made from these inputs, and its files present."""
    if record is None or inputs is None or record.inputs != inputs:
        return False
    return all(is_intact(store, file) for file in record.files)


def read_annotations(
    store: Store, dataset: Dataset, settings: Settings, keys: Iterable[str]
) -> dict[str, AnnotationsRecord]:
    """Annotations of these sessions whose files are present, by key."""
    return _made(store, ANNOTATIONS.folder(dataset, settings), AnnotationsRecord, keys)


def read_unit_orders(
    store: Store, dataset: Dataset, settings: Settings, keys: Iterable[str]
) -> dict[str, UnitOrderRecord]:
    """Unit orders of these sessions whose files are present, by key; also where they are no longer wanted."""
    return _made(store, UNIT_ORDER.folder(dataset, settings), UnitOrderRecord, keys)


def _made(store: Store, folder: str, kind: type[AnyRecord], keys: Iterable[str]) -> dict[str, AnyRecord]:
    made = set(store.keys(folder))
    there = [key for key in keys if f"{folder}/{key}.json" in made]

    def look(key: str) -> AnyRecord | None:
        record = read_record(store, f"{folder}/{key}.json", kind)
        return record if record is not None and all(is_intact(store, file) for file in record.files) else None

    records = zip(there, map_items(store, look, there), strict=True)
    return {key: record for key, record in records if record is not None}
