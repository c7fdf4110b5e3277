"""Sensor ``refresh_the_overview``: keeps pages of the UI true after runs ended, however they ended.

It reads records and reports events; it requests no run. Builds from the command line call `refresh_pages` themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.orchestration.assets.overview import refresh_overview
from neuralpile_dagster.orchestration.names import mark_untouched
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.orchestration.verdicts import keep_newest
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import open_store

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def refresh_pages(
    instance: dg.DagsterInstance, settings: Settings, datasets: Sequence[Dataset], piles: Sequence[Pile]
) -> bool:
    """Bring pages up to date that no run in progress does; return whether anything on them has changed.

    These are the overview, the newest verdict of each check of spike counts,
    and the partitions of datasets that were never listed.
    """
    store = open_store(settings.store)
    mark_untouched(instance, datasets)
    hidden = [name for dataset in datasets for name in keep_newest(instance, store, settings, dataset)]
    return refresh_overview(instance, store, datasets, piles, settings) or bool(hidden)


def try_to_refresh(
    instance: dg.DagsterInstance,
    settings: Settings,
    datasets: Sequence[Dataset],
    piles: Sequence[Pile],
    say: Progress,
) -> None:
    """Refresh pages, and say why where that is impossible: whoever calls has done or will do something else."""
    try:
        refresh_pages(instance, settings, datasets, piles)
    except NeuralPileError as error:
        say(f"the overview could not be refreshed: {error}")


def pages_sensor(datasets: Sequence[Dataset], piles: Sequence[Pile]) -> dg.SensorDefinition:
    """Sensor that refreshes pages once runs have ended since it last did."""

    @dg.sensor(
        name="refresh_the_overview",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes overview/datasets and the verdicts of checks on all sessions when a run has ended since "
        "the last tick, canceled and killed ones included. It only reads records, and requests no run.",
    )
    def refresh_the_overview(context: dg.SensorEvaluationContext, instance: Instance) -> dg.SensorResult:
        since = float(context.cursor) if context.cursor else None
        ended = context.instance.get_run_records(
            dg.RunsFilter(statuses=_ENDED, updated_after=None if since is None else datetime.fromtimestamp(since, UTC)),
            limit=1,
            order_by="update_timestamp",
        )
        if since is not None and not ended:
            return dg.SensorResult(skip_reason=dg.SkipReason("No run has ended since the last refresh."))
        try:
            changed = refresh_pages(context.instance, instance.settings, datasets, piles)
        except NeuralPileError as error:
            context.log.warning(str(error))
            return dg.SensorResult(skip_reason=dg.SkipReason(f"To be tried again at the next tick: {error}"))
        latest = ended[0].update_timestamp.timestamp() if ended else 0.0
        return dg.SensorResult(
            skip_reason=dg.SkipReason("Refreshed." if changed else "Runs have ended, and the pages show it already."),
            cursor=str(latest),
        )

    return refresh_the_overview
