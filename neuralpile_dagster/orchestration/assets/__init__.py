"""The assets of datasets and piles with their checks, put together, and the job of a few of them.

What an asset is stands in `dataset` and `pile`; all definitions of an instance are in `code_location`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger.analyses import analyses_of
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.orchestration.assets.dataset import (
    analysis_asset,
    hub_dataset_asset,
    manifest_asset,
    sessions_asset,
)
from neuralpile_dagster.orchestration.assets.pile import pile_assets
from neuralpile_dagster.orchestration.checks import checks_of_made, component_checks, manifest_checks, pile_checks
from neuralpile_dagster.orchestration.progress import progress_logger
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.settings import Settings


def dataset_definitions(dataset: Dataset) -> dg.Definitions:
    """The assets and checks of one dataset."""
    return dg.Definitions(
        assets=[
            manifest_asset(dataset),
            sessions_asset(dataset),
            *(analysis_asset(dataset, analysis) for analysis in analyses_of(dataset)),
            hub_dataset_asset(dataset),
        ],
        asset_checks=[manifest_checks(dataset), component_checks(dataset)],
    )


def pile_definitions(pile: Pile, datasets: Iterable[Dataset]) -> dg.Definitions:
    """The assets and checks of one pile, whose members are among ``datasets``."""
    members = pile.members(datasets)
    return dg.Definitions(
        assets=pile_assets(pile, members),
        asset_checks=[
            pile_checks(pile),
            *(checks_of_made(pile, members, row) for row in pile_analyses_of(pile) if row.checks),
        ],
    )


def job_of_assets(
    settings: Settings, datasets: Iterable[Dataset], piles: Iterable[Pile], catalog: Sequence[Dataset]
) -> dg.JobDefinition:
    """The job of all assets and checks of these datasets and piles.

    With those of the whole catalog, a command that makes one dataset takes half as much CPU time again before it
    begins (docs/performance.md). ``catalog`` has the members of the piles: also those that are not made are inputs.
    """
    definitions = [dataset_definitions(row) for row in datasets]
    definitions += [pile_definitions(pile, catalog) for pile in piles]
    shared = dg.Definitions(**how_runs_go(settings))
    return dg.Definitions.merge(shared, *definitions).resolve_implicit_global_asset_job_def()


def how_runs_go(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `dagster.Definitions`: resources, loggers and executor of all runs."""
    return {
        "resources": {"instance": InstanceResource(settings).definition()},
        "loggers": {"console": dg.colored_console_logger, "progress": progress_logger},
        # one process per run: a batch of sessions shares its imports
        "executor": dg.in_process_executor,
    }
