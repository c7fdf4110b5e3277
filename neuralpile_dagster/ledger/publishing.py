"""Publish the current plan's pile: gathers the inputs of `publish` and calls the hub.

The layout of the repository belongs in `publish`, the upload in `hub`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile, as_published
from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.hub.model import Hub, Publication
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.splits import keep_earlier_splits, published_splits
from neuralpile_dagster.merge.model import PlanRecord
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.merge.shards import PileShard
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.citations import cite_dataset, cite_repository
from neuralpile_dagster.publish.hub_tables import STREAMED, hub_tables
from neuralpile_dagster.publish.pile import PileSettings, write_pile
from neuralpile_dagster.publish.pile_card import PileComponent
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import (
    Citation,
    ComponentCitation,
    ComponentRecord,
    ComponentSession,
    CountsRecord,
    PileRecord,
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


def _made_shards(store: Store, pile: Pile, settings: Settings, plan: PlanRecord) -> tuple[PileShard, ...]:
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
    counts = map_items(store, lambda session: session.token_counts or _of_counts_record(store, session), sessions)
    return {(s.subject_id, s.session_id): values for s, values in zip(sessions, counts, strict=True) if values}


def _of_counts_record(store: Store, session: ComponentSession) -> tuple[int, ...]:
    """Of a session that an earlier version published; nothing when it was made again since."""
    record = read_record(store, f"{session.counts.key.removesuffix('.parquet')}.json", CountsRecord)
    return record.stats.histogram if record is not None and record.file.sha256 == session.counts.sha256 else ()


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
    shards = _made_shards(store, pile, settings, plan)
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
        shards,
        components,
        PileSettings(
            plan.digest,
            plan.seed,
            plan.split_by,
            plan.test_size,
            plan.rules,
            piles.annotations_digest({c.name: c.record for c in components if c.record is not None}),
            title=pile.title,
            as_published=as_published(datasets.values()),
        ),
        repository=f"{settings.namespace}/{name}",
        splits=published_splits(store, hub, settings, datasets, current.repositories, planned),
        progress=progress,
    )
    publication = hub.publish(name, folder, progress)
    write_record(store, piles.published_path(pile, settings), record)
    return PublishedPile(plan, shards, record, publication, current.synthetic, current.left_out)
