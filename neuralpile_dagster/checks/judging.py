"""Run the checks of `registry` on what they judge, and what a failed one means for a dataset whose row says otherwise.

A check's own severity is in its row; the catalog's row of a dataset may override it.
"""

from __future__ import annotations

from typing import Any

from neuralpile_dagster.catalog.model import Dataset, Severity
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.checks import motifs, pile
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.model import Check, Layer, Verdict
from neuralpile_dagster.checks.registry import (
    CHECKS,
    COMPONENT_CHECKS,
    MANIFEST_CHECKS,
    MOTIF_CHECKS,
    PILE_CHECKS,
    SESSION_CHECKS,
)
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.errors import CatalogError, did_you_mean
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger.pile_analyses.model import PileAnalysis, PlannedPile
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store


def checks_of(layer: Layer) -> list[Check[Any]]:
    """The checks of one layer, in the order of the table."""
    return [check for check in CHECKS.values() if check.layer == layer]


def judge_manifest(dataset: Dataset, manifest: Manifest) -> dict[str, Verdict]:
    """All verdicts on a manifest, by the name of the check."""
    evidence = ManifestEvidence(dataset, manifest)
    return {check.name: check.run(evidence) for check in MANIFEST_CHECKS}


def judge_session(evidence: SessionEvidence) -> dict[str, Verdict]:
    """All verdicts on a session's spike counts, by the name of the check."""
    return {check.name: check.run(evidence) for check in SESSION_CHECKS}


def judge_component(evidence: ComponentEvidence) -> dict[str, Verdict]:
    """All verdicts on a published component, by the name of the check."""
    return {check.name: check.run(evidence) for check in COMPONENT_CHECKS}


def judge_pile(store: Store, of: Pile, settings: Settings, hub: Hub) -> dict[str, Verdict]:
    """All verdicts on a published pile, by the name of the check."""
    evidence = pile.read_evidence(store, of, settings, hub)
    return {check.name: check.run(evidence) for check in PILE_CHECKS}


def judge_made(of: PlannedPile, row: PileAnalysis, hub: Hub) -> dict[str, Verdict]:
    """All verdicts on something made of a pile, by the name of the check."""
    evidence = motifs.read_evidence(of, row, hub)
    return {check.name: check.run(evidence) for check in MOTIF_CHECKS if check.layer == row.checks}


def require_known_checks(dataset: Dataset) -> None:
    """Raise `CatalogError` when a row's ``severity`` names a check that a dataset does not have."""
    known = [check.name for check in CHECKS.values() if check.layer in ("manifest", "spike_counts", "hub_dataset")]
    for name in dataset.severity:
        if name not in known:
            raise CatalogError(
                f"the catalog's row {dataset.name}, field severity: there is no check {name[:60]!r}",
                expected=f"one of {', '.join(known)}",
                remedy=did_you_mean(name, known) or "correct or remove it",
            )


def severity_of(name: str, dataset: Dataset | None) -> Severity:
    """The severity of a check, with the dataset's own override."""
    if dataset is not None and name in dataset.severity:
        return dataset.severity[name]
    return CHECKS[name].severity


def is_blocking(name: str, dataset: Dataset | None) -> bool:
    """Whether a failure of the check stops what is downstream: a warning never does."""
    return CHECKS[name].blocking and severity_of(name, dataset) == "error"
