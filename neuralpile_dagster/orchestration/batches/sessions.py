"""Batches of sessions of one dataset: of spike trains and counts, with their checks, and of one analysis.

Results that are up to date in the store are skipped. How a session is read and binned belongs in `session`, what an
analysis computes in its row (`ledger.analyses`), what a check finds in `checks`, what a batch does with failures in
`base`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from neuralpile_dagster.archives.model import Access, Archive
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.session import SessionEvidence, file_is_as_recorded
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import Analysis, AnalysisTask, analysis_inputs, is_current, read_analysis
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import PartitionBatch, version_tags
from neuralpile_dagster.orchestration.checks import latest_event
from neuralpile_dagster.orchestration.metadata import analysis_rasters, session_raster
from neuralpile_dagster.orchestration.metadata.dataset import counts_metadata, trains_metadata
from neuralpile_dagster.orchestration.verdicts import SessionJudge
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.recordings.model import Recording, read_session
from neuralpile_dagster.records import CountsRecord, TrainsRecord
from neuralpile_dagster.session import build
from neuralpile_dagster.store import write_record


@dataclass
class _DatasetBatch(PartitionBatch):
    """Sessions of one dataset, and how their files are opened."""

    dataset: Dataset
    access: Access
    thing = "session"

    @cached_property
    def manifest(self) -> Manifest:
        """The dataset's manifest, read once at the start of the run."""
        return documents.read_manifest(self.store, self.dataset)

    def session(self, key: str) -> Session:
        """Session of a partition key; raises `ConfigurationError` when the manifest has none."""
        try:
            return self.manifest.session(key)
        except KeyError:
            raise ConfigurationError(
                f"{key} is not a session of {self.manifest.dataset}",
                found=f"a manifest of {plural(len(self.manifest.sessions), 'session')} without it",
                remedy="materialize the manifest again: it removes partitions of sessions that are gone",
            ) from None

    def counts_of(self, key: str) -> CountsRecord | None:
        """The stored spike counts of a session."""
        return documents.read_counts_record(self.store, self.dataset, self.settings, key)

    @cached_property
    def archive(self) -> Archive:
        """The archive of the dataset's recordings."""
        return self.instance.open_archive(self.dataset.source)

    @contextmanager
    def open_files(self, session: Session) -> Iterator[Sequence[OpenFile]]:
        """Open the files of a session."""
        with ExitStack() as stack:
            opened = (self.archive.open(self.dataset.source, file, self.access) for file in session.files)
            yield [stack.enter_context(file) for file in opened]


@dataclass
class SessionBatch(_DatasetBatch):
    """The sessions of one run of a dataset's multi-asset: spike trains, then counts, then the next session."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.judge = SessionJudge(self.context, self.dataset, self.store, self.settings)
        _ = self.archive  # without one the run fails as a whole, not session by session
        every = [names.spike_trains_key(self.dataset), names.spike_counts_key(self.dataset)]
        selected = every if isinstance(self.context, dg.OpExecutionContext) else self.context.selected_asset_keys
        self.wants_trains, self.wants_counts = (asset in selected for asset in every)
        self._read: Recording | None = None
        """What was read of the session that is being made, until its counts take it."""

    @property
    def whole(self) -> str:
        """The dataset."""
        return self.dataset.name

    @property
    def assets(self) -> Sequence[dg.AssetKey]:
        """Spike trains, spike counts or both, as the run asks; of a run of checks alone, the counts that they judge."""
        trains = [names.spike_trains_key(self.dataset)] if self.wants_trains else []
        return [*trains, *([names.spike_counts_key(self.dataset)] if self.wants_counts or not trains else [])]

    def keys(self) -> Sequence[str]:
        """Partitions of this run; without any ("Execute all" on the Checks page), all finished sessions."""
        manifest = self.manifest  # without one the run fails as a whole, not session by session
        if self.chosen is not None:
            return self.chosen
        if self.context.has_partition_key or self.context.has_partition_key_range:
            return self.context.partition_keys
        return list(documents.done_records(self.store, self.dataset, self.settings, manifest))

    def finish(self, made: int) -> None:
        """Log a verdict of each check on all sessions of the dataset."""
        if self.wants_counts or not self.wants_trains:
            self.judge.finish()

    def record_failure(self, key: str, error: Exception) -> None:
        """Store the failure, for `neuralpile status` and automation."""
        known = {session.key: session for session in self.manifest.sessions}
        inputs = build.session_inputs(known[key], self.dataset) if key in known else ""
        self.store_failure(self.dataset, key, error, inputs)
        self.judge.note_failure(key)

    def make(self, key: str) -> None:
        """Make or check one session."""
        try:
            self._make(key)
        finally:
            self._read = None

    def _make(self, key: str) -> None:
        session = self.session(key)
        if not (self.wants_trains or self.wants_counts):  # checks alone
            self._check_again(session)
        else:
            trains = None if self.wants_trains else self._current_trains(session)
            if trains is None:  # counts alone were requested, but the files were never read: make both
                trains = self._trains(session)
            if self.wants_counts:
                self._counts(session, trains)
        if self.wants_counts or not self.wants_trains or self.counts_of(key) is None:
            # materializing spike trains does not affect counts that failed a check
            documents.forget_failure(self.store, self.dataset, self.settings, session.key)

    def _current_trains(self, session: Session) -> TrainsRecord | None:
        """The stored spike trains, if made from the files that the manifest lists now.

        What was read by byte ranges from data without checksums is read again when ``access`` is ``download``.
        """
        record = documents.read_trains_record(self.store, self.dataset, self.settings, session.key)
        if record is not None and record.unverified and self.access == "download":
            return None
        inputs = build.session_inputs(session, self.dataset)
        return record if record is not None and build.is_current(self.store, record, inputs) else None

    def _trains(self, session: Session) -> TrainsRecord:
        """Read and store the session's spike trains unless they are up to date; log the materialization either way."""
        started = time.monotonic()
        record, cost = self._current_trains(session), None
        if record is None:
            record, cost = self._read_and_store(session)
        uri, seconds = self.store.uri(record.file.key), time.monotonic() - started
        facts = trains_metadata(record, uri, seconds, cost, self.manifest.synthetic)
        source, version = names.manifest_key(self.dataset), documents.manifest_digest(self.manifest)
        tags = version_tags(record.file.sha256[:32], build.TRAINS_VERSION, source, version)
        self.log_materialization(names.spike_trains_key(self.dataset), session.key, facts, tags)
        return record

    def _read_and_store(self, session: Session) -> tuple[TrainsRecord, ReadCost]:
        # logs nothing: Dagster's errors in storing an event outlive it, with the local variables of all its callers
        cost = ReadCost()
        with self.open_files(session) as files:
            recording = read_session(self.dataset.reader, files, self.dataset.reader_options)
            for file in files:
                cost.add(file.cost)
            unverified = any(file.unverified for file in files)
        record = build.store_recording(
            self.store,
            documents.trains_folder(self.dataset, self.settings),
            session,
            recording,
            self.manifest.version,
            build.session_inputs(session, self.dataset),
            unverified,
        )
        self._read = recording
        return record, cost

    def _counts(self, session: Session, trains: TrainsRecord) -> None:
        """Bin and store the session unless it is up to date; log materialization and checks either way."""
        started, synthetic = time.monotonic(), self.manifest.synthetic
        inputs = build.counts_inputs(trains, self.settings)
        record = self.counts_of(session.key)
        reused = record is not None and build.is_current(self.store, record, inputs) and self._is_undamaged(record)
        if record is None or not reused:
            record = build.build_spike_counts(
                self.store,
                documents.counts_folder(self.dataset, self.settings),
                session.key,
                self._packed(session, trains),
                trains,
                self.settings,
                self.log.info,
            )
        elif record.unverified != trains.unverified:  # the same values were read again and verified
            record = record.model_copy(update={"unverified": trains.unverified})
            path = f"{documents.counts_folder(self.dataset, self.settings)}/{session.key}.json"
            write_record(self.store, path, record)
        uri, seconds = self.store.uri(record.file.key), time.monotonic() - started
        pictures = session_raster(self.store, record, synthetic)
        facts = counts_metadata(record, uri, seconds, reused, synthetic, pictures)
        source = names.spike_trains_key(self.dataset)
        event = latest_event(self.context.instance, source, session.key)
        version, made_from = record.file.sha256[:32], trains.file.sha256[:32]
        tags = version_tags(version, build.BINNING_VERSION, source, made_from, event)
        self.log_materialization(names.spike_counts_key(self.dataset), session.key, facts, tags)
        units, tokens = plural(record.stats.n_units, "unit"), plural(record.stats.tokens, "token")
        self.log.info(
            f"{self.dataset.name} {session.key}: {units}, {tokens}"
            + (" (up to date)" if reused else f" in {facts['seconds']:.1f} s")
        )
        self.judge.judge(session.key, SessionEvidence(record, self.store, inputs, self.dataset, trains))

    def _packed(self, session: Session, trains: TrainsRecord) -> build.PackedRecording:
        """Pack what was just read, else what is stored; spike times are free before segments are made."""
        recording, self._read = self._read, None
        if recording is None:
            recording = build.load_recording(self.store, trains)
        row = self.dataset
        return build.pack_recording(
            recording, session.key, self.settings, row.max_session_tokens, row.allow_bin_width, consume=True
        )

    def _check_again(self, session: Session) -> None:
        trains = documents.read_trains_record(self.store, self.dataset, self.settings, session.key)
        record = self.counts_of(session.key)
        if trains is None or record is None:
            raise ConfigurationError(
                f"{session.key} has no spike counts to check yet",
                remedy=f"materialize {self.dataset.key}/spike_trains and spike_counts",
            )
        listed = trains.model_copy(update={"inputs": build.session_inputs(session, self.dataset)})
        inputs = build.counts_inputs(listed, self.settings)
        self.judge.judge(session.key, SessionEvidence(record, self.store, inputs, self.dataset, trains))

    def _is_undamaged(self, record: CountsRecord) -> bool:
        verdict = file_is_as_recorded(SessionEvidence(record, self.store, record.inputs))
        if not verdict.passed:
            self.log.warning(f"{record.file.key}: {verdict.found}; remade from the spike trains")
        return verdict.passed


@dataclass
class AnalysisBatch(_DatasetBatch):
    """The sessions of one run of an analysis."""

    analysis: Analysis

    @property
    def whole(self) -> str:
        """Dataset and analysis."""
        return f"{self.dataset.name} {self.analysis.name}"

    @property
    def assets(self) -> Sequence[dg.AssetKey]:
        """The asset of the analysis."""
        return [names.asset_key(self.dataset, self.analysis)]

    def record_failure(self, key: str, error: Exception) -> None:
        """Store the failure beside those of other kinds of asset."""
        session = next((session for session in self.manifest.sessions if session.key == key), None)
        inputs = self._inputs(session, self._counts(session)) if session else None
        self.store_failure(self.dataset, key, error, inputs or "", self.analysis.name)

    def make(self, key: str) -> None:
        """Make one session's record unless it is current."""
        started, session = time.monotonic(), self.session(key)
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
        tags = version_tags(inputs[:32], self.analysis.version, source, source_version, event)
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
            open_files=lambda: self.open_files(session),
            progress=self.log.info,
            synthetic=self.manifest.synthetic,
        )

    def _counts(self, session: Session) -> CountsRecord | None:
        return None if self.analysis.made_from == "manifest" else self.counts_of(session.key)

    def _inputs(self, session: Session, counts: CountsRecord | None) -> str | None:
        return analysis_inputs(self.analysis, self.dataset, session, counts)
