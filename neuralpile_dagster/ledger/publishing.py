"""Publish the current plan's pile, and find the spike times that are to be published with a component.

Gathers the inputs of `publish` and calls the hub. The layout of a repository belongs in `publish`, the upload in `hub`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import pyarrow as pa

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile, as_published
from neuralpile_dagster.errors import HubError, MergeError
from neuralpile_dagster.hub import Hub, Publication
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.splits import keep_earlier_splits, published_splits
from neuralpile_dagster.merge.model import PileShard, PlanRecord
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card_parts import cite_dataset, cite_repository
from neuralpile_dagster.publish.configs import STREAMED, hub_tables
from neuralpile_dagster.publish.pile import write_pile
from neuralpile_dagster.publish.pile_card import PileComponent
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import (
    Citation,
    ComponentCitation,
    ComponentRecord,
    ComponentSession,
    CountsRecord,
    PileRecord,
    SpikesRecord,
    TrainsRecord,
)
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record, write_record


@dataclass(frozen=True)
class PublishedPile:
    """Result of publishing the pile."""

    plan: PlanRecord
    shards: tuple[PileShard, ...]
    record: PileRecord
    publication: Publication
    synthetic: bool
    left_out: dict[str, str]


def publish_pile(
    store: Store, pile: Pile, settings: Settings, hub: Hub, datasets: dict[str, Dataset], progress: Progress
) -> PublishedPile:
    """Lay out and publish the current plan's pile; ``datasets`` are its members by repository name.

    Raises
    ------
    MergeError
        A shard of the plan is not made yet.
    HubError
        See `Hub.publish`.
    """
    current = piles.require_current(store, pile, settings)
    planned = load_plan(store, piles.plan_path(pile, settings, current.plan_id))
    plan = planned.record
    shards = _require_shards(store, pile, settings, plan)
    records: dict[str, ComponentRecord | None] = {
        name: documents.read_published(store, dataset, settings) for name, dataset in datasets.items()
    }

    @cache
    def tables_of(repository: str) -> Callable[[str], Iterable[pa.Table]]:
        tables = hub_tables(hub, repository)
        small = cache(lambda config: tuple(tables(config)))  # read once, however many components are in a repository
        return lambda config: tables(config) if config in STREAMED else small(config)

    components = []
    for source in plan.sources:
        repository = current.repositories[source.name]
        # a repository of another owner may have the name of one of ours
        published = records.get(source.name) if repository == source.name else None
        if published is None:
            citation = cite_repository(source.name, repository, hub.page(repository))
        else:
            citation = _citation(store, datasets[source.name], published)
        components.append(
            PileComponent(
                name=source.name,
                rows=source.totals.rows,
                sessions=source.totals.sessions,
                tokens=source.totals.tokens,
                record=published,
                tables=tables_of(repository),
                citation=citation,
                token_counts=_token_counts(store, plan, published),
                splits_left_out=current.splits_left_out.get(repository, ()),
            )
        )
    name = piles.repository_name(pile, settings)
    keep_earlier_splits(store, hub, pile, settings, plan, progress)
    folder = documents.staging_folder(settings, name)
    record = write_pile(
        folder,
        store,
        plan,
        shards,
        components,
        repository=f"{settings.namespace}/{name}",
        title=pile.title,
        as_published=as_published(datasets.values()),
        annotations=piles.annotations_digest({c.name: c.record for c in components if c.record is not None}),
        splits=published_splits(store, hub, settings, datasets, current.repositories, planned),
        progress=progress,
    )
    publication = hub.publish(name, folder, progress)
    write_record(store, piles.published_path(pile, settings), record)
    return PublishedPile(plan, shards, record, publication, current.synthetic, current.left_out)


def _require_shards(store: Store, pile: Pile, settings: Settings, plan: PlanRecord) -> tuple[PileShard, ...]:
    folder = piles.shards_folder(pile, settings, plan.plan_id)
    found = {shard.name: read_record(store, f"{folder}/{shard.name}.json", PileShard) for shard in plan.shards}
    missing = [name for name, shard in found.items() if shard is None]
    if missing:
        raise MergeError(
            f"the pile {plan.plan_id} is not complete",
            found=f"{len(missing)} of {len(found)} shards missing, e.g. {missing[0]}",
            expected="all shards of the current plan",
            remedy=f"materialize these partitions of {pile.key}/shards (older plans' partitions can be left alone)",
        )
    return tuple(shard for shard in found.values() if shard is not None)


def _citation(store: Store, dataset: Dataset, published: ComponentRecord) -> ComponentCitation:
    """Citation from the manifest; without its DOI and address when it lists another version than was published."""
    manifest = read_record(store, documents.manifest_path(dataset), Manifest)
    stated = manifest.citation if manifest else Citation()
    if manifest is None or manifest.version != published.source_version:
        stated = stated.model_copy(update={"doi": None, "url": None})
    return cite_dataset(dataset, stated, published.source_version)


def _token_counts(
    store: Store, plan: PlanRecord, record: ComponentRecord | None
) -> dict[tuple[str, str], tuple[int, ...]]:
    """Values of the tokens of a component's sessions: of those whose rows, in the store or on the hub, are planned."""
    if record is None:
        return {}
    planned = {file.sha256 for file in plan.files}
    from_hub = {shard.sha256 for shard in record.shards} <= planned
    sessions = [session for session in record.sessions if from_hub or session.counts.sha256 in planned]
    counts = map_items(store, partial(_token_counts_of_session, store), sessions)
    return {(s.subject_id, s.session_id): values for s, values in zip(sessions, counts, strict=True) if values}


def _token_counts_of_session(store: Store, session: ComponentSession) -> tuple[int, ...]:
    """Of a session that an earlier version published, from its own record; nothing when it was made again since."""
    if session.token_counts:
        return session.token_counts
    record = documents.read_published_counts(store, session)
    return record.stats.histogram if record else ()


@dataclass(frozen=True)
class SpikeTimes:
    """Spike times that are to be published with a component: the record of their repository, and of each session."""

    record: SpikesRecord
    trains: Mapping[str, TrainsRecord]


def spike_times_wanted(
    store: Store,
    dataset: Dataset,
    settings: Settings,
    hub: Hub,
    records: Mapping[str, CountsRecord],
    asked: bool | None,
) -> SpikeTimes | None:
    """Spike times of the sessions to publish, if they are to be published: what their counts were made from.

    They are where the catalog's row says so, else where a person asked (True or False), else where they were last time.

    Raises
    ------
    HubError
        A session's spike trains are not those that were binned, no session has any, or the repository is another's.
    """
    if asked is None:
        published = documents.read_published(store, dataset, settings)
        asked = published is not None and published.spikes is not None
    if not records or not (dataset.publish_spike_times or asked):
        return None
    found = map_items(store, lambda key: documents.read_trains_record(store, dataset, settings, key), records)
    stored = dict(zip(records, found, strict=True))
    trains = {key: one for key, one in stored.items() if one and one.inputs == records[key].trains_inputs}
    if other := [key for key in records if key not in trains]:
        raise HubError(
            f"the spike times of {dataset.name} cannot be published",
            found=f"{len(other):,} of {len(records):,} sessions whose spike trains are gone or were read again, "
            f"e.g. {other[0]}",
            expected="the spike trains that the counts were made from",
            remedy=f"materialize {dataset.key}/spike_trains and {dataset.key}/spike_counts of these sessions again",
        )
    name = documents.spikes_name(dataset, settings)
    if any(file.path.startswith("data/") for file in hub.files(name)):
        raise HubError(
            f"the repository {name} holds rows of spike counts",
            expected=f"none, or the spike times of {dataset.name}",
            remedy="give one of the two datasets another name, or do not ask for spike times (publish_spike_times)",
        )
    with_times = {key: one for key, one in trains.items() if one.n_spikes is not None}
    if not with_times:
        raise HubError(
            f"{dataset.name} has no spike times to publish",
            found="sessions whose files hold ready-made counts alone",
            expected="at least one session with spike times",
            remedy="do not ask for them (publish_spike_times)",
        )
    record = SpikesRecord(
        repository=f"{settings.namespace}/{name}",
        url=hub.page(name),
        sessions=len(with_times),
        spikes=sum(one.n_spikes or 0 for one in with_times.values()),
        bytes=sum(one.file.size for one in with_times.values()),
        bin_width_s=records[next(iter(with_times))].stats.bin_width_s,
    )
    return SpikeTimes(record, with_times)
