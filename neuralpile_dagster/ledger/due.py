"""What is missing or out of date of a dataset, of its analyses and of a pile, decided by our own hashes of inputs.

Dagster's staleness ignores edges with 100 or more partitions, and knows nothing of source digests or settings; records
do. The command line, the checks and the automation sensor all use this module.

What an analysis is, and whether one session's record is up to date, belongs in `analyses`; what is due of all that is
made of a pile, in `status`; making things, in `session`, `publish` and `merge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import (
    ANNOTATIONS,
    UNIT_ORDER,
    Analysis,
    analyses_of,
    analysis_inputs,
    is_current,
    read_analysis,
    read_annotations,
    read_unit_orders,
)
from neuralpile_dagster.ledger.documents import done_records
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import PlanRecord
from neuralpile_dagster.publish.annotations import annotations_digest, matching, matching_orders, order_totals
from neuralpile_dagster.publish.component import component_inputs, publishable
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import ComponentRecord, CountsRecord
from neuralpile_dagster.session import build
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record

_OUT_OF_DATE = "out of date: the archive lists other files than were read, or the reader changed since"


@dataclass(frozen=True)
class AnalysisStanding:
    """State of one analysis of a dataset; ``due`` maps keys to the hash of their inputs, ``failed`` to reasons.

    Sessions whose upstream asset is missing are in neither. ``on_request`` are made only when a person asks.
    """

    analysis: Analysis
    done: int
    due: dict[str, str]
    failed: dict[str, str]
    on_request: frozenset[str] = frozenset()


def analysis_standing(
    store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, manifest: Manifest
) -> AnalysisStanding:
    """Read the state of an analysis; failures with unchanged inputs are not due, transient ones are after an hour."""
    sessions = [session for session in manifest.sessions if not session.vanished]
    failures = documents.read_failures(store, dataset, settings, analysis.name)

    def look(session: Session) -> tuple[str | None, bool, bool]:
        counts = None
        if analysis.made_from == "spike_counts":
            counts = documents.read_counts_record(store, dataset, settings, session.key)
        inputs = analysis_inputs(analysis, dataset, session, counts)
        record = read_analysis(store, dataset, settings, analysis, session.key)
        asked = record is None and not _is_automatic(store, dataset, settings, analysis, session)
        return inputs, is_current(store, record, inputs), asked

    found = dict(zip((session.key for session in sessions), map_items(store, look, sessions), strict=True))
    states = {key: (inputs, current) for key, (inputs, current, _) in found.items()}
    done, due, failed = documents.by_state(states, failures)
    on_request = frozenset(key for key in due if found[key][2] and key not in failed)
    return AnalysisStanding(
        analysis, done, {key: inputs for key, inputs in due.items() if key not in on_request}, failed, on_request
    )


def _is_automatic(store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, session: Session) -> bool:
    """Whether a session that was never analysed is due without a person who asks."""
    if not analysis.on_request:
        return True
    trains = documents.read_trains_record(store, dataset, settings, session.key)
    return trains is not None and trains.annotate


@dataclass(frozen=True)
class DatasetDue:
    """Missing or stale parts of a dataset.

    Attributes
    ----------
    sessions : dict of str to str
        Keys of sessions to make, each with the hash of its inputs; those that failed with the same inputs are not
        among them, and none is for a while after the archive was away.
    publish : str or None
        Hash of the inputs of the publication that is due, or None.
    analyses : dict of str to dict
        The same as ``sessions``, by name of the analysis; publishing does not wait for them.
    why : str
        What comes next, or why nothing does, in words for the operator.
    """

    sessions: dict[str, str]
    publish: str | None
    analyses: dict[str, dict[str, str]] = field(default_factory=dict)
    why: str = ""


def session_is_current(store: Store, dataset: Dataset, settings: Settings, session: Session) -> bool:
    """Whether a session's spike trains and counts are up to date with its files, the code and the settings."""
    trains = documents.read_trains_record(store, dataset, settings, session.key)
    if trains is None or not build.is_current(store, trains, build.session_inputs(session, dataset)):
        return False
    counts = documents.read_counts_record(store, dataset, settings, session.key)
    return build.is_current(store, counts, build.counts_inputs(trains, settings))


def current_sessions(store: Store, dataset: Dataset, settings: Settings, sessions: Sequence[Session]) -> set[str]:
    """Keys of the sessions that are up to date; see `session_is_current`."""
    found = map_items(store, lambda session: session_is_current(store, dataset, settings, session), sessions)
    return {session.key for session, current in zip(sessions, found, strict=True) if current}


def publishable_records(
    store: Store, dataset: Dataset, settings: Settings, manifest: Manifest
) -> tuple[dict[str, CountsRecord], dict[str, str]]:
    """Records of the sessions to publish, by key in the manifest's order, and reasons for the others.

    Counts of other archive files than the manifest lists now are not published:
    the files named beside them would not be those that were read. A session
    that vanished from the archive keeps its results.
    """
    records = done_records(store, dataset, settings, manifest)
    reasons = {key: failure.message for key, failure in documents.read_failures(store, dataset, settings).items()}
    for session in manifest.sessions:
        record = records.get(session.key)
        listed = build.session_inputs(session, dataset)
        if record is not None and not session.vanished and record.trains_inputs != listed:
            del records[session.key]
            reasons[session.key] = _OUT_OF_DATE
    return records, reasons


def dataset_due(store: Store, dataset: Dataset, settings: Settings, min_session_share: float) -> DatasetDue:
    """Missing or stale parts of a dataset; none while it has no manifest."""
    manifest = read_record(store, documents.manifest_path(dataset), Manifest)
    if manifest is None:
        return DatasetDue(
            {}, None, why=f"not started: launch the job build_{dataset.key}, or materialize {dataset.key}/manifest"
        )
    analyses = {
        row.name: due
        for row in analyses_of(dataset)
        if (due := analysis_standing(store, dataset, settings, row, manifest).due)
    }
    failures = documents.read_failures(store, dataset, settings)
    inputs_of = {s.key: build.session_inputs(s, dataset) for s in manifest.sessions if not s.vanished}
    if any(failure.stopped_batch and failure.is_recent for failure in failures.values()):
        # the server was away, for sessions that were not attempted as well
        return DatasetDue({}, None, analyses, "waiting for an hour: the archive or the store did not respond")
    waiting = {key for key, inputs in inputs_of.items() if key in failures and failures[key].waits(inputs)}
    makable = [session for session in manifest.sessions if not session.vanished and session.key not in waiting]
    current = current_sessions(store, dataset, settings, makable)
    sessions = {s.key: inputs_of[s.key] for s in makable if s.key not in current}
    if sessions:
        return DatasetDue(sessions, None, analyses, f"{len(sessions):,} of {plural(len(inputs_of), 'session')} to make")
    records, reasons = publishable_records(store, dataset, settings, manifest)
    share = Fraction(len(records), max(len([s for s in manifest.sessions if not s.vanished]), 1))
    wait = _why_waiting(len(waiting), len(inputs_of))
    if not records or share < Fraction(str(min_session_share)):
        again = " again" if documents.read_published(store, dataset, settings) else ""
        return DatasetDue({}, None, analyses, f"not published{again}: {wait}" if wait else "no session to publish")
    missing = publishable(manifest, list(records), reasons, min_session_share)
    repository = f"{settings.namespace}/{documents.repository_name(dataset, settings)}"
    inputs = component_inputs(dataset, manifest, records, missing=missing, repository=repository)
    published = documents.read_published(store, dataset, settings)
    if published is None or published.inputs != inputs:
        return DatasetDue({}, inputs, analyses, "to publish")
    annotations = matching(read_annotations(store, dataset, settings, records), records)
    digest = annotations_digest(dataset, annotations)
    # those still to make come with them: publishing waits for none, but is not repeated for each batch of them
    if ANNOTATIONS.name not in analyses and digest != (published.annotations.digest if published.annotations else ""):
        both = hashlib.sha256(f"{inputs}\n{digest}".encode()).hexdigest()
        return DatasetDue({}, both, analyses, "to publish with its annotations")
    orders = order_totals(matching_orders(read_unit_orders(store, dataset, settings, records), records))
    if UNIT_ORDER.name not in analyses and orders != published.unit_order:
        with_order = hashlib.sha256(f"{inputs}\n{digest}\norder {orders and orders.digest}".encode()).hexdigest()
        return DatasetDue({}, with_order, analyses, "to publish with its unit order")
    if dataset.publish_spike_times and published.spikes is None:
        with_spikes = hashlib.sha256(f"{inputs}\n{digest}\nspike times".encode()).hexdigest()
        return DatasetDue({}, with_spikes, analyses, "to publish with its spike times")
    return DatasetDue({}, None, analyses, f"published without some sessions: {wait}" if wait else "up to date")


def _why_waiting(waiting: int, listed: int) -> str:
    if not waiting:
        return ""
    return (
        f"{waiting:,} of {plural(listed, 'session')} failed and wait until their file, the code or a setting changes "
        "(after a failed connection: an hour); the job retry_failed tries them now"
    )


@dataclass(frozen=True)
class PileDue:
    """Missing or stale parts of a pile: its plan, shards, or publication; ``inputs`` is the hash of their inputs."""

    plan: bool
    shards: tuple[str, ...]
    publish: bool
    inputs: str


def pile_due(store: Store, pile: Pile, datasets: Sequence[Dataset], settings: Settings) -> PileDue | None:
    """Missing or stale parts of a pile; None when it is up to date or there is nothing to merge."""
    published = published_components(store, pile.members(datasets), settings)
    if not published:
        return None
    inputs = piles.inputs_digest(published)
    current = read_record(store, piles.current_path(pile, settings), piles.CurrentPlan)
    if current is None or current.inputs != inputs or current.stated != pile.planned_with:
        return PileDue(True, (), False, inputs)
    plan = read_record(store, f"{piles.plan_path(pile, settings, current.plan_id)}.json", PlanRecord)
    if plan is None:
        return PileDue(True, (), False, inputs)
    if lacking := missing_shards(store, pile, settings, plan):
        return PileDue(False, lacking, False, plan.digest)
    done = piles.read_published(store, pile, settings)
    name = piles.repository_name(pile, settings)
    if done is None or done.plan != plan.digest:
        return PileDue(False, (), True, plan.digest)
    if done.repository.rpartition("/")[2] != name:  # the pile was given another name
        return PileDue(False, (), True, hashlib.sha256(f"{plan.digest}\n{name}".encode()).hexdigest())
    annotations = _annotations_of(plan, current, published)
    if done.annotations != annotations:
        return PileDue(False, (), True, hashlib.sha256(f"{plan.digest}\n{annotations}".encode()).hexdigest())
    return None


def missing_shards(store: Store, pile: Pile, settings: Settings, plan: PlanRecord) -> tuple[str, ...]:
    """Names of a plan's shards that the store does not have, whole."""
    made = piles.made_shards(store, pile, settings, plan)
    return tuple(shard.name for shard in plan.shards if shard.name not in made)


def _annotations_of(plan: PlanRecord, current: piles.CurrentPlan, published: Mapping[str, ComponentRecord]) -> str:
    """Hash of the annotations that a pile of this plan is published with."""
    names = [source.name for source in plan.sources]
    ours = [name for name in names if name in published and current.repositories.get(name, name) == name]
    return piles.annotations_digest({name: published[name] for name in ours})


def published_components(store: Store, datasets: Sequence[Dataset], settings: Settings) -> dict[str, ComponentRecord]:
    """Records of published components, by repository name, in catalog order."""
    found = {}
    for dataset in datasets:
        record = documents.read_published(store, dataset, settings)
        if record is not None:
            found[documents.repository_name(dataset, settings)] = record
    return found
