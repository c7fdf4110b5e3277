"""Hands checks to Dagster: their specs, and their verdicts as results or events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks.policy import POLICIES, Layer, require_known_checks, severity_of
from neuralpile_dagster.orchestration.checks.verdict import Verdict

_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def asset_of(layer: Layer, dataset: Dataset | None) -> dg.AssetKey:
    """The asset that the checks of a layer belong to."""
    if dataset is None:
        return names.PILE_HUB_DATASET
    return dg.AssetKey([dataset.key, layer])


def specs(
    dataset: Dataset | None, layer: Layer, partitions: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    """The specs of all checks of a layer; raises `CatalogError` when the dataset's row names an unknown check."""
    if dataset is not None:
        require_known_checks(dataset)
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset_of(layer, dataset),
            description=policy.why,
            blocking=is_blocking(name, dataset),
            partitions_def=partitions,
        )
        for name, policy in POLICIES.items()
        if policy.layer == layer
    ]


def is_blocking(name: str, dataset: Dataset | None) -> bool:
    """Whether a failure of the check stops what is downstream: a warning never does."""
    return POLICIES[name].blocking and severity_of(name, dataset) == "error"


def _metadata(verdict: Verdict) -> dict[str, Any]:
    metadata = {"expected": verdict.expected, "found": verdict.found, **verdict.details}
    if verdict.remedy and not verdict.passed:
        metadata["what_to_do"] = verdict.remedy
    return metadata


def _event(name: str, verdict: Verdict, dataset: Dataset | None) -> dict[str, Any]:
    return {
        "asset_key": asset_of(POLICIES[name].layer, dataset),
        "check_name": name,
        "passed": verdict.passed,
        "severity": _SEVERITY[severity_of(name, dataset)],
        "metadata": _metadata(verdict),
        "description": None if verdict.passed else f"expected {verdict.expected}, found {verdict.found}",
    }


def results(verdicts: Mapping[str, Verdict], dataset: Dataset | None) -> list[dg.AssetCheckResult]:
    """Verdicts as what an asset or a check yields."""
    return [dg.AssetCheckResult(**_event(name, verdict, dataset)) for name, verdict in verdicts.items()]


def latest_materialization(
    instance: dg.DagsterInstance, dataset: Dataset, partition: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization of a session's spike counts that checks made now are about.

    The UI shows the check of a partition only when it names the latest one.
    """
    wanted = dg.AssetRecordsFilter(asset_key=names.spike_counts_key(dataset), asset_partitions=[partition])
    found = instance.fetch_materializations(wanted, limit=1).records
    return (
        AssetCheckEvaluationTargetMaterializationData(
            run_id=found[0].run_id, storage_id=found[0].storage_id, timestamp=found[0].timestamp
        )
        if found
        else None
    )


def evaluations(
    verdicts: Mapping[str, Verdict],
    dataset: Dataset,
    partition: str,
    target: AssetCheckEvaluationTargetMaterializationData | None = None,
) -> Sequence[dg.AssetCheckEvaluation]:
    """Verdicts of one partition as events: an `AssetCheckResult` of a batch would lose its partition."""
    return [
        dg.AssetCheckEvaluation(
            **_event(name, verdict, dataset), partition=partition, target_materialization_data=target
        )
        for name, verdict in verdicts.items()
    ]
