"""Where each dataset stands, read from the store's records; the UI's overview and the terminal show the same."""

from __future__ import annotations

from dataclasses import dataclass

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration import locations
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, read_record


@dataclass(frozen=True)
class DatasetStatus:
    """One dataset's standing; ``known`` is None when it has no manifest yet. Tokens are of the sessions done."""

    dataset: Dataset
    known: int | None
    done: int
    failed: dict[str, str]
    tokens: int
    published_tokens: int | None

    @property
    def to_do(self) -> int:
        """Sessions neither done nor failed."""
        return (self.known or 0) - self.done - len(self.failed)


def done_records(store: Store, dataset: Dataset, settings: Settings, manifest: Manifest) -> dict[str, CountsRecord]:
    """The finished spike counts by partition key, in the manifest's order.

    A session whose last try failed is not among them, even where older counts
    (or counts that failed a blocking check) are there.
    """
    folder = locations.counts_folder(dataset, settings)
    made = set(store.keys(folder))
    failed = locations.read_failures(store, dataset, settings)
    records = {}
    for session in manifest.sessions:
        if f"{folder}/{session.key}.json" in made and session.key not in failed:
            record = locations.read_counts_record(store, dataset, settings, session.key)
            if record is not None:
                records[session.key] = record
    return records


def dataset_status(store: Store, dataset: Dataset, settings: Settings) -> DatasetStatus:
    """Read one dataset's standing."""
    manifest = read_record(store, locations.manifest_path(dataset), Manifest)
    if manifest is None:
        return DatasetStatus(dataset, None, 0, {}, 0, None)
    records = done_records(store, dataset, settings, manifest)
    failures = locations.read_failures(store, dataset, settings)
    published = locations.read_published(store, dataset, settings)
    return DatasetStatus(
        dataset=dataset,
        known=len(manifest.sessions),
        done=len(records),
        failed={key: failure.message for key, failure in failures.items()},
        tokens=sum(record.stats.tokens for record in records.values()),
        published_tokens=published.totals.tokens if published else None,
    )
