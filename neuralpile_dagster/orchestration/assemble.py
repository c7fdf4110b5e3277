"""All definitions of an instance: every dataset's assets and the piles', with jobs, sensors and resources.

An asset, a job or a sensor belongs in a module of its own; Dagster's entry point is `neuralpile_dagster.definitions`.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from neuralpile_dagster.catalog.load import load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.pile_analyses.rows import pile_analyses_of
from neuralpile_dagster.orchestration.assets.hub_dataset import hub_dataset_asset
from neuralpile_dagster.orchestration.assets.manifest import manifest_asset
from neuralpile_dagster.orchestration.assets.overview import overview_asset
from neuralpile_dagster.orchestration.assets.pile import pile_assets
from neuralpile_dagster.orchestration.assets.pile_analyses import pile_analysis_assets
from neuralpile_dagster.orchestration.assets.sessions import analysis_assets, sessions_asset
from neuralpile_dagster.orchestration.automation.alerts import alert_sensor
from neuralpile_dagster.orchestration.automation.current import current_sensor
from neuralpile_dagster.orchestration.automation.pages import pages_sensor
from neuralpile_dagster.orchestration.automation.versions import version_sensor
from neuralpile_dagster.orchestration.checks import checks_of_made, component_checks, manifest_checks, pile_checks
from neuralpile_dagster.orchestration.jobs import named_jobs
from neuralpile_dagster.orchestration.progress import progress_logger
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.settings import Settings


def dataset_definitions(dataset: Dataset) -> dg.Definitions:
    """The assets of one dataset."""
    return dg.Definitions(
        assets=[
            manifest_asset(dataset),
            sessions_asset(dataset),
            *analysis_assets(dataset),
            hub_dataset_asset(dataset),
        ],
        asset_checks=[manifest_checks(dataset), component_checks(dataset)],
    )


def build_definitions(settings: Settings, datasets: Iterable[Dataset] | None = None) -> dg.Definitions:
    """All definitions of an instance; ``datasets`` replaces its catalog."""
    rows = list(load_catalog(settings).values() if datasets is None else datasets)
    piles = load_piles(settings, rows)
    members = {pile.name: pile.members(rows) for pile in piles}
    of_piles = [asset for pile in piles for asset in pile_assets(pile, members[pile.name])]
    of_piles += [asset for pile in piles for asset in pile_analysis_assets(pile, members[pile.name])]

    def job_of_all() -> dg.JobDefinition:
        return build_definitions(settings, rows).resolve_implicit_global_asset_job_def()

    shared = dg.Definitions(
        assets=[overview_asset(rows, piles), *of_piles],
        asset_checks=[
            *(pile_checks(pile) for pile in piles),
            *(
                checks_of_made(pile, members[pile.name], row)
                for pile in piles
                for row in pile_analyses_of(pile)
                if row.checks
            ),
        ],
        jobs=named_jobs(rows, piles, job_of_all),
        sensors=[version_sensor(rows), current_sensor(rows, piles), pages_sensor(rows, piles), alert_sensor(settings)],
        resources={"instance": InstanceResource(settings).definition()},
        loggers={"console": dg.colored_console_logger, "progress": progress_logger},
        # one process per run: a batch of sessions shares its imports
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(shared, *(dataset_definitions(row) for row in rows))


def whole_job(settings: Settings, datasets: Iterable[Dataset] | None = None) -> dg.JobDefinition:
    """The job of all assets and checks of an instance; ``datasets`` replaces its catalog."""
    return build_definitions(settings, datasets).resolve_implicit_global_asset_job_def()
