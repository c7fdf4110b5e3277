"""Batch of sessions of one analysis: skip what is up to date, make the rest, log each at once.

What an analysis computes is in its row (`ledger.analyses`); nothing here depends on a particular one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from neuralpile_dagster.archives.model import Access
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import Analysis, AnalysisTask, analysis_inputs, is_current, read_analysis
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import PartitionBatch
from neuralpile_dagster.orchestration.batches.sessions import session_of
from neuralpile_dagster.orchestration.metadata.pictures import analysis_rasters
from neuralpile_dagster.orchestration.provenance import latest_event, version_tags
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.store import write_record


@dataclass
class AnalysisBatch(PartitionBatch):
    """The sessions of one run of an analysis."""

    dataset: Dataset
    analysis: Analysis
    access: Access
    thing = "session"

    @property
    def whole(self) -> str:
        """Dataset and analysis."""
        return f"{self.dataset.name} {self.analysis.name}"

    @property
    def assets(self) -> Sequence[dg.AssetKey]:
        """The asset of the analysis."""
        return [names.asset_key(self.dataset, self.analysis)]

    @cached_property
    def manifest(self) -> Manifest:
        """The dataset's manifest, read once at the start of the run."""
        return documents.read_manifest(self.store, self.dataset)

    def record_failure(self, key: str, error: Exception) -> None:
        """Store the failure beside those of other kinds of asset."""
        session = next((session for session in self.manifest.sessions if session.key == key), None)
        inputs = self._inputs(session, self._counts(session)) if session else None
        run_id = self.context.run.run_id
        documents.record_failure(
            self.store,
            self.dataset,
            self.settings,
            key,
            error,
            inputs or "",
            run_id,
            self.analysis.name,
            stopped_batch=self.stopped,
        )

    def make(self, key: str) -> None:
        """Make one session's record unless it is current."""
        started, session = time.monotonic(), session_of(self.manifest, key)
        counts = self._counts(session)
        inputs = self._inputs(session, counts)
        if inputs is None:
            raise ConfigurationError(
                f"{key} has no spike counts yet", remedy=f"materialize {self.dataset.key}/spike_counts first"
            )
        record = read_analysis(self.store, self.dataset, self.settings, self.analysis, key)
        reused = record is not None and is_current(self.store, record, inputs)
        task = self._task(session, counts, inputs)
        if record is None or not reused:
            record = self.analysis.make(task)
            write_record(self.store, self.analysis.record_key(self.dataset, self.settings, key), record)
        asset, source = names.asset_key(self.dataset, self.analysis), names.upstream_key(self.dataset, self.analysis)
        event = latest_event(self.context.instance, source, key) if counts else None
        source_version = counts.file.sha256[:32] if counts else documents.manifest_digest(self.manifest)
        tags = version_tags(
            inputs[:32], self.analysis.version, source, source_version, event.storage_id if event else None
        )
        seconds = {"seconds": round(time.monotonic() - started, 3), "reused": reused}
        pictures = analysis_rasters(self.analysis.samples(task, record), session.session_id)
        self.log_materialization(asset, key, {**pictures, **self.analysis.numbers(record), **seconds}, tags)
        documents.forget_failure(self.store, self.dataset, self.settings, key, self.analysis.name)

    def _task(self, session: Session, counts: CountsRecord | None, inputs: str) -> AnalysisTask:
        return AnalysisTask(
            store=self.store,
            dataset=self.dataset,
            settings=self.settings,
            session=session,
            folder=self.analysis.folder(self.dataset, self.settings),
            inputs=inputs,
            counts=counts,
            open_files=lambda: self._open(session),
            progress=self.log.info,
            synthetic=self.manifest.synthetic,
        )

    def _counts(self, session: Session) -> CountsRecord | None:
        if self.analysis.made_from == "manifest":
            return None
        return documents.read_counts_record(self.store, self.dataset, self.settings, session.key)

    def _inputs(self, session: Session, counts: CountsRecord | None) -> str | None:
        return analysis_inputs(self.analysis, self.dataset, self.settings, session, counts)

    @contextmanager
    def _open(self, session: Session) -> Iterator[Sequence[OpenFile]]:
        archive = self.instance.open_archive(self.dataset.source)
        with ExitStack() as stack:
            yield [stack.enter_context(archive.open(self.dataset.source, file, self.access)) for file in session.files]
