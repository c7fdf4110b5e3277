"""Assets of a dataset, ``<dataset>/*``: its manifest, what is made of each session, and the published component.

Wiring only: listing is in `archives`, the session rule in `recordings.sessions`, the loops over sessions in
`batches.sessions`, reading and binning in `session`, the rows of analyses in `ledger.analyses`, a repository's files in
`publish`, the upload in `hub`.
"""

import time
from collections.abc import Iterator
from enum import Enum
from functools import partial

import dagster as dg
from pydantic import Field

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import capped
from neuralpile_dagster.ledger import documents, kinds
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of, read_annotations, read_unit_orders
from neuralpile_dagster.ledger.due import publishable_records
from neuralpile_dagster.ledger.publishing import spike_times_wanted
from neuralpile_dagster.ledger.status import partitions_to_keep, session_states
from neuralpile_dagster.orchestration import checks, names
from neuralpile_dagster.orchestration.batches.sessions import AnalysisBatch, SessionBatch
from neuralpile_dagster.orchestration.describe import asset_facts, freshness_of_manifest, signed, spec_facts
from neuralpile_dagster.orchestration.metadata.dataset import component_metadata, manifest_metadata
from neuralpile_dagster.orchestration.metadata.summaries import folder_rasters, plural
from neuralpile_dagster.orchestration.names import register, session_partitions, unregister
from neuralpile_dagster.orchestration.pools import ARCHIVE_POOL, HUB_POOL, batch_size, pool_of, session_pool
from neuralpile_dagster.orchestration.progress import failing_in_words, forward_wait_warnings, progress_of
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.publish.component import publishable, write_component
from neuralpile_dagster.publish.spikes import write_spikes
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.recordings.sessions import choose_sessions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, read_record, write_record


class AccessChoice(Enum):
    """Method of reading recordings from a remote archive."""

    ranges = "ranges"
    download = "download"


class SessionConfig(dg.Config):
    """Run configuration of assets that are partitioned by session."""

    access: AccessChoice = Field(
        default=AccessChoice.ranges,
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
            new, gone = _update_partitions(context.instance, store, dataset, instance.settings, made)
            tell(f"{dataset.name}: {len(made.sessions)} sessions, {len(new)} of them new")
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


def _update_partitions(
    instance: dg.DagsterInstance, store: Store, dataset: Dataset, settings: Settings, made: Manifest
) -> tuple[list[str], list[str]]:
    """Register the sessions of a manifest and remove partitions of none; return both lists of keys."""
    partitions, keep = session_partitions(dataset), partitions_to_keep(store, dataset, settings, made)
    new = register(instance, partitions, [session.key for session in made.sessions if session.key in keep])
    return new, unregister(instance, partitions, keep)


def sessions_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Multi-asset that reads, bins and stores a dataset's sessions."""
    trains, counts = names.spike_trains_key(dataset), names.spike_counts_key(dataset)
    partitions = session_partitions(dataset)

    @dg.multi_asset(
        name=f"{dataset.key}__sessions",
        specs=[
            dg.AssetSpec(
                trains,
                deps=[names.manifest_key(dataset)],
                skippable=True,
                group_name=dataset.key,
                **spec_facts(dataset, kinds.SPIKE_TRAINS, sessions_asset),
            ),
            dg.AssetSpec(
                counts,
                deps=[trains],
                skippable=True,
                group_name=dataset.key,
                **spec_facts(dataset, kinds.SPIKE_COUNTS, sessions_asset),
            ),
        ],
        check_specs=checks.specs(dataset, "spike_counts"),
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=session_pool(dataset),
    )
    @signed
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            SessionBatch(context, instance, dataset, config.access.value).run()
        yield from ()  # every session's results are logged by then

    return sessions


def analysis_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """The assets of all analyses of a dataset."""
    return [_analysis_asset(dataset, analysis) for analysis in analyses_of(dataset)]


def _analysis_asset(dataset: Dataset, analysis: Analysis) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        names.asset_key(dataset, analysis),
        deps=[names.upstream_key(dataset, analysis)],
        skippable=True,
        group_name=dataset.key,
        **spec_facts(dataset, analysis, _analysis_asset),
    )

    @dg.multi_asset(
        name=f"{dataset.key}__{analysis.name}",
        specs=[spec],
        partitions_def=session_partitions(dataset),
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=pool_of(analysis, dataset),
    )
    @signed
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            AnalysisBatch(context, instance, dataset, analysis, config.access.value).run()
        yield from ()  # every session's result is logged by then

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
            tell(f"{component.repository}: {component.totals.tokens:,} tokens published")
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
