"""Checks as Dagster sees them: specs, verdicts as results or events, and which of them stop what follows.

What a check finds belongs in the room `checks`, verdicts on all sessions of a dataset in `verdicts`. The UI shows a
verdict that is about the newest materialization; Dagster says which one it is about only of returned results, so
`target_of` and `is_about` do it for events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.checks import motifs as checks_of_motifs
from neuralpile_dagster.checks import pile as checks_of_piles
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.model import Layer, Verdict
from neuralpile_dagster.checks.registry import (
    CHECKS,
    checks_of,
    is_blocking,
    judge,
    require_known_checks,
    severity_of,
)
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.due import publishable_records
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis, require_planned
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.describe import signed
from neuralpile_dagster.orchestration.private_dagster import (
    AssetCheckEvaluationTargetMaterializationData,
    AssetCheckExecutionRecord,
)
from neuralpile_dagster.orchestration.progress import failing_in_words
from neuralpile_dagster.orchestration.resources import Instance, InstanceResource

_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def specs(owner: Dataset | Pile, layer: Layer, asset: dg.AssetKey | None = None) -> list[dg.AssetCheckSpec]:
    """Specs of all checks of a layer, on ``asset``, or that of the layer.

    Raises `CatalogError` when the dataset's row names an unknown check. Those of partitioned assets have no partitions:
    with them, the UI's list calls a check failed as soon as one of the sessions failed, whether it was judged or not.
    Verdicts on sessions are in the check's execution history.
    """
    if dataset := _row(owner):
        require_known_checks(dataset)
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=asset or _asset_of(layer, owner),
            description=check.why,
            blocking=is_blocking(check.name, dataset),
        )
        for check in checks_of(layer)
    ]


def results(
    verdicts: Mapping[str, Verdict], owner: Dataset | Pile, asset: dg.AssetKey | None = None
) -> list[dg.AssetCheckResult]:
    """Verdicts as the results that an asset or a check yields; on ``asset``, or that of their layer."""
    return [dg.AssetCheckResult(**_event(name, verdict, owner, asset)) for name, verdict in verdicts.items()]


def evaluations(
    verdicts: Mapping[str, Verdict],
    dataset: Dataset,
    partition: str | None,
    event: dg.EventLogRecord | None = None,
) -> Sequence[dg.AssetCheckEvaluation]:
    """Verdicts as events, because an `AssetCheckResult` of a batch would lose its partition.

    ``event`` is the checked materialization.
    """
    found = []
    for name, verdict in verdicts.items():
        facts = _event(name, verdict, dataset)
        if partition:  # the execution history in the UI has no column for it
            facts["description"] = f"{partition}: {facts['description'] or 'passed'}"
        target = target_of(event)
        found.append(dg.AssetCheckEvaluation(**facts, partition=partition, target_materialization_data=target))
    return found


def refusals(
    instance: dg.DagsterInstance, layer: Layer, owners: Iterable[Dataset | Pile], asset: dg.AssetKey | None = None
) -> dict[str, str]:
    """Blocking checks that failed on what these have now, with what they found; on ``asset``, or that of the layer.

    Dagster itself stops only what is downstream in the same run. What automation and the command line make in runs
    that follow asks here; a person who materializes an asset is not asked.
    """
    every = [
        dg.AssetCheckKey(asset or _asset_of(layer, owner), check.name)
        for owner in owners
        for check in checks_of(layer)
        if is_blocking(check.name, _row(owner))
    ]
    found = {}
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(every).items():
        said = record.evaluation
        if said is None or said.passed or said.severity != dg.AssetCheckSeverity.ERROR:
            continue
        if is_about(record, latest_event(instance, key.asset_key)):
            found[f"{key.asset_key.to_user_string()} {key.name}"] = said.description or "the check failed"
    return found


def waiting_for(refused: Mapping[str, str]) -> str:
    """Why something is not made, in words; ``refused`` are `refusals`."""
    first, *others = [f"{check} failed: {found}" for check, found in refused.items()]
    more = f" (and {plural(len(others), 'other check')})" if others else ""
    return (
        f"waits, because the check {first}{more}; what to do: remove the cause and publish it again, or run its checks "
        "again (`severity` in a dataset's row of catalog.yaml turns a check into a warning)"
    )


def refusals_of_made(instance: dg.DagsterInstance, pile: Pile, row: PileAnalysis) -> dict[str, str]:
    """`refusals` of something made of a pile."""
    return refusals(instance, cast(Layer, row.checks), [pile], names.asset_key(pile, row)) if row.checks else {}


def manifest_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a manifest."""

    def evidence(instance: InstanceResource) -> ManifestEvidence:
        return ManifestEvidence(dataset, documents.read_manifest(instance.open_store(), dataset))

    return _checks(dataset, "manifest", "manifest", evidence)


def component_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a published component."""

    def evidence(instance: InstanceResource) -> ComponentEvidence:
        store, settings = instance.open_store(), instance.settings
        manifest = documents.read_manifest(store, dataset)
        records, reasons = publishable_records(store, dataset, settings, manifest)
        name = documents.repository_name(dataset, settings)
        return ComponentEvidence(
            dataset=dataset,
            manifest=manifest,
            records=records,
            failed=reasons,
            published=documents.require_published(store, dataset, settings),
            hub=instance.open_hub(),
            repository_name=name,
            folder=documents.staging_folder(settings, name),
        )

    return _checks(dataset, "hub_dataset", "hub_dataset", evidence)


def pile_checks(pile: Pile) -> dg.AssetChecksDefinition:
    """All checks of a published pile."""

    def evidence(instance: InstanceResource) -> checks_of_piles.PileEvidence:
        return checks_of_piles.read_evidence(instance.open_store(), pile, instance.settings, instance.open_hub())

    return _checks(pile, "hub_dataset", "pile", evidence)


def checks_of_made(pile: Pile, datasets: Sequence[Dataset], row: PileAnalysis) -> dg.AssetChecksDefinition:
    """All checks of something made of a pile; ``datasets`` are the pile's members."""

    def evidence(instance: InstanceResource) -> checks_of_motifs.MadeEvidence:
        of = require_planned(instance.open_store(), pile, datasets, instance.settings)
        return checks_of_motifs.read_evidence(of, row, instance.open_hub())

    return _checks(pile, row.name, cast(Layer, row.checks), evidence)


def _checks(
    owner: Dataset | Pile, asset: str, layer: Layer, evidence: Callable[[InstanceResource], object]
) -> dg.AssetChecksDefinition:
    """The checks of a layer on one asset of a dataset or pile, judged by the ``evidence`` that is read."""
    key = dg.AssetKey([owner.key, asset])

    @dg.multi_asset_check(name=f"{owner.key}__{asset}_checks", specs=specs(owner, layer, key))
    @signed
    def check(instance: Instance) -> Iterator[dg.AssetCheckResult]:
        with failing_in_words():
            yield from results(judge(layer, evidence(instance)), owner, key)

    return check


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


def _asset_of(layer: Layer, owner: Dataset | Pile) -> dg.AssetKey:
    """Asset key of a layer's checks."""
    return dg.AssetKey([owner.key, "hub_dataset" if isinstance(owner, Pile) else layer])


def _row(owner: Dataset | Pile) -> Dataset | None:
    """The row that may override severities."""
    return None if isinstance(owner, Pile) else owner


def _event(name: str, verdict: Verdict, owner: Dataset | Pile, asset: dg.AssetKey | None = None) -> dict[str, Any]:
    metadata = {"expected": verdict.expected, "found": verdict.found, **verdict.details}
    if verdict.remedy and not verdict.passed:
        metadata["what_to_do"] = verdict.remedy
    return {
        "asset_key": asset or _asset_of(CHECKS[name].layer, owner),
        "check_name": name,
        "passed": verdict.passed,
        "severity": _SEVERITY[verdict.severity or severity_of(name, _row(owner))],
        "metadata": metadata,
        "description": None if verdict.passed else f"expected {verdict.expected}, found {verdict.found}",
    }
