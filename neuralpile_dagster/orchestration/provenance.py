"""What Dagster records by itself for results that assets return, and what a batch says with the events it logs."""

from __future__ import annotations

import dagster as dg

from neuralpile_dagster.orchestration.private_dagster import AssetCheckEvaluationTargetMaterializationData


def latest_event(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    """The newest materialization of a partition."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)


def target_of(event: dg.EventLogRecord | None) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization that a check is about; the UI shows a partition's check only when it is the newest one."""
    if event is None:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        run_id=event.run_id, storage_id=event.storage_id, timestamp=event.timestamp
    )


def version_tags(
    data_version: str, code_version: str, source: dg.AssetKey, source_version: str, source_event: int | None
) -> dict[str, str]:
    """Tags of a materialization: its versions and what it was made from, without which the UI calls it "unsynced".

    ``source_event`` is the storage id of the source's materialization; Dagster asks for it of partitioned sources only.
    """
    name = source.to_user_string()
    return {
        "dagster/data_version": data_version,
        "dagster/code_version": code_version,
        f"dagster/input_data_version/{name}": source_version,
        f"dagster/input_event_pointer/{name}": "NULL" if source_event is None else str(source_event),
    }
