"""Asset keys, groups and partition names: a contract for the UI, links and other code locations."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger import kinds
from neuralpile_dagster.ledger.analyses import Analysis
from neuralpile_dagster.ledger.kinds import PILE, AssetKind

OVERVIEW = dg.AssetKey(["overview", "datasets"])


def asset_key(dataset: Dataset | None, kind: AssetKind) -> dg.AssetKey:
    """``<dataset>/<kind>``, or ``neural_pile/<kind>``."""
    return dg.AssetKey([dataset.key if dataset else PILE, kind.name])


def manifest_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/manifest``."""
    return asset_key(dataset, kinds.MANIFEST)


def spike_trains_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_trains``, one partition per session."""
    return asset_key(dataset, kinds.SPIKE_TRAINS)


def spike_counts_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_counts``, one partition per session."""
    return asset_key(dataset, kinds.SPIKE_COUNTS)


def hub_dataset_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/hub_dataset``."""
    return asset_key(dataset, kinds.HUB_DATASET)


def upstream_key(dataset: Dataset, analysis: Analysis) -> dg.AssetKey:
    """Key of the asset upstream of an analysis."""
    return spike_counts_key(dataset) if analysis.made_from == "spike_counts" else manifest_key(dataset)


PILE_MANIFEST = asset_key(None, kinds.PILE_MANIFEST)
PILE_SHARDS = asset_key(None, kinds.PILE_SHARDS)
PILE_HUB_DATASET = asset_key(None, kinds.PILE_HUB_DATASET)
PILE_SHARDS_PARTITIONS = dg.DynamicPartitionsDefinition(name=f"{PILE}_shards")


def session_partitions(dataset: Dataset) -> dg.DynamicPartitionsDefinition:
    """The partitions ``<dataset>_sessions``."""
    return dg.DynamicPartitionsDefinition(name=f"{dataset.key}_sessions")


def register(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, keys: Sequence[str]
) -> list[str]:
    """Register the missing partition keys, in the given order, and return them; keys are never deleted."""
    name = partitions.name
    assert name is not None
    known = set(instance.get_dynamic_partitions(name))
    new = [key for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(name, new)
    return new


def contiguous_batches(all_keys: Sequence[str], wanted: set[str], size: int) -> list[list[str]]:
    """Cut the wanted keys into runs of neighbours of at most ``size``, in partition order."""
    batches: list[list[str]] = []
    previous = -2
    for position, key in enumerate(all_keys):
        if key not in wanted:
            continue
        if position != previous + 1 or len(batches[-1]) >= size:
            batches.append([])
        batches[-1].append(key)
        previous = position
    return batches
