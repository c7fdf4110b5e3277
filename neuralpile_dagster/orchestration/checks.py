"""Checks as Dagster sees them: specs, and verdicts as results or events.

What a check finds belongs in the room `checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.dataset import ComponentEvidence
from neuralpile_dagster.checks.model import Layer, Verdict, capped
from neuralpile_dagster.checks.registry import (
    CHECKS,
    checks_of,
    is_blocking,
    judge_component,
    judge_manifest,
    judge_pile,
    judge_session,
    require_known_checks,
    severity_of,
)
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.errors import RecordingError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.due import publishable_records
from neuralpile_dagster.ledger.kinds import PILE
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.private_dagster import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)
from neuralpile_dagster.orchestration.provenance import latest_event, target_of
from neuralpile_dagster.orchestration.resources import Instance

_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def asset_of(layer: Layer, dataset: Dataset | None) -> dg.AssetKey:
    """Asset key of a layer's checks."""
    if dataset is None:
        return names.PILE_HUB_DATASET
    return dg.AssetKey([dataset.key, layer])


def specs(
    dataset: Dataset | None, layer: Layer, partitions: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    """Specs of all checks of a layer; raises `CatalogError` when the dataset's row names an unknown check."""
    if dataset is not None:
        require_known_checks(dataset)
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=asset_of(layer, dataset),
            description=check.why,
            blocking=is_blocking(check.name, dataset),
            partitions_def=partitions,
        )
        for check in checks_of(layer)
    ]


def _metadata(verdict: Verdict) -> dict[str, Any]:
    metadata = {"expected": verdict.expected, "found": verdict.found, **verdict.details}
    if verdict.remedy and not verdict.passed:
        metadata["what_to_do"] = verdict.remedy
    return metadata


def _event(name: str, verdict: Verdict, dataset: Dataset | None) -> dict[str, Any]:
    return {
        "asset_key": asset_of(CHECKS[name].layer, dataset),
        "check_name": name,
        "passed": verdict.passed,
        "severity": _SEVERITY[severity_of(name, dataset)],
        "metadata": _metadata(verdict),
        "description": None if verdict.passed else f"expected {verdict.expected}, found {verdict.found}",
    }


def results(verdicts: Mapping[str, Verdict], dataset: Dataset | None) -> list[dg.AssetCheckResult]:
    """Verdicts as the results that an asset or a check yields."""
    return [dg.AssetCheckResult(**_event(name, verdict, dataset)) for name, verdict in verdicts.items()]


def evaluations(
    verdicts: Mapping[str, Verdict],
    dataset: Dataset,
    partition: str | None,
    event: dg.EventLogRecord | None = None,
) -> Sequence[dg.AssetCheckEvaluation]:
    """Verdicts as events, because an `AssetCheckResult` of a batch would lose its partition.

    ``event`` is the checked materialization.
    """
    return [
        dg.AssetCheckEvaluation(
            **_event(name, verdict, dataset), partition=partition, target_materialization_data=target_of(event)
        )
        for name, verdict in verdicts.items()
    ]


def manifest_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a manifest."""

    @dg.multi_asset_check(name=f"{dataset.key}__manifest_checks", specs=specs(dataset, "manifest"))
    def check_manifest(instance: Instance) -> Iterator[dg.AssetCheckResult]:
        manifest = documents.read_manifest(instance.open_store(), dataset)
        yield from results(judge_manifest(dataset, manifest), dataset)

    return check_manifest


def component_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a published component."""

    @dg.multi_asset_check(name=f"{dataset.key}__hub_dataset_checks", specs=specs(dataset, "hub_dataset"))
    def check_hub_dataset(instance: Instance) -> Iterator[dg.AssetCheckResult]:
        store, settings = instance.open_store(), instance.settings
        manifest = documents.read_manifest(store, dataset)
        records, reasons = publishable_records(store, dataset, settings, manifest)
        evidence = ComponentEvidence(
            dataset=dataset,
            manifest=manifest,
            records=records,
            failed=reasons,
            published=documents.require_published(store, dataset, settings),
            hub=instance.open_hub(),
            repository_name=(name := documents.repository_name(dataset, settings)),
            folder=documents.staging_folder(settings, name),
        )
        yield from results(judge_component(evidence), dataset)

    return check_hub_dataset


def pile_checks() -> dg.AssetChecksDefinition:
    """All checks of the published pile."""

    @dg.multi_asset_check(name=f"{PILE}__hub_dataset_checks", specs=specs(None, "pile"))
    def check_pile(instance: Instance) -> Iterator[dg.AssetCheckResult]:
        verdicts = judge_pile(instance.open_store(), instance.settings, instance.open_hub())
        yield from results(verdicts, None)

    return check_pile


@dataclass
class SessionJudge:
    """Run the checks on the sessions of one run and keep the verdicts by check and session."""

    context: dg.AssetExecutionContext
    dataset: Dataset
    said: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def judge(self, key: str, evidence: SessionEvidence) -> None:
        """Log every check's verdict on a session; raises `RecordingError` when a blocking one failed."""
        verdicts = judge_session(evidence)
        event = latest_event(self.context.instance, names.spike_counts_key(self.dataset), key)
        for evaluation in evaluations(verdicts, self.dataset, key, event):
            self.context.log_event(evaluation)
        for name, verdict in verdicts.items():
            self.said.setdefault(name, {})[key] = verdict
        for name, verdict in verdicts.items():
            if not verdict.passed and is_blocking(name, self.dataset):
                raise RecordingError(
                    f"{key} fails the check {name}",
                    found=str(verdict.found),
                    expected=str(verdict.expected),
                    remedy=verdict.remedy,
                )

    def log_summaries(self) -> None:
        """Log a verdict per check on all sessions of the dataset, those of earlier batches included.

        The pages of asset and check show the newest verdict whatever its
        partition is: without this one, that of a session picked by chance.
        """
        asset, log = names.spike_counts_key(self.dataset), self.context.instance.event_log_storage
        known = self.context.instance.get_dynamic_partitions(f"{self.dataset.key}_sessions")
        partitioned = self.context.has_partition_key or self.context.has_partition_key_range
        batch = self.context.partition_keys if partitioned else []
        verdicts = {}
        for name, said in self.said.items():
            states = {
                state.partition_key: state.latest_execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED
                for state in log.get_asset_check_partition_info([dg.AssetCheckKey(asset, name)])
                # a planned check is of a session that another run is making, or that failed before it was judged
                if state.latest_execution_status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
            }
            unjudged = [key for key in batch if key not in said]  # their earlier verdicts are of other counts
            passed = {key: states[key] for key in known if key in states and key not in unjudged}
            verdicts[name] = _together(passed, len(known), len(unjudged), said)
        for evaluation in evaluations(verdicts, self.dataset, None):
            self.context.log_event(evaluation)


def _together(passed: dict[str, bool], known: int, failed: int, said: dict[str, Verdict]) -> Verdict:
    """Combine the verdicts of all sessions into one; ``failed`` sessions of the batch were not judged."""
    wrong = [key for key, fine in passed.items() if not fine]
    not_those = capped([f"{key} ({said[key].found if key in said else 'of an earlier batch'})" for key in wrong], 5)
    waiting = known - len(passed) - failed
    found = f"{len(passed) - len(wrong)} of {known} known sessions pass"
    found += f"; not {not_those}" if wrong else ""
    found += f"; {failed} of this batch failed before they were judged" if failed else ""
    found += f"; {waiting} not judged yet" if waiting > 0 else ""
    return Verdict(
        passed=not wrong,
        expected="every checked session passes",
        found=found,
        remedy=next((said[key].remedy for key in wrong if key in said), ""),
        details={"note": "verdicts on single sessions are under Partitions"},
    )
