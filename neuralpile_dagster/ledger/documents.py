"""Store keys and records of a dataset: manifest, results, failures, publication (docs/architecture.md has the layout).

Reads and writes documents; deciding what is out of date belongs in `due`, the pile's documents in `piles`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.errors import ConfigurationError, TransientError
from neuralpile_dagster.ledger.kinds import MANIFEST, SPIKE_COUNTS, SPIKE_TRAINS
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, ComponentSession, CountsRecord, Model, TrainsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record, write_record

STOPPED = "the last batch stopped, because several sessions in a row failed with transient errors (see the failures)"
"""Why sessions are left to do that no batch has attempted."""
TRANSIENT_WAIT = timedelta(hours=1)
"""A session that failed with a transient error is retried after this long."""


class FailureRecord(Model):
    """Reason of the last failed attempt at a session, or at a partition of what is made of a pile.

    ``session`` is its key, ``inputs`` the hash of its inputs.
    ``stopped_batch``: it was one of several transient errors in a row, and its batch left the rest to do.
    """

    session: str
    error: str
    message: str
    transient: bool
    inputs: str
    run_id: str
    at: datetime
    stopped_batch: bool = False

    def waits(self, inputs: str) -> bool:
        """Whether it is not retried yet: its inputs are unchanged, or a transient error is recent."""
        return self.inputs == inputs and not (self.transient and not self.is_recent)

    @property
    def is_recent(self) -> bool:
        """Whether it is too early to try again what failed with a transient error."""
        return datetime.now(UTC) - self.at <= TRANSIENT_WAIT


def manifest_path(dataset: Dataset) -> str:
    """Store key of the manifest."""
    return f"{dataset.key}/{MANIFEST.name}.json"


def published_path(dataset: Dataset, settings: Settings) -> str:
    """Store key of the record of the last publication."""
    return f"{dataset.key}/published{settings.variant}.json"


def trains_folder(dataset: Dataset, settings: Settings) -> str:
    """Store prefix of the spike trains, which do not depend on how they are binned."""
    return SPIKE_TRAINS.folder(dataset, settings)


def counts_folder(dataset: Dataset, settings: Settings) -> str:
    """Store prefix of the spike counts."""
    return SPIKE_COUNTS.folder(dataset, settings)


def _failures_folder(owner: Dataset | Pile, settings: Settings, analysis: str) -> str:
    return f"{owner.key}/failures{f'-{analysis}' if analysis else ''}{settings.variant}"


def read_manifest(store: Store, dataset: Dataset) -> Manifest:
    """The dataset's manifest; raises `ConfigurationError` when it is missing."""
    manifest = read_record(store, manifest_path(dataset), Manifest)
    if manifest is None:
        raise ConfigurationError(
            f"{dataset.name} has no manifest yet",
            found=f"nothing at {store.uri(manifest_path(dataset))}",
            remedy=f"materialize {dataset.key}/manifest, or run: neuralpile build {dataset.name}",
        )
    return manifest


def read_trains_record(store: Store, dataset: Dataset, settings: Settings, key: str) -> TrainsRecord | None:
    """The record of a session's spike trains."""
    return read_record(store, f"{trains_folder(dataset, settings)}/{key}.json", TrainsRecord)


def recorded_ids(store: Store, dataset: Dataset, settings: Settings, key: str) -> tuple[str, str] | None:
    """Subject id and session id of the spike trains that are stored under a key; None when there are none."""
    record = read_trains_record(store, dataset, settings, key)
    return None if record is None else (record.subject_id, record.session_id)


def read_counts_record(store: Store, dataset: Dataset, settings: Settings, key: str) -> CountsRecord | None:
    """The record of a session's spike counts."""
    return read_record(store, f"{counts_folder(dataset, settings)}/{key}.json", CountsRecord)


def read_published_counts(store: Store, session: ComponentSession) -> CountsRecord | None:
    """The record of the counts that a session was published with; None when they were made again since."""
    record = read_record(store, f"{session.counts.key.removesuffix('.parquet')}.json", CountsRecord)
    return record if record is not None and record.file.sha256 == session.counts.sha256 else None


def read_published(store: Store, dataset: Dataset, settings: Settings) -> ComponentRecord | None:
    """Record of a dataset's last publication, or None."""
    return read_record(store, published_path(dataset, settings), ComponentRecord)


def require_published(store: Store, dataset: Dataset, settings: Settings) -> ComponentRecord:
    """Record of a dataset's last publication; raises `ConfigurationError` when there is none."""
    published = read_published(store, dataset, settings)
    if published is None:
        raise ConfigurationError(
            f"{dataset.name} is not published yet",
            remedy=f"materialize {dataset.key}/hub_dataset, or run: neuralpile build {dataset.name}",
        )
    return published


def record_failure(
    store: Store,
    owner: Dataset | Pile,
    settings: Settings,
    key: str,
    error: Exception,
    inputs: str,
    run_id: str,
    analysis: str = "",
    *,
    stopped_batch: bool = False,
) -> FailureRecord:
    """Store the reason of a session's failure, of a build or of an ``analysis``; or of what is made of a pile."""
    failure = FailureRecord(
        session=key,
        error=type(error).__name__,
        message=str(error),
        transient=isinstance(error, TransientError),
        inputs=inputs,
        run_id=run_id,
        at=datetime.now(UTC),
        stopped_batch=stopped_batch,
    )
    write_record(store, f"{_failures_folder(owner, settings, analysis)}/{key}.json", failure)
    return failure


def forget_failure(store: Store, owner: Dataset | Pile, settings: Settings, key: str, analysis: str = "") -> None:
    """Remove the failure of a session, or partition, after it succeeded."""
    store.delete(f"{_failures_folder(owner, settings, analysis)}/{key}.json")


def read_failures(
    store: Store, owner: Dataset | Pile, settings: Settings, analysis: str = ""
) -> dict[str, FailureRecord]:
    """All sessions (or partitions of what is made of a pile) whose last attempt failed, by key."""
    paths = store.keys(_failures_folder(owner, settings, analysis))
    failures = map_items(store, lambda path: read_record(store, path, FailureRecord), paths)
    return {failure.session: failure for failure in failures if failure is not None}


def by_state(
    found: Mapping[str, tuple[str | None, bool]], failures: Mapping[str, FailureRecord]
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Sort sessions (or partitions) by what is known of each: the hash of its inputs, and whether it is up to date.

    Returns
    -------
    done : int
    due : dict of str to str
        Inputs of those to make, by key; those whose inputs are not known are in none of the three.
    failed : dict of str to str
        Reasons of those that failed with these inputs; after a transient error they are due again after a while.
    """
    done, due, failed = 0, {}, {}
    for key, (inputs, current) in found.items():
        failure = failures.get(key)
        if current:
            done += 1
        elif inputs is not None:
            if failure is not None and failure.inputs == inputs:
                failed[key] = failure.message
            if failure is None or not failure.waits(inputs):
                due[key] = inputs
    return done, due, failed


def done_records(store: Store, dataset: Dataset, settings: Settings, manifest: Manifest) -> dict[str, CountsRecord]:
    """The finished spike counts by partition key, in the manifest's order.

    Sessions whose last attempt failed are left out, even if older counts (or
    counts that failed a blocking check) are stored.
    """
    folder = counts_folder(dataset, settings)
    made = set(store.keys(folder))
    failed = read_failures(store, dataset, settings)
    keys = [s.key for s in manifest.sessions if f"{folder}/{s.key}.json" in made and s.key not in failed]
    records = map_items(store, lambda key: read_counts_record(store, dataset, settings, key), keys)
    return {key: record for key, record in zip(keys, records, strict=True) if record is not None}


def manifest_digest(manifest: Manifest) -> str:
    """sha256 of a manifest's sessions, independent of when it was listed."""
    content = manifest.model_dump_json(include={"dataset", "source_id", "version", "sessions"})
    return hashlib.sha256(content.encode()).hexdigest()


def staging_folder(settings: Settings, repository: str) -> Path:
    """Local folder in which a repository is prepared for publishing."""
    return settings.home / "staging" / repository


def repository_name(owner: Dataset | Pile, settings: Settings) -> str:
    """Name of a component's repository, or of a pile's; settings that differ from the defaults are part of it."""
    return f"{settings.pile_name if owner.name == NEURAL_PILE.name else owner.name}{settings.variant}"


def spikes_name(dataset: Dataset, settings: Settings) -> str:
    """Name of the repository of a dataset's spike times."""
    return f"{repository_name(dataset, settings)}-spikes"
