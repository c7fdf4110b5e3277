"""Asset ``overview/datasets``, and the sensor that keeps it and other pages of the UI true however runs ended.

The asset is the status of every dataset as a table, and what comes next for each; the numbers come from `ledger`. The
sensor ``refresh_the_overview`` reads records and reports events; it requests no run. Builds from the command line call
`refresh_pages` themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.ledger.due import dataset_due
from neuralpile_dagster.ledger.status import DatasetStatus, dataset_status, piles_status
from neuralpile_dagster.markdown import plural, text
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.describe import OWNERS, code_of
from neuralpile_dagster.orchestration.metadata import table
from neuralpile_dagster.orchestration.progress import failing_in_words
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.orchestration.verdicts import keep_newest
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store

PATH = f"/assets/{'/'.join(names.OVERVIEW.path)}"
"""Page of the overview in the UI."""
_VERSION = "dagster/data_version"
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def overview_asset(datasets: Sequence[Dataset], piles: Sequence[Pile]) -> dg.AssetsDefinition:
    """Asset that reads every dataset's status from the store; `neuralpile status` shows the same."""

    @dg.asset(
        key=names.OVERVIEW,
        group_name="overview",
        owners=OWNERS,
        kinds={"table"},
        tags={"layer": "overview"},
        metadata=code_of(overview_asset),
        description="Status of every dataset\n\nSessions known, done and failed, and tokens, of every dataset, the "
        "missing parts of piles, and what comes next. Builds and the sensor `refresh_the_overview` keep it up to "
        "date; it only reads records, so materialize it at any time. Numbers plot over time.",
    )
    def overview(instance: Instance) -> dg.MaterializeResult:
        with failing_in_words():
            metadata = overview_metadata(instance.open_store(), datasets, piles, instance.settings)
            return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(_digest(metadata)))

    return overview


def refresh_overview(
    instance: dg.DagsterInstance, store: Store, datasets: Sequence[Dataset], piles: Sequence[Pile], settings: Settings
) -> bool:
    """Report the overview as it is now, without a run; return whether anything in it has changed."""
    metadata = overview_metadata(store, datasets, piles, settings)
    version = _digest(metadata)
    event = instance.get_latest_materialization_event(names.OVERVIEW)
    last = event.asset_materialization if event else None
    if last and (last.tags or {}).get(_VERSION) == version:
        return False
    instance.report_runless_asset_event(
        dg.AssetMaterialization(names.OVERVIEW, metadata=metadata, tags={_VERSION: version})
    )
    return True


def overview_metadata(
    store: Store, datasets: Sequence[Dataset], piles: Sequence[Pile], settings: Settings
) -> dict[str, Any]:
    """Metadata of the overview; datasets of which the home has nothing come last."""
    statuses = sorted(
        (dataset_status(store, dataset, settings) for dataset in datasets), key=lambda status: status.untouched
    )
    done, failed = sum(status.done for status in statuses), sum(len(status.failed) for status in statuses)
    known, tokens = sum(status.known or 0 for status in statuses), sum(status.tokens for status in statuses)
    begun = sum(status.known is not None for status in statuses)
    return {
        "summary": dg.MetadataValue.md(
            f"**{plural(tokens, 'token')}** in {done:,} of {plural(known, 'known session')}, {failed:,} failed; "
            f"{begun} of {plural(len(statuses), 'dataset')} have a manifest."
        ),
        "next": dg.MetadataValue.md(_next(store, statuses, settings)),
        "datasets": table([_row(status) for status in statuses if status.known is not None]),
        "not_started": dg.MetadataValue.md(_not_started(statuses)),
        "pile": "\n".join(piles_status(store, piles, datasets, settings)),
        "tokens": tokens,
        "sessions_done": done,
        "sessions_failed": failed,
        "home": dg.MetadataValue.path(str(settings.home)),
        "store": dg.MetadataValue.path(settings.store),
        "archive": settings.archive,
        "hub": f"{settings.hub}, namespace {settings.namespace}",
        "bins": f"{settings.bin_width_s:g} s, segments of {settings.max_tokens:,} tokens",
    }


def _next(store: Store, statuses: Sequence[DatasetStatus], settings: Settings) -> str:
    """What comes next for each dataset that has begun, or why nothing does, with a link to its page."""
    lines = []
    for status in statuses:
        if status.known is None:
            continue
        why = dataset_due(store, status.dataset, settings, settings.min_session_share).why
        page = f"/assets/{'/'.join(names.spike_counts_key(status.dataset).path)}?view=partitions"
        lines.append(f"- [{text(status.dataset.name)}]({page}): {text(why)}")
    if waiting := sum(status.known is None for status in statuses):
        lines.append(f"- {plural(waiting, 'dataset')} not started: launch the job build of one, or list its sessions")
    return "\n".join(lines)


def _not_started(statuses: Sequence[DatasetStatus]) -> str:
    """Datasets that were never listed, each with a link to its manifest."""
    waiting = [status.dataset for status in statuses if status.known is None]
    links = (f"[{text(row.name)}](/assets/{'/'.join(names.manifest_key(row).path)})" for row in waiting)
    return " · ".join(links) or "none"


def _digest(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(metadata.items())).encode()).hexdigest()[:32]


def _row(status: DatasetStatus) -> dict[str, str]:
    published = "" if status.published_tokens is None else f"{status.published_tokens:,}"
    return {
        "dataset": status.dataset.name,
        "state": _state(status),
        "done": f"{status.done:,} of {status.known or 0:,}",
        "tokens": f"{status.tokens:,}",
        "published": "all" if _state(status) == "all done" else published,
    }


def _state(status: DatasetStatus) -> str:
    if status.stopped and status.to_do:
        return f"some to do: {status.stopped}"
    if status.failed:
        return "some failed"
    if status.to_do:
        return "some to do"
    return "all done" if status.published_tokens == status.tokens else "to publish"


def refresh_pages(
    instance: dg.DagsterInstance, settings: Settings, datasets: Sequence[Dataset], piles: Sequence[Pile]
) -> bool:
    """Bring pages up to date that no run in progress does; return whether anything on them has changed.

    These are the overview, the newest verdict of each check of spike counts,
    and the partitions of datasets that were never listed.
    """
    store = open_store(settings.store)
    names.mark_untouched(instance, datasets)
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
