"""Asset ``<dataset>/manifest``: the sessions of a dataset.

Wiring only: listing is in `archives`, the session rule in `recordings.sessions`.
"""

import time
from functools import partial

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import capped
from neuralpile_dagster.ledger import documents, kinds
from neuralpile_dagster.ledger.status import partitions_to_keep, session_states
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.describe import asset_facts, freshness_of_manifest, signed
from neuralpile_dagster.orchestration.metadata.manifest import manifest_metadata
from neuralpile_dagster.orchestration.metadata.summaries import plural
from neuralpile_dagster.orchestration.names import register, session_partitions, unregister
from neuralpile_dagster.orchestration.pools import ARCHIVE_POOL
from neuralpile_dagster.orchestration.progress import failing_in_words, forward_wait_warnings, progress_of
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.recordings.sessions import choose_sessions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, read_record, write_record


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
