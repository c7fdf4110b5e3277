"""Publish a component's spike times where somebody asks: gathers the inputs of `publish.spikes` and calls the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import HubError
from neuralpile_dagster.hub.model import Hub, Publication
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.spikes import spikes_record, write_spikes
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord, SpikesRecord, TrainsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items
from neuralpile_dagster.tables.annotations import AnnotationsRecord
from neuralpile_dagster.tables.unit_order import UnitOrderRecord


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
    repository = f"{settings.namespace}/{name}"
    return SpikeTimes(spikes_record(dataset, records, with_times, repository, hub.page(name)), with_times)


def publish_spike_times(
    store: Store,
    dataset: Dataset,
    settings: Settings,
    hub: Hub,
    manifest: Manifest,
    component: ComponentRecord,
    records: Mapping[str, CountsRecord],
    spike_times: SpikeTimes,
    annotations: Mapping[str, AnnotationsRecord],
    orders: Mapping[str, UnitOrderRecord],
    progress: Progress,
) -> Publication:
    """Lay out and publish a component's spike times; raises as `write_spikes` and `Hub.publish` do."""
    name = documents.spikes_name(dataset, settings)
    folder = documents.staging_folder(settings, name)
    write_spikes(
        folder,
        store,
        dataset,
        manifest,
        component,
        records,
        spike_times.trains,
        annotations=annotations,
        orders=orders,
        progress=progress,
    )
    return hub.publish(name, folder, progress)
