"""Versions and check targets of events that batches log; Dagster adds these itself only to returned results."""

from __future__ import annotations

import dagster as dg

from neuralpile_dagster.orchestration.private_dagster import (
    AssetCheckEvaluationTargetMaterializationData,
    AssetCheckExecutionRecord,
)


def latest_event(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None = None
) -> dg.EventLogRecord | None:
    """Latest materialization of a partition, or of any partition of the asset."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)


def target_of(event: dg.EventLogRecord | None) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Materialization that a check refers to; the UI shows a check only if that is the latest one.

    Without it the UI compares times, of which SQLite keeps the check's in whole seconds: a verdict less than a second
    after the materialization would be "Not evaluated".
    """
    if event is None:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        run_id=event.run_id, storage_id=event.storage_id, timestamp=event.timestamp
    )


def is_about(record: AssetCheckExecutionRecord, event: dg.EventLogRecord | None) -> bool:
    """Whether a verdict is about this materialization, or of the same run."""
    if event is None or record.run_id == event.run_id:
        return True
    target = record.evaluation.target_materialization_data if record.evaluation else None
    return target is not None and target.storage_id == event.storage_id


def version_tags(
    data_version: str, code_version: str, source: dg.AssetKey, source_version: str, source_event: int | None
) -> dict[str, str]:
    """Tags of a materialization: its versions and inputs, without which the UI shows it as "unsynced".

    ``source_event`` is the storage id of the source's materialization; Dagster asks for it of partitioned sources only.
    """
    name = source.to_user_string()
    return {
        "dagster/data_version": data_version,
        "dagster/code_version": code_version,
        f"dagster/input_data_version/{name}": source_version,
        f"dagster/input_event_pointer/{name}": "NULL" if source_event is None else str(source_event),
    }
