"""Checks of a whole dataset: its manifest and what was published of it. A function is a check, listed in `registry`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.hub.model import LoadableHub
from neuralpile_dagster.publish.component import component_inputs
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord


@dataclass(frozen=True)
class ManifestEvidence:
    """What the checks of a manifest look at."""

    dataset: Dataset
    manifest: Manifest


@dataclass(frozen=True)
class ComponentEvidence:
    """What the checks of a published component look at."""

    dataset: Dataset
    manifest: Manifest
    records: Mapping[str, CountsRecord]
    failed: Mapping[str, str]
    published: ComponentRecord
    hub: LoadableHub
    repository_name: str
    folder: Path

    @property
    def inputs_now(self) -> str:
        """Hash of what a publication would be made from now."""
        return component_inputs(
            self.dataset,
            self.manifest,
            self.records,
            missing=self.published.missing,
            repository=self.published.repository,
        )


def sessions_expected(dataset: Dataset, manifest: Manifest) -> Verdict:
    """The archive gives as many sessions as the catalog knows."""
    found = sum(not session.vanished for session in manifest.sessions)
    due = dataset.sessions_due
    return Verdict(
        passed=due is None or found == due,
        expected="not stated in the catalog" if due is None else due,
        found=found,
        remedy="compare `files_dropped` with the catalog's rule; update sessions_expected when the archive changed",
        details={"files_dropped": dict(manifest.dropped), "source_version": manifest.version},
    )


def subjects_published(dataset: Dataset, manifest: Manifest) -> Verdict:
    """How many subjects the sessions have, beside the published number; informs, never fails."""
    found = len({session.subject_id for session in manifest.sessions if not session.vanished})
    published = dataset.subjects_published
    differs = published is not None and published != found
    return Verdict(
        passed=True,
        expected="not stated in the catalog" if published is None else published,
        found=found,
        details={"note": "the published number counts the whole source, or the source changed"} if differs else {},
    )


def no_session_vanished(manifest: Manifest) -> Verdict:
    """Every session that was ever listed still is."""
    vanished = [session.session_id for session in manifest.vanished]
    vanished += [f"{s.session_id} of {s.subject_id} (another session has its key now)" for s in manifest.replaced]
    return Verdict(
        passed=not vanished,
        expected="every known session still in the archive",
        found=capped(vanished) or "none",
        remedy="find out why the archive dropped them; their results stay published until you delete their files",
    )


def no_sessions_left_failed(manifest: Manifest, done: Sequence[str], failed: Mapping[str, str]) -> Verdict:
    """Every session of the manifest has its spike counts, and none failed."""
    made = set(done)
    open_keys = [s.key for s in manifest.sessions if s.key not in made and not s.vanished]
    reasons = [f"{key}: {failed.get(key, 'not built yet')}" for key in open_keys]
    return Verdict(
        passed=not open_keys,
        expected=f"{len(made) + len(open_keys)} sessions with spike counts",
        found=f"{len(open_keys)} without: {capped(reasons, 5)}" if open_keys else f"{len(made)} with",
        remedy="backfill the failed partitions of spike_counts after removing the cause",
    )


def tokens_published(dataset: Dataset, record: ComponentRecord) -> Verdict:
    """Our tokens equal those of the published pile."""
    published, found = dataset.tokens_published, record.totals.tokens
    if published is None:
        return Verdict(True, "not stated in the catalog", found)
    difference = found - published
    return Verdict(
        passed=difference == 0,
        expected=published,
        found=found,
        remedy=" ".join(dataset.notes) or "look for missing or added sessions and compare their tokens",
        details={"difference": difference, "difference_percent": round(100 * difference / max(published, 1), 4)},
    )


def no_twin_sessions(records: Mapping[str, CountsRecord]) -> Verdict:
    """No two sessions have as many bins, and as many spikes in each unit: those hold the same spikes."""
    twins: dict[str, list[str]] = defaultdict(list)
    for key, record in records.items():
        twins[record.stats.fingerprint].append(key)
    found = [" = ".join(keys) for keys in twins.values() if len(keys) > 1]
    return Verdict(
        passed=not found,
        expected="no two sessions with equal bins and equal numbers of spikes in every unit",
        found=capped(found, 5) or "no twins",
        remedy="exclude one file of each pair in the dataset's session rule",
    )


def hub_dataset_is_current(published: ComponentRecord, inputs_now: str) -> Verdict:
    """What is published was made from what the store and the catalog say now."""
    return Verdict(
        passed=published.inputs == inputs_now,
        expected=inputs_now[:16],
        found=published.inputs[:16],
        remedy="materialize hub_dataset again: sessions, the catalog row or the manifest changed since",
    )
