"""Asset ``overview/datasets``: status of every dataset as a table in the UI; materialize it to refresh."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.status import DatasetStatus, dataset_status, pile_status
from neuralpile_dagster.orchestration.describe import OWNERS
from neuralpile_dagster.orchestration.metadata.sessions import table
from neuralpile_dagster.orchestration.metadata.summaries import plural
from neuralpile_dagster.orchestration.names import OVERVIEW
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.settings import Settings


def overview_asset(datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    """Asset that reads every dataset's status from the store; `neuralpile status` shows the same."""

    @dg.asset(
        key=OVERVIEW,
        group_name="overview",
        owners=OWNERS,
        kinds={"table"},
        tags={"layer": "overview"},
        description="Status of every dataset\n\nSessions known, done and failed, and tokens, of every dataset, and "
        "the missing parts of the pile. It only reads records: materialize it at any time to refresh the numbers. "
        "Numbers plot over time.",
    )
    def overview(instance: Instance) -> dg.MaterializeResult:
        store, settings = instance.open_store(), instance.settings
        statuses = [dataset_status(store, dataset, settings) for dataset in datasets]
        pile = pile_status(store, datasets, settings)
        return dg.MaterializeResult(metadata=_metadata(statuses, settings, pile))

    return overview


def _metadata(statuses: Sequence[DatasetStatus], settings: Settings, pile: str) -> dict[str, Any]:
    done, failed = sum(status.done for status in statuses), sum(len(status.failed) for status in statuses)
    known, tokens = sum(status.known or 0 for status in statuses), sum(status.tokens for status in statuses)
    begun = sum(status.known is not None for status in statuses)
    return {
        "summary": dg.MetadataValue.md(
            f"**{plural(tokens, 'token')}** in {done:,} of {plural(known, 'known session')}, {failed:,} failed; "
            f"{begun} of {plural(len(statuses), 'dataset')} have a manifest."
        ),
        "tokens": tokens,
        "sessions_done": done,
        "sessions_failed": failed,
        "datasets": table([_row(status) for status in statuses]),
        "pile": pile,
        "home": dg.MetadataValue.path(str(settings.home)),
        "store": dg.MetadataValue.path(settings.store),
        "archive": settings.archive,
        "hub": f"{settings.hub}, namespace {settings.namespace}",
        "bin_width_s": settings.bin_width_s,
        "tokens_per_segment": settings.max_tokens,
    }


def _row(status: DatasetStatus) -> dict[str, Any]:
    def number(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    made = status.known is not None
    return {
        "dataset": status.dataset.name,
        "state": _state(status),
        "sessions": number(status.known),
        "done": number(status.done) if made else "",
        "failed": number(len(status.failed)) if made else "",
        "to do": number(status.to_do) if made else "",
        "tokens": number(status.tokens) if made else "",
        "published by us": number(status.published_tokens),
        "published pile": number(status.dataset.tokens_published),
        "source": status.dataset.source.label,
    }


def _state(status: DatasetStatus) -> str:
    if status.known is None:
        return "no manifest"
    if status.stopped and status.to_do:
        return f"some to do: {status.stopped}"
    if status.failed:
        return "some failed"
    if status.to_do:
        return "some to do"
    return "all done" if status.published_tokens == status.tokens else "to publish"
