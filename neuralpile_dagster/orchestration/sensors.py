"""Sensors, both off until a person turns them on in the UI (Automation)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.orchestration import names, pile_store
from neuralpile_dagster.orchestration.assets.sessions import BATCH_SIZE
from neuralpile_dagster.orchestration.due import PileDue, dataset_due, pile_due
from neuralpile_dagster.orchestration.partitions import contiguous_batches, session_partitions
from neuralpile_dagster.orchestration.resources import InstanceResource

RUNS_PER_TICK = 20
"""A queue of thousands of runs helps nobody; what is left comes with the next ticks."""
TRIES = 3
"""Runs for the same thing with the same inputs, when runs die."""
_ASKED = "neuralpile/asked"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def version_sensor(datasets: Sequence[Dataset]) -> dg.SensorDefinition:
    """``new_dandiset_versions``: one API call per dandiset and tick; asks for the manifest of what changed."""
    watched = [dataset for dataset in datasets if not dataset.synthetic]

    @dg.sensor(
        name="new_dandiset_versions",
        asset_selection=dg.AssetSelection.assets(*(names.manifest_key(row) for row in datasets)),
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Looks for newer published versions and changed listings of the sources, once an hour, and "
        "materializes the manifests of those that changed. The first tick only takes note.",
    )
    def new_dandiset_versions(context: dg.SensorEvaluationContext, instance: InstanceResource) -> dg.SensorResult:
        from neuralpile_dagster.archives.updates import source_state

        seen: dict[str, str] = json.loads(context.cursor or "{}")
        requests, troubles = [], {}
        for dataset in watched:
            try:
                state = source_state(instance.open_archive(dataset.source), dataset.source)
            except NeuralPileError as error:
                troubles[dataset.name] = str(error)
                context.log.warning(f"{dataset.name}: {error}")
                continue
            if seen.get(dataset.name, state) != state:
                run_key = f"{dataset.name}-{state}"
                requests.append(dg.RunRequest(run_key=run_key, asset_selection=[names.manifest_key(dataset)]))
            seen[dataset.name] = state
        note = f"{len(watched) - len(troubles)} sources unchanged, {len(troubles)} could not be asked"
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(note),
            cursor=json.dumps(seen),
        )

    return new_dandiset_versions


def current_sensor(datasets: Sequence[Dataset]) -> dg.SensorDefinition:
    """``keep_the_pile_current``: sessions, publications and the pile, as soon as our hashes say that they are due."""
    everything = [
        key
        for row in datasets
        for key in (names.spike_trains_key(row), names.spike_counts_key(row), names.hub_dataset_key(row))
    ]

    @dg.sensor(
        name="keep_the_pile_current",
        asset_selection=dg.AssetSelection.assets(
            *everything, names.PILE_MANIFEST, names.PILE_SHARDS, names.PILE_HUB_DATASET
        ),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="The one switch of automation. Builds sessions of the manifests that are missing or out of date, "
        "publishes a dataset when all its sessions are done (or the share NEURALPILE_MIN_SESSION_SHARE of them), then "
        "the pile, planned with the seed and split that a person chose last. Unchanged data are not made again, and a "
        "session that failed waits until its file, the code or a person changes something.",
    )
    def keep_the_pile_current(
        context: dg.SensorEvaluationContext, instance: InstanceResource
    ) -> dg.SensorResult | dg.SkipReason:
        store, settings = instance.open_store(), instance.settings
        requests: list[dg.RunRequest] = []
        for dataset in datasets:
            due = dataset_due(store, dataset, settings, settings.min_session_share)
            if due.sessions:
                requests += _session_requests(context.instance, dataset, due.sessions)
            elif due.publish:
                requests.append(_publish_request(dataset, due.publish, settings.min_session_share))
        pile = None if requests else pile_due(store, datasets, settings)
        if pile is not None:
            requests += _pile_requests(pile, pile_store.plan_config(store, settings))
        fresh = [again for request in requests if (again := _not_asked_before(context.instance, request))]
        if not fresh:
            return dg.SkipReason("Everything that the manifests name is current, under way, or has failed and waits.")
        return dg.SensorResult(run_requests=fresh[:RUNS_PER_TICK])

    return keep_the_pile_current


def _not_asked_before(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.RunRequest | None:
    """The request, unless a run for it is under way or it was tried `TRIES` times: a killed run leaves no failure."""
    earlier = instance.get_run_records(dg.RunsFilter(tags={_ASKED: str(request.run_key)}))
    if len(earlier) >= TRIES or not all(record.dagster_run.is_finished for record in earlier):
        return None
    tags = {**request.tags, _ASKED: str(request.run_key)}
    return request.with_replaced_attrs(run_key=f"{request.run_key}-{len(earlier)}", tags=tags)


def _session_requests(instance: dg.DagsterInstance, dataset: Dataset, due: dict[str, str]) -> Iterator[dg.RunRequest]:
    name = session_partitions(dataset).name
    assert name is not None
    assets = [names.spike_trains_key(dataset), names.spike_counts_key(dataset)]
    for batch in contiguous_batches(instance.get_dynamic_partitions(name), set(due), BATCH_SIZE):
        # the same sessions with the same inputs are asked for once
        digest = hashlib.sha256("\n".join(f"{key} {due[key]}" for key in batch).encode()).hexdigest()[:24]
        tags = dict(zip(_RANGE, (batch[0], batch[-1]), strict=True))
        yield dg.RunRequest(run_key=f"{dataset.name}-{digest}", asset_selection=assets, tags=tags)


def _publish_request(dataset: Dataset, inputs: str, share: float) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{dataset.name}-publish-{inputs[:24]}",
        asset_selection=[names.hub_dataset_key(dataset)],
        run_config={"ops": {f"{dataset.key}__hub_dataset": {"config": {"min_session_share": share}}}},
    )


def _pile_requests(due: PileDue, plan_config: dict[str, Any]) -> list[dg.RunRequest]:
    if due.plan:
        run_key = f"pile-plan-{due.inputs[:24]}"
        run_config = {"ops": plan_config} if plan_config else {}
        return [dg.RunRequest(run_key=run_key, asset_selection=[names.PILE_MANIFEST], run_config=run_config)]
    if due.shards:
        return [
            dg.RunRequest(run_key=f"shard-{name}", partition_key=name, asset_selection=[names.PILE_SHARDS])
            for name in due.shards
        ]
    return [dg.RunRequest(run_key=f"pile-publish-{due.inputs[:24]}", asset_selection=[names.PILE_HUB_DATASET])]
