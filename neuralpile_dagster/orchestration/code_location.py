"""Definitions of an instance, for Dagster's processes, and the job of a few assets, for the command line.

Only putting together belongs here: what an asset, a check, a job or a sensor is stands in modules of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.load import load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger.pile_analyses.standing import pile_analyses_of
from neuralpile_dagster.orchestration.assets.dataset import (
    analysis_assets,
    hub_dataset_asset,
    manifest_asset,
    sessions_asset,
)
from neuralpile_dagster.orchestration.assets.overview import overview_asset, pages_sensor
from neuralpile_dagster.orchestration.assets.pile import pile_analysis_assets, pile_assets
from neuralpile_dagster.orchestration.checks import checks_of_made, component_checks, manifest_checks, pile_checks
from neuralpile_dagster.orchestration.jobs import named_jobs
from neuralpile_dagster.orchestration.progress import progress_logger
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import alert_sensor, current_sensor, version_sensor
from neuralpile_dagster.settings import Settings


def dataset_definitions(dataset: Dataset) -> dg.Definitions:
    """The assets and checks of one dataset."""
    return dg.Definitions(
        assets=[
            manifest_asset(dataset),
            sessions_asset(dataset),
            *analysis_assets(dataset),
            hub_dataset_asset(dataset),
        ],
        asset_checks=[manifest_checks(dataset), component_checks(dataset)],
    )


def pile_definitions(pile: Pile, datasets: Iterable[Dataset]) -> dg.Definitions:
    """The assets and checks of one pile, whose members are among ``datasets``."""
    members = pile.members(datasets)
    return dg.Definitions(
        assets=[*pile_assets(pile, members), *pile_analysis_assets(pile, members)],
        asset_checks=[
            pile_checks(pile),
            *(checks_of_made(pile, members, row) for row in pile_analyses_of(pile) if row.checks),
        ],
    )


def build_definitions(settings: Settings, datasets: Iterable[Dataset] | None = None) -> dg.Definitions:
    """All definitions of an instance; ``datasets`` replaces its catalog."""
    rows = list(load_catalog(settings).values() if datasets is None else datasets)
    piles = load_piles(settings, rows)

    def job_of(some: Sequence[Dataset], their_piles: Sequence[Pile]) -> dg.JobDefinition:
        return job_of_assets(settings, some, their_piles, rows)

    shared = dg.Definitions(
        assets=[overview_asset(rows, piles)],
        jobs=named_jobs(rows, piles, job_of),
        sensors=[version_sensor(rows), current_sensor(rows, piles), pages_sensor(rows, piles), alert_sensor(settings)],
        **_how_runs_go(settings),
    )
    of_piles = (pile_definitions(pile, rows) for pile in piles)
    return dg.Definitions.merge(shared, *of_piles, *(dataset_definitions(row) for row in rows))


def job_of_assets(
    settings: Settings, datasets: Iterable[Dataset], piles: Iterable[Pile], catalog: Sequence[Dataset]
) -> dg.JobDefinition:
    """The job of all assets and checks of these datasets and piles.

    With those of the whole catalog, a command that makes one dataset takes half as much CPU time again before it
    begins (docs/performance.md). ``catalog`` has the members of the piles: also those that are not made are inputs.
    """
    definitions = [dataset_definitions(row) for row in datasets]
    definitions += [pile_definitions(pile, catalog) for pile in piles]
    shared = dg.Definitions(**_how_runs_go(settings))
    return dg.Definitions.merge(shared, *definitions).resolve_implicit_global_asset_job_def()


def _how_runs_go(settings: Settings) -> dict[str, Any]:
    return {
        "resources": {"instance": InstanceResource(settings).definition()},
        "loggers": {"console": dg.colored_console_logger, "progress": progress_logger},
        # one process per run: a batch of sessions shares its imports
        "executor": dg.in_process_executor,
    }
