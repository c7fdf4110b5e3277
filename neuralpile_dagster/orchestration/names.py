"""Asset keys, groups and partition names: the contract that the UI, links and other code locations rely on."""

from __future__ import annotations

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration.locations import PILE

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
