"""``new_dandiset_versions``: notices that a source changed, and asks for its manifest."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from neuralpile_dagster.archives.patience import NetworkLimits
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import ArchiveUnavailable, NeuralPileError
from neuralpile_dagster.orchestration import locations, names
from neuralpile_dagster.orchestration.asking import not_asked_before
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.store import read_record

IMPATIENT = NetworkLimits(connect_timeout_s=5.0, read_timeout_s=10.0, retries=1)
"""Dagster ends a tick after 60 s, so an archive that is away is asked again at the next one."""
LOOK_S = 30.0
"""No source is asked later than this in a tick; the next tick begins where this one ended."""

Noticed = dict[str, tuple[str, str]]
"""Per dataset: the state of its source, and since when (ISO 8601) we know that it is that."""


def version_sensor(datasets: Sequence[Dataset]) -> dg.SensorDefinition:
    """``new_dandiset_versions``: one API call per dandiset and tick; asks for the manifest of what changed."""
    watched = [dataset for dataset in datasets if not dataset.synthetic]

    @dg.sensor(
        name="new_dandiset_versions",
        asset_selection=dg.AssetSelection.assets(*(names.manifest_key(row) for row in datasets)),
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Looks for newer published versions and changed listings of the sources, once an hour, and "
        "materializes each manifest that is older than a change (at first all, since nobody looked before). Datasets "
        "without a manifest are left alone: the first one is for a person to ask for.",
    )
    def new_dandiset_versions(context: dg.SensorEvaluationContext, instance: InstanceResource) -> dg.SensorResult:
        memory = _recall(context.cursor)
        noticed: Noticed = memory["noticed"]
        troubles, position = _look(watched, memory["next"], noticed, instance)
        for name, trouble in troubles.items():
            context.log.warning(f"{name}: {trouble}")
        wanted = [_manifest_request(dataset, noticed) for dataset in watched if _is_older(dataset, noticed, instance)]
        requests = [fresh for request in wanted if (fresh := not_asked_before(context.instance, request))]
        note = f"{len(noticed)} sources are known, {len(troubles)} could not be asked: " + "; ".join(troubles)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(note.rstrip(": ")),
            cursor=json.dumps({"noticed": noticed, "next": position}),
        )

    return new_dandiset_versions


def _recall(cursor: str | None) -> dict[str, Any]:
    memory = json.loads(cursor or "{}")
    return memory if "noticed" in memory else {"noticed": {}, "next": 0}


def _look(
    watched: Sequence[Dataset], begin: int, noticed: Noticed, instance: InstanceResource
) -> tuple[dict[str, str], int]:
    """Ask sources for their state as long as a tick may take; give troubles by dataset, and where to go on."""
    from neuralpile_dagster.archives.updates import source_state

    store, began = instance.open_store(), time.monotonic()
    troubles: dict[str, str] = {}
    away: set[str] = set()
    for number in range(len(watched)):
        position = (begin + number) % len(watched)
        dataset = watched[position]
        if time.monotonic() - began > LOOK_S:
            return troubles, position
        if dataset.source.archive in away or read_record(store, locations.manifest_path(dataset), Manifest) is None:
            continue
        try:
            state = source_state(instance.open_archive(dataset.source, IMPATIENT), dataset.source)
        except NeuralPileError as error:
            troubles[dataset.name] = str(error)
            if isinstance(error, ArchiveUnavailable):
                away.add(dataset.source.archive)  # it would cost the same for each of its datasets
            continue
        if noticed.get(dataset.name, ("", ""))[0] != state:
            noticed[dataset.name] = (state, datetime.now(UTC).isoformat())
    return troubles, 0


def _is_older(dataset: Dataset, noticed: Noticed, instance: InstanceResource) -> bool:
    """Whether a manifest was listed before the state of its source was noticed."""
    if dataset.name not in noticed:
        return False
    manifest = read_record(instance.open_store(), locations.manifest_path(dataset), Manifest)
    return manifest is not None and manifest.listed_at < datetime.fromisoformat(noticed[dataset.name][1])


def _manifest_request(dataset: Dataset, noticed: Noticed) -> dg.RunRequest:
    run_key = f"{dataset.name}-{'-'.join(noticed[dataset.name])}"
    return dg.RunRequest(run_key=run_key, asset_selection=[names.manifest_key(dataset)])
