"""Per-session assets besides spike trains and counts, each one row: its inputs, and how one session is made.

A row lists itself in `neuralpile status`, `neuralpile build` and automation, gets a partitioned asset and a record per
session, and costs nothing where no dataset wants it. Rows of this package are in `BUILT_IN`; other packages add theirs
through the entry point group ``neuralpile.analyses``. What an analysis computes belongs in a module of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from neuralpile_dagster import build
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.kinds import DATASET_KINDS, AssetKind
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import CountsRecord, Model, StoredFile
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, is_intact, map_items, read_record

ENTRY_POINTS = "neuralpile.analyses"
TRANSIENT_WAIT = timedelta(hours=1)
"""A session that failed with a transient error is retried after this long."""


class AnalysisRecord(Model):
    """Base of an analysis' stored results for one session; ``inputs`` is the hash of everything they were made from."""

    inputs: str
    session_id: str
    file: StoredFile | None = None


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
    """

    store: Store
    dataset: Dataset
    settings: Settings
    session: Session
    folder: str
    inputs: str
    counts: CountsRecord | None
    open_files: Callable[[], AbstractContextManager[Sequence[OpenFile]]]


def _every_dataset(dataset: Dataset) -> bool:
    return True


def _no_options(dataset: Dataset) -> Any:
    return None


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
    """

    made_from: Literal["spike_counts", "manifest"]
    record: type[AnalysisRecord]
    make: Callable[[AnalysisTask], AnalysisRecord]
    numbers: Callable[[Any], Mapping[str, int | float | str]]
    wanted: Callable[[Dataset], bool] = _every_dataset
    options: Callable[[Dataset], Any] = _no_options

    def record_key(self, dataset: Dataset, settings: Settings, key: str) -> str:
        """Store key of one session's record."""
        return f"{self.folder(dataset, settings)}/{key}.json"


BUILT_IN: tuple[Analysis, ...] = ()


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
    """The analyses that a dataset wants."""
    return tuple(row for row in all_analyses() if row.wanted(dataset))


def read_analysis(
    store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, key: str
) -> AnalysisRecord | None:
    """One session's record, or None."""
    return read_record(store, analysis.record_key(dataset, settings, key), analysis.record)


def analysis_inputs(
    analysis: Analysis, dataset: Dataset, settings: Settings, session: Session, counts: CountsRecord | None
) -> str | None:
    """Hash (sha256, hex) of the inputs of a session's record; None while its upstream asset is missing."""
    if analysis.made_from == "spike_counts":
        if counts is None:
            return None
        source = counts.file.sha256
    else:
        source = build.session_inputs(session, dataset)
    parts = [analysis.name, analysis.version, source, analysis.options(dataset)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_current(store: Store, record: AnalysisRecord | None, inputs: str | None) -> bool:
    """Whether a record is up to date: made from these inputs, and its file present."""
    if record is None or inputs is None or record.inputs != inputs:
        return False
    return record.file is None or is_intact(store, record.file)


@dataclass(frozen=True)
class AnalysisStanding:
    """State of one analysis of a dataset; ``due`` maps keys to the hash of their inputs, ``failed`` to reasons.

    Sessions whose upstream asset is missing are in neither.
    """

    analysis: Analysis
    done: int
    due: dict[str, str]
    failed: dict[str, str]


def analysis_standing(
    store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, manifest: Manifest
) -> AnalysisStanding:
    """Read the state of an analysis; failures with unchanged inputs are not due, transient ones are after an hour."""
    sessions = [session for session in manifest.sessions if not session.vanished]
    failures = documents.read_failures(store, dataset, settings, analysis.name)

    def look(session: Session) -> tuple[str | None, bool]:
        counts = None
        if analysis.made_from == "spike_counts":
            counts = documents.read_counts_record(store, dataset, settings, session.key)
        inputs = analysis_inputs(analysis, dataset, settings, session, counts)
        return inputs, is_current(store, read_analysis(store, dataset, settings, analysis, session.key), inputs)

    done, due, failed = 0, {}, {}
    for session, (inputs, current) in zip(sessions, map_items(store, look, sessions), strict=True):
        failure = failures.get(session.key)
        if current:
            done += 1
        elif inputs is None:
            continue
        elif failure is not None and failure.inputs == inputs:
            failed[session.key] = failure.message
            if failure.transient and datetime.now(UTC) - failure.at > TRANSIENT_WAIT:
                due[session.key] = inputs
        else:
            due[session.key] = inputs
    return AnalysisStanding(analysis, done, due, failed)
