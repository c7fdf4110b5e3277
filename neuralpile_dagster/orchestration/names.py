"""Asset keys, groups and partition names: the contract that the UI, links and other code locations rely on."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.documents import PILE

OVERVIEW = dg.AssetKey(["overview", "datasets"])
PILE_MANIFEST = dg.AssetKey([PILE, "manifest"])
PILE_SHARDS = dg.AssetKey([PILE, "shards"])
PILE_HUB_DATASET = dg.AssetKey([PILE, "hub_dataset"])


def manifest_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/manifest``."""
    return dg.AssetKey([dataset.key, "manifest"])


def spike_trains_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_trains``, one partition per session."""
    return dg.AssetKey([dataset.key, "spike_trains"])


def spike_counts_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_counts``, one partition per session."""
    return dg.AssetKey([dataset.key, "spike_counts"])


def hub_dataset_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/hub_dataset``."""
    return dg.AssetKey([dataset.key, "hub_dataset"])


PILE_SHARDS_PARTITIONS = dg.DynamicPartitionsDefinition(name=f"{PILE}_shards")


def session_partitions(dataset: Dataset) -> dg.DynamicPartitionsDefinition:
    """The partitions ``<dataset>_sessions``."""
    return dg.DynamicPartitionsDefinition(name=f"{dataset.key}_sessions")


def register(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, keys: Sequence[str]
) -> list[str]:
    """Add the keys that are not registered yet, in the given order, and give those; none is ever deleted."""
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
