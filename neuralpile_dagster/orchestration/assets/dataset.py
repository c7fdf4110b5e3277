"""Assets of a dataset, ``<dataset>/*``: its manifest, what is made of each session, and the published component.

Wiring only: listing is in `archives`, the session rule in `recordings.manifest`, the loops over sessions in
`batches.sessions`, reading and binning in `session`, the rows of analyses in `ledger.analyses`, a repository's files in
`publish`, the upload in `hub`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from neuralpile_dagster.archives.model import Access
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import capped
from neuralpile_dagster.ledger import documents, kinds
from neuralpile_dagster.ledger.analyses import Analysis, read_annotations, read_unit_orders
from neuralpile_dagster.ledger.due import publishable_records
from neuralpile_dagster.ledger.kinds import AssetKind
from neuralpile_dagster.ledger.publishing import spike_times_wanted
from neuralpile_dagster.ledger.status import partitions_to_keep, session_states
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration import checks, names
from neuralpile_dagster.orchestration.batches.base import PartitionBatch
from neuralpile_dagster.orchestration.batches.sessions import AnalysisBatch, SessionBatch
from neuralpile_dagster.orchestration.describe import (
    ARCHIVE_POOL,
    HUB_POOL,
    asset_facts,
    batch_size,
    freshness_of_manifest,
    pool_of,
    session_pool,
    signed,
)
from neuralpile_dagster.orchestration.metadata import folder_rasters
from neuralpile_dagster.orchestration.metadata.dataset import component_metadata, manifest_metadata
from neuralpile_dagster.orchestration.progress import failing_in_words, forward_wait_warnings, progress_of
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.publish.component import publishable, write_component
from neuralpile_dagster.publish.spikes import write_spikes
from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions
from neuralpile_dagster.store import read_record, write_record


class SessionConfig(dg.Config):
    """Run configuration of assets that are partitioned by session."""

    access: Access = Field(
        default="ranges",
        description="ranges: read only the spikes, by ranged requests. "
        "download: fetch whole files first, verify their digests, keep them in a cache.",
    )


class PublishConfig(dg.Config):
    """Run configuration of ``hub_dataset``."""

    min_session_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Least share of the manifest's sessions that must have spike counts, from 0 to 1. "
        "With less than 1 the card names the sessions that are missing.",
    )
    publish_spike_times: bool | None = Field(
        default=None,
        description="Whether the spike times are published too, in a repository of their own. By default as the "
        "catalog's row says, or as in the last publication. A row that says so wins.",
    )


def manifest_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Asset that lists the archive's files, chooses the sessions and registers their partition keys."""
    key = names.manifest_key(dataset)

    @dg.asset(
        key=key,
        pool=ARCHIVE_POOL,
        freshness_policy=freshness_of_manifest(dataset),
        **asset_facts(dataset, kinds.MANIFEST, manifest_asset),
    )
    @signed
    def manifest(context: dg.AssetExecutionContext, instance: Instance) -> dg.MaterializeResult:
        with failing_in_words(), forward_wait_warnings(context):
            started, store, tell = time.monotonic(), instance.open_store(), progress_of(context)
            path = documents.manifest_path(dataset)
            tell(f"{dataset.name}: listing the files of {dataset.source.label}")
            listing = instance.open_archive(dataset.source).list_files(dataset.source)
            for note in listing.notes:
                context.log.warning(f"{dataset.name}: {note}")
            recorded = partial(documents.recorded_ids, store, dataset, instance.settings)
            made = choose_sessions(dataset, listing, read_record(store, path, Manifest), recorded)
            write_record(store, path, made)
            partitions = names.session_partitions(dataset)
            keep = partitions_to_keep(store, dataset, instance.settings, made)
            keys = [session.key for session in made.sessions if session.key in keep]
            new = names.register(context.instance, partitions, keys)
            gone = names.unregister(context.instance, partitions, keep)
            tell(f"{dataset.name}: {plural(len(made.sessions), 'session')}, {len(new)} of them new")
            if gone:
                context.log.warning(
                    f"{dataset.name}: removed {plural(len(gone), 'partition')} of no session, or of one that vanished "
                    f"before anything was made of it: {capped(gone)}; nothing stored was deleted"
                )
            states = session_states(store, dataset, instance.settings, made)
            return dg.MaterializeResult(
                metadata=manifest_metadata(
                    dataset, made, len(new), store.uri(path), time.monotonic() - started, states
                ),
                data_version=dg.DataVersion(documents.manifest_digest(made)),
            )

    return manifest


def sessions_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Multi-asset that reads, bins and stores a dataset's sessions."""
    made_from = {kinds.SPIKE_TRAINS: names.manifest_key(dataset), kinds.SPIKE_COUNTS: names.spike_trains_key(dataset)}
    pool, judged = session_pool(dataset), checks.specs(dataset, "spike_counts")
    return _partitioned(dataset, "sessions", made_from, pool, sessions_asset, SessionBatch, judged)


def analysis_asset(dataset: Dataset, analysis: Analysis) -> dg.AssetsDefinition:
    """Multi-asset that makes an analysis of a dataset's sessions."""
    made_from: dict[AssetKind, dg.AssetKey] = {analysis: names.upstream_key(dataset, analysis)}
    batch = partial(AnalysisBatch, analysis=analysis)
    return _partitioned(dataset, analysis.name, made_from, pool_of(analysis, dataset), analysis_asset, batch)


def _partitioned(
    dataset: Dataset,
    name: str,
    made_from: Mapping[AssetKind, dg.AssetKey],
    pool: str | None,
    factory: Callable[..., Any],
    batch: Callable[..., PartitionBatch],
    check_specs: Sequence[dg.AssetCheckSpec] = (),
) -> dg.AssetsDefinition:
    """Multi-asset of kinds that are made session by session, in a ``batch``, each from what it maps to."""

    @dg.multi_asset(
        name=f"{dataset.key}__{name}",
        specs=[
            dg.AssetSpec(
                names.asset_key(dataset, kind), deps=[source], skippable=True, **asset_facts(dataset, kind, factory)
            )
            for kind, source in made_from.items()
        ],
        check_specs=check_specs,
        partitions_def=names.session_partitions(dataset),
        can_subset=len(made_from) > 1,
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=pool,
    )
    @signed
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            batch(context, instance, dataset=dataset, access=config.access).run()
        yield from ()  # every session's results are logged by then

    return sessions


def hub_dataset_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Asset that publishes all finished sessions of a dataset."""
    key = names.hub_dataset_key(dataset)

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(names.manifest_key(dataset)),
            dg.AssetDep(names.spike_counts_key(dataset), partition_mapping=dg.AllPartitionMapping()),
        ],
        pool=HUB_POOL,
        **asset_facts(dataset, kinds.HUB_DATASET, hub_dataset_asset),
    )
    @signed
    def hub_dataset(
        context: dg.AssetExecutionContext, config: PublishConfig, instance: Instance
    ) -> dg.MaterializeResult:
        with failing_in_words(), forward_wait_warnings(context):
            started, tell = time.monotonic(), progress_of(context)
            store, settings, hub = instance.open_store(), instance.settings, instance.open_hub()
            manifest = documents.read_manifest(store, dataset)
            records, reasons = publishable_records(store, dataset, settings, manifest)
            missing = publishable(manifest, list(records), reasons, config.min_session_share)
            name = documents.repository_name(dataset, settings)
            annotations = read_annotations(store, dataset, settings, records)
            orders = read_unit_orders(store, dataset, settings, records)
            spikes = spike_times_wanted(store, dataset, settings, hub, records, config.publish_spike_times)
            component = write_component(
                documents.staging_folder(settings, name),
                store,
                dataset,
                manifest,
                records,
                missing=missing,
                repository=f"{settings.namespace}/{name}",
                annotations=annotations,
                orders=orders,
                spikes=spikes.record if spikes else None,
                progress=tell,
            )
            spikes_publication = None
            if spikes:  # before the card that links to them
                spikes_name = documents.spikes_name(dataset, settings)
                write_spikes(
                    documents.staging_folder(settings, spikes_name),
                    store,
                    dataset,
                    manifest,
                    component,
                    records,
                    spikes.trains,
                    annotations=annotations,
                    orders=orders,
                    progress=tell,
                )
                spikes_publication = hub.publish(spikes_name, documents.staging_folder(settings, spikes_name), tell)
            publication = hub.publish(name, documents.staging_folder(settings, name), tell)
            write_record(store, documents.published_path(dataset, settings), component)
            tell(f"{component.repository}: {plural(component.totals.tokens, 'token')} published")
            return dg.MaterializeResult(
                metadata=component_metadata(
                    component,
                    publication,
                    records,
                    time.monotonic() - started,
                    folder_rasters(documents.staging_folder(settings, name), component.synthetic, dataset.name),
                    spikes_publication,
                ),
                data_version=dg.DataVersion(publication.version),
            )

    return hub_dataset
