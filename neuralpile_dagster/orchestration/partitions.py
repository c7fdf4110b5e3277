"""Dynamic partitions: sessions of a dataset, shards of the pile. Keys are made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration.locations import PILE

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
