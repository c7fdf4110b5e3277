"""Sensor ``new_dandiset_versions``: detects changed sources and requests their manifests.

How an archive states its version belongs in `archives.updates`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import ArchiveUnavailable, NeuralPileError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.automation.current import deduplicate_request
from neuralpile_dagster.orchestration.describe import FRESH_FOR
from neuralpile_dagster.orchestration.resources import Instance, InstanceResource
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.store import read_record

if TYPE_CHECKING:
    from neuralpile_dagster.net.retry import RetryPolicy

TICK_S = 60.0
"""Dagster's default timeout of a tick."""
TICK_BUDGET_S = 30.0
"""No source is checked later than this in a tick; the next tick resumes where this one ended."""
_A_DAY = timedelta(days=1)


@dataclass
class _TickResult:
    """Results of one tick."""

    position: int
    changed: dict[str, str] = field(default_factory=dict)  # dataset -> state of its source
    notes: list[str] = field(default_factory=list)
    asked: int = 0


def version_sensor(datasets: Sequence[Dataset], clock: Callable[[], float] = time.monotonic) -> dg.SensorDefinition:
    """Sensor that requests manifests of changed sources; one or two API requests per dandiset and tick."""
    watched = [dataset for dataset in datasets if not dataset.synthetic]

    @dg.sensor(
        name="new_dandiset_versions",
        asset_selection=dg.AssetSelection.assets(*(names.manifest_key(row) for row in datasets)),
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Asks each source once an hour whether it changed since its manifest was listed, and materializes "
        "the manifests of those that did, three times at most for the same change, and of those listed a month ago. "
        "A pinned version that exists does not change when a newer one is published; the tick and the manifest's "
        "metadata (newer_version) say so. Datasets without a manifest are left alone: a person decides to start a "
        "dataset.",
    )
    def new_dandiset_versions(context: dg.SensorEvaluationContext, instance: Instance) -> dg.SensorResult:
        seen = _look(watched, _recall(context.cursor), instance, clock)
        for note in seen.notes:
            context.log.warning(note)
        wanted = [_request(dataset, seen.changed[dataset.name]) for dataset in watched if dataset.name in seen.changed]
        requests = [fresh for request in wanted if (fresh := deduplicate_request(context.instance, request))]
        words = f"{seen.asked} sources checked, {len(seen.changed)} to list again" + "".join(
            f"; {note}" for note in seen.notes
        )
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(words),
            cursor=json.dumps({"next": seen.position}),
        )

    return new_dandiset_versions


def _recall(cursor: str | None) -> int:
    """Position at which the last tick ended."""
    position = json.loads(cursor or "{}").get("next", 0)
    return position if isinstance(position, int) else 0


def _look(
    watched: Sequence[Dataset], begin: int, instance: InstanceResource, clock: Callable[[], float]
) -> _TickResult:
    """Check the state of sources until the time of a tick is used up."""
    began, seen, away = clock(), _TickResult(0), set[str]()
    for number in range(len(watched)):
        position = (begin + number) % len(watched)
        dataset = watched[position]
        if clock() - began > TICK_BUDGET_S:
            seen.position = position
            return seen
        if dataset.source.archive in away:
            continue
        try:
            _compare(dataset, instance, seen)
        except NeuralPileError as error:
            seen.notes.append(f"{dataset.name} could not be checked: {error}")
            if isinstance(error, ArchiveUnavailable):
                away.add(dataset.source.archive)  # the timeout would repeat for each of its datasets
                # the error may concern this source only: check the others
                seen.position = (position + 1) % len(watched)
    return seen


def impatient() -> "RetryPolicy":
    """An unavailable archive is checked again at the next tick; twice these timeouts fit after `TICK_BUDGET_S`."""
    from neuralpile_dagster.net.retry import RetryPolicy  # with its library, which the code location does not need

    return RetryPolicy(attempts=2, connect_timeout_s=4.0, read_timeout_s=8.0, retry_after_max_s=2.0)


def _compare(dataset: Dataset, instance: InstanceResource, seen: _TickResult) -> None:
    from neuralpile_dagster.archives.model import source_state

    manifest = read_record(instance.open_store(), documents.manifest_path(dataset), Manifest)
    if manifest is None:
        return
    state = source_state(instance.open_archive(dataset.source, impatient()), dataset.source)
    seen.asked += 1
    if state.newer_version:
        seen.notes.append(f"{dataset.name}: {state.newer_version}")
    if (manifest.source_id, manifest.source_state) != (dataset.source.id, state.token):
        seen.changed[dataset.name] = state.token
    elif datetime.now(UTC) - manifest.listed_at > FRESH_FOR - _A_DAY:
        # listed again, so that its freshness in the UI says that somebody looks
        seen.changed[dataset.name] = f"{state.token} listed {manifest.listed_at.isoformat()}"


def _request(dataset: Dataset, state: str) -> dg.RunRequest:
    digest = hashlib.sha256(f"{dataset.source.id} {state}".encode()).hexdigest()[:24]
    return dg.RunRequest(run_key=f"{dataset.name}-listed-{digest}", asset_selection=[names.manifest_key(dataset)])
