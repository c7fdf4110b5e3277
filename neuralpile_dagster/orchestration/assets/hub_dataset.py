"""Asset ``<dataset>/hub_dataset``: a published component.

Wiring only: the repository's files are made in `publish`, the upload is in `hub`.
"""

import time

import dagster as dg
from pydantic import Field

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger import documents, kinds
from neuralpile_dagster.ledger.analyses import read_annotations, read_unit_orders
from neuralpile_dagster.ledger.due import publishable_records
from neuralpile_dagster.ledger.spike_times import publish_spike_times, spike_times_wanted
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.describe import asset_facts, signed
from neuralpile_dagster.orchestration.metadata import sessions as metadata
from neuralpile_dagster.orchestration.metadata.pictures import folder_rasters
from neuralpile_dagster.orchestration.pools import HUB_POOL
from neuralpile_dagster.orchestration.progress import failing_in_words, forward_wait_warnings, progress_of
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.publish.completeness import publishable
from neuralpile_dagster.store import write_record


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
        from neuralpile_dagster.publish.component import write_component

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
                spikes_publication = publish_spike_times(
                    store, dataset, settings, hub, manifest, component, records, spikes, annotations, orders, tell
                )
            publication = hub.publish(name, documents.staging_folder(settings, name), tell)
            write_record(store, documents.published_path(dataset, settings), component)
            tell(f"{component.repository}: {component.totals.tokens:,} tokens published")
            return dg.MaterializeResult(
                metadata=metadata.component_metadata(
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
