"""Asset keys, groups and partition names: a contract for the UI, links and other code locations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import kinds
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of
from neuralpile_dagster.ledger.kinds import AssetKind
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis
from neuralpile_dagster.motifs.records import BUCKETS

NO_SESSIONS = "_materialize_the_manifest_first"
"""The partition of a dataset that was never listed; no session has this key (`recordings.manifest.partition_key`)."""
OVERVIEW = dg.AssetKey(["overview", "datasets"])


def asset_key(owner: Dataset | Pile, kind: AssetKind) -> dg.AssetKey:
    """``<dataset>/<kind>``, or ``<pile>/<kind>``."""
    return dg.AssetKey([owner.key, kind.name])


def manifest_key(owner: Dataset | Pile) -> dg.AssetKey:
    """``<dataset>/manifest``, or ``<pile>/manifest``."""
    return asset_key(owner, kinds.MANIFEST)


def spike_trains_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_trains``, one partition per session."""
    return asset_key(dataset, kinds.SPIKE_TRAINS)


def spike_counts_key(dataset: Dataset) -> dg.AssetKey:
    """``<dataset>/spike_counts``, one partition per session."""
    return asset_key(dataset, kinds.SPIKE_COUNTS)


def hub_dataset_key(owner: Dataset | Pile) -> dg.AssetKey:
    """``<dataset>/hub_dataset``, or ``<pile>/hub_dataset``."""
    return asset_key(owner, kinds.HUB_DATASET)


def upstream_key(dataset: Dataset, analysis: Analysis) -> dg.AssetKey:
    """Key of the asset upstream of an analysis."""
    return spike_counts_key(dataset) if analysis.made_from == "spike_counts" else manifest_key(dataset)


def member_keys(datasets: Iterable[Dataset], row: PileAnalysis) -> list[dg.AssetKey]:
    """Keys of the analyses of a pile's members that something made of it is made from."""
    wanted = [(dataset, analysis) for dataset in datasets if row.of_members for analysis in analyses_of(dataset)]
    return [asset_key(dataset, analysis) for dataset, analysis in wanted if analysis.name in row.of_members]


def pile_shards_key(pile: Pile) -> dg.AssetKey:
    """``<pile>/shards``, one partition per shard of any plan."""
    return asset_key(pile, kinds.PILE_SHARDS)


def shard_partitions(pile: Pile) -> dg.DynamicPartitionsDefinition:
    """The partitions ``<pile>_shards``."""
    return dg.DynamicPartitionsDefinition(name=f"{pile.key}_shards")


def analysis_partitions(pile: Pile, row: PileAnalysis) -> dg.PartitionsDefinition[str] | None:
    """The partitions of what is made of a pile, or None where it has none."""
    if row.partitions == "none":
        return None
    if row.partitions == "shards":
        return shard_partitions(pile)
    return dg.StaticPartitionsDefinition(BUCKETS)


def session_partitions(dataset: Dataset) -> dg.DynamicPartitionsDefinition:
    """The partitions ``<dataset>_sessions``."""
    return dg.DynamicPartitionsDefinition(name=f"{dataset.key}_sessions")


def known_sessions(instance: dg.DagsterInstance, dataset: Dataset) -> list[str]:
    """Partition keys of a dataset's sessions, in order."""
    return [key for key in instance.get_dynamic_partitions(_name(session_partitions(dataset))) if key != NO_SESSIONS]


def mark_untouched(instance: dg.DagsterInstance, datasets: Iterable[Dataset]) -> None:
    """Give datasets without any partition the one that says what to do first.

    Without it the UI shows their assets green, with all of no partitions, and
    a backfill of them ends in an error that does not say what is missing.
    """
    for dataset in datasets:
        if not instance.get_dynamic_partitions(name := _name(session_partitions(dataset))):
            instance.add_dynamic_partitions(name, [NO_SESSIONS])


def register(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, keys: Sequence[str]
) -> list[str]:
    """Register the missing partition keys, in the given order, and return them."""
    known = set(instance.get_dynamic_partitions(_name(partitions)))
    new = [key for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(_name(partitions), new)
    return new


def unregister(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, keep: Collection[str]
) -> list[str]:
    """Remove the partition keys that are not to ``keep`` and return them; events and stored data stay."""
    gone = [key for key in instance.get_dynamic_partitions(_name(partitions)) if key not in keep]
    for key in gone:
        instance.delete_dynamic_partition(_name(partitions), key)
    return [key for key in gone if key != NO_SESSIONS]


def _name(partitions: dg.DynamicPartitionsDefinition) -> str:
    assert partitions.name is not None
    return partitions.name


def contiguous_batches(
    instance: dg.DagsterInstance, partitions: dg.PartitionsDefinition[str], wanted: Collection[str], size: int
) -> list[list[str]]:
    """Cut the wanted keys into runs of neighbours of at most ``size``, in partition order."""
    batches: list[list[str]] = []
    previous = ""
    for key in partitions.get_partition_keys(dynamic_partitions_store=instance):
        if key in wanted:
            if previous not in wanted or len(batches[-1]) >= size:
                batches.append([])
            batches[-1].append(key)
        previous = key
    return batches


def range_tags(batch: Sequence[str]) -> dict[str, str]:
    """Tags of a run that makes a contiguous range of partitions."""
    return {"dagster/asset_partition_range_start": batch[0], "dagster/asset_partition_range_end": batch[-1]}
