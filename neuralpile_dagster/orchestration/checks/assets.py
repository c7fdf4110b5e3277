"""Checks that run by themselves as well: they read the store and the hub, so a person can repeat them at any time."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration import locations
from neuralpile_dagster.orchestration.checks import dataset as judges
from neuralpile_dagster.orchestration.checks import wiring
from neuralpile_dagster.orchestration.checks.pile import judge_pile
from neuralpile_dagster.orchestration.due import publishable_records
from neuralpile_dagster.orchestration.locations import PILE
from neuralpile_dagster.orchestration.resources import InstanceResource


def manifest_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a manifest."""

    @dg.multi_asset_check(name=f"{dataset.key}__manifest_checks", specs=wiring.specs(dataset, "manifest"))
    def check_manifest(instance: InstanceResource) -> Iterator[dg.AssetCheckResult]:
        manifest = locations.read_manifest(instance.open_store(), dataset)
        yield from wiring.results(judges.judge_manifest(dataset, manifest), dataset)

    return check_manifest


def component_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """All checks of a published component."""

    @dg.multi_asset_check(name=f"{dataset.key}__hub_dataset_checks", specs=wiring.specs(dataset, "hub_dataset"))
    def check_hub_dataset(instance: InstanceResource) -> Iterator[dg.AssetCheckResult]:
        store, settings = instance.open_store(), instance.settings
        manifest = locations.read_manifest(store, dataset)
        records, reasons = publishable_records(store, dataset, settings, manifest)
        evidence = judges.ComponentEvidence(
            dataset=dataset,
            manifest=manifest,
            records=records,
            failed=reasons,
            published=locations.require_published(store, dataset, settings),
            hub=instance.open_hub(),
            repository_name=(name := locations.repository_name(dataset, settings)),
            folder=locations.staging_folder(settings, name),
        )
        yield from wiring.results(judges.judge_component(evidence), dataset)

    return check_hub_dataset


def pile_checks() -> dg.AssetChecksDefinition:
    """All checks of the published pile."""

    @dg.multi_asset_check(name=f"{PILE}__hub_dataset_checks", specs=wiring.specs(None, "pile"))
    def check_pile(instance: InstanceResource) -> Iterator[dg.AssetCheckResult]:
        verdicts = judge_pile(instance.open_store(), instance.settings, instance.open_hub())
        yield from wiring.results(verdicts, None)

    return check_pile
