"""Hands checks to Dagster: their specs, and their verdicts as results or events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks.policy import POLICIES, Layer, require_known_checks, severity_of
from neuralpile_dagster.orchestration.checks.verdict import Verdict
from neuralpile_dagster.orchestration.provenance import target_of

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


def evaluations(
    verdicts: Mapping[str, Verdict],
    dataset: Dataset,
    partition: str | None,
    event: dg.EventLogRecord | None = None,
) -> Sequence[dg.AssetCheckEvaluation]:
    """Verdicts as events: an `AssetCheckResult` of a batch would lose its partition.

    ``event`` is the materialization that they are about.
    """
    return [
        dg.AssetCheckEvaluation(
            **_event(name, verdict, dataset), partition=partition, target_materialization_data=target_of(event)
        )
        for name, verdict in verdicts.items()
    ]
