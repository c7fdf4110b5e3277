"""Sensors that request runs for what is out of date, and that tell people about runs that failed.

``keep_the_pile_current`` turns into run requests what `ledger.due` decides; ``new_dandiset_versions`` asks the archives
(`archives.model.source_state`) whether sources changed. Both are off until turned on in the UI. ``alert_on_failure`` is
on where the environment names a webhook or mailbox; how an alert is sent belongs in `net.alerts`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from neuralpile_dagster.archives.model import source_state
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.errors import ArchiveUnavailable, NeuralPileError
from neuralpile_dagster.ledger import documents, kinds, piles
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of
from neuralpile_dagster.ledger.due import PileDue, dataset_due, pile_due
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.status import PileAnalysisStanding, pile_standings
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.net.alerts import is_configured, send_alert
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.pile import SHARDS_PER_RUN
from neuralpile_dagster.orchestration.checks import refusals, refusals_of_made, waiting_for
from neuralpile_dagster.orchestration.describe import FRESH_FOR, batch_size
from neuralpile_dagster.orchestration.launch import PART_OF
from neuralpile_dagster.orchestration.resources import Instance, InstanceResource
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import read_record

if TYPE_CHECKING:
    from neuralpile_dagster.net.retry import RetryPolicy

RUNS_PER_TICK = 20
"""Run requests per tick; the rest follows at the next ticks, so that the queue stays short."""
TRIES = 3
"""Run requests for the same partitions with the same inputs, if runs die."""
TICK_BUDGET_S = 30.0
"""No source is checked later than this in a tick, of Dagster's 60 s; the next tick resumes where this one ended."""
MOST_CHARACTERS = 2000
"""Of a reason in an alert; chats cut longer texts, and the run's log has all of it."""
_ASKED = "neuralpile/asked"
_A_DAY = timedelta(days=1)


def current_sensor(datasets: Sequence[Dataset], some: Sequence[Pile]) -> dg.SensorDefinition:
    """Sensor that requests sessions, publications and piles as soon as their input hashes are out of date."""
    of_datasets = [
        names.asset_key(row, kind)
        for row in datasets
        for kind in (kinds.SPIKE_TRAINS, kinds.SPIKE_COUNTS, *analyses_of(row), kinds.HUB_DATASET)
    ]
    of_piles = [names.asset_key(row, kind) for row in some for kind in (*kinds.PILE_KINDS, *pile_analyses_of(row))]

    @dg.sensor(
        name="keep_the_pile_current",
        asset_selection=dg.AssetSelection.assets(*of_datasets, *of_piles),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="The one switch of automation. Builds sessions of the manifests that are missing or out of date, "
        "publishes a dataset when all its sessions are done (or the share NEURALPILE_MIN_SESSION_SHARE of them), then "
        "its piles, planned with the seed and split that a person chose last, and what is made of them. Up-to-date "
        "data are skipped, and a failed session is retried only after its file, the code or a setting has changed.",
    )
    def keep_the_pile_current(
        context: dg.SensorEvaluationContext, instance: Instance
    ) -> dg.SensorResult | dg.SkipReason:
        store, settings = instance.open_store(), instance.settings
        requests: list[dg.RunRequest] = []
        whys: list[str] = []
        of_piles: list[dg.RunRequest] = []
        for dataset in datasets:
            due = dataset_due(store, dataset, settings, settings.min_session_share)
            whys.append(f"{dataset.name}: {due.why}")
            for analysis in analyses_of(dataset):
                if lacking := due.analyses.get(analysis.name):
                    requests += _session_requests(context.instance, dataset, lacking, analysis)
            if due.sessions:
                requests += _session_requests(context.instance, dataset, due.sessions)
            elif due.publish:
                requests.append(_publish_request(dataset, due.publish, settings.min_session_share))
        for pile in () if requests else some:
            if (pile_lacks := pile_due(store, pile, datasets, settings)) is not None:
                config = piles.plan_config(store, pile, settings)
                refused = refusals(context.instance, "hub_dataset", piles.planned_members(pile, datasets, config))
                if not refused:
                    of_piles += _pile_requests(context.instance, pile, pile_lacks, config)
            elif not (refused := refusals(context.instance, "pile", [pile])):
                for standing in pile_standings(store, pile, datasets, settings):
                    of_piles += _made_of_pile_requests(context.instance, pile, standing)
                    if refused := refusals_of_made(context.instance, pile, standing.analysis):
                        break  # what follows would be made of it
            whys += [f"{pile.name}: {waiting_for(refused)}"] if refused else []
        requests += of_piles
        fresh = [again for request in requests if (again := _deduplicate(context.instance, request))]
        if not fresh:
            return dg.SkipReason(_nothing_to_do(whys, bool(requests)))
        return dg.SensorResult(run_requests=fresh[:RUNS_PER_TICK])

    return keep_the_pile_current


def _nothing_to_do(whys: Sequence[str], requested: bool) -> str:
    """Why a tick requests nothing, per dataset: those that have begun first, each reason of many once."""
    begun = [why for why in whys if not why.endswith(": up to date") and ": not started" not in why]
    lines = ["What is due was requested, and is running or has failed." if requested else "Nothing is due.", *begun]
    for ending, words in ((": up to date", "up to date"), (": not started", "not started, for want of a manifest")):
        if number := sum(ending in why for why in whys):
            lines.append(f"{plural(number, 'dataset')} {words}")
    return "; ".join(line.rstrip(".") for line in lines) + "."


def _session_requests(
    instance: dg.DagsterInstance, dataset: Dataset, due: Mapping[str, str], analysis: Analysis | None = None
) -> Iterator[dg.RunRequest]:
    """Run requests for the due sessions of a dataset, or of an analysis of it."""
    made = [kinds.SPIKE_TRAINS, kinds.SPIKE_COUNTS] if analysis is None else [analysis]
    what = dataset.name if analysis is None else f"{dataset.name}-{analysis.name}"
    assets = [names.asset_key(dataset, kind) for kind in made]
    return _batches(instance, names.session_partitions(dataset), due, batch_size(dataset), assets, what)


def _batches(
    instance: dg.DagsterInstance,
    partitions: dg.PartitionsDefinition[str],
    due: Mapping[str, str],
    size: int,
    assets: Sequence[dg.AssetKey],
    what: str,
) -> Iterator[dg.RunRequest]:
    """Run requests for ranges of due partitions, with a hash of their inputs each."""
    for batch in names.contiguous_batches(instance, partitions, due, size):
        # the same partitions with the same inputs are requested once
        digest = hashlib.sha256("\n".join(f"{key} {due[key]}" for key in batch).encode()).hexdigest()[:24]
        yield dg.RunRequest(run_key=f"{what}-{digest}", asset_selection=list(assets), tags=names.range_tags(batch))


def _publish_request(dataset: Dataset, inputs: str, share: float) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{dataset.name}-publish-{inputs[:24]}",
        asset_selection=[names.hub_dataset_key(dataset)],
        run_config={"ops": {f"{dataset.key}__hub_dataset": {"config": {"min_session_share": share}}}},
    )


def _pile_requests(
    instance: dg.DagsterInstance, pile: Pile, due: PileDue, plan_config: dict[str, Any]
) -> list[dg.RunRequest]:
    manifest, shards, hub_dataset = (names.asset_key(pile, kind) for kind in kinds.PILE_KINDS)
    # keys of runs of before, so that what is under way is not requested twice
    name = "pile" if pile.name == NEURAL_PILE.name else f"pile-{pile.name}"
    if due.plan:
        run_config = {"ops": plan_config} if plan_config else {}
        run_key = f"{name}-plan-{due.inputs[:24]}"
        return [dg.RunRequest(run_key=run_key, asset_selection=[manifest], run_config=run_config)]
    if due.shards:
        lacking = dict.fromkeys(due.shards, due.inputs)
        partitions = names.shard_partitions(pile)
        return list(_batches(instance, partitions, lacking, SHARDS_PER_RUN, [shards], f"{name}-shards"))
    return [dg.RunRequest(run_key=f"{name}-publish-{due.inputs[:24]}", asset_selection=[hub_dataset])]


def _made_of_pile_requests(
    instance: dg.DagsterInstance, pile: Pile, standing: PileAnalysisStanding
) -> Iterator[dg.RunRequest]:
    row, due = standing.analysis, standing.due
    assets, what = [names.asset_key(pile, row)], f"{pile.name}-{row.name}"
    if (partitions := names.analysis_partitions(pile, row)) is not None:
        yield from _batches(instance, partitions, due, row.per_run, assets, what)
    else:
        for inputs in due.values():
            yield dg.RunRequest(run_key=f"{what}-{inputs[:24]}", asset_selection=assets)


def _deduplicate(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.RunRequest | None:
    """Deduplicate run requests: repeat one only if its run died (which records no failure), at most `TRIES` times."""
    earlier = instance.get_run_records(dg.RunsFilter(tags={_ASKED: str(request.run_key)}))
    if len(earlier) >= TRIES or not all(record.dagster_run.is_finished for record in earlier):
        return None
    tags = {**request.tags, _ASKED: str(request.run_key)}
    return request.with_replaced_attrs(run_key=f"{request.run_key}-{len(earlier)}", tags=tags)


@dataclass
class _TickResult:
    """Results of one tick."""

    position: int
    changed: list[dg.RunRequest] = field(default_factory=list)
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
        seen = _check_sources(watched, _last_position(context.cursor), instance, clock)
        for note in seen.notes:
            context.log.warning(note)
        requests = [fresh for request in seen.changed if (fresh := _deduplicate(context.instance, request))]
        checked = f"{plural(seen.asked, 'source')} checked, {len(seen.changed)} to list again"
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("; ".join([checked, *seen.notes])),
            cursor=json.dumps({"next": seen.position}),
        )

    return new_dandiset_versions


def _last_position(cursor: str | None) -> int:
    """Position at which the last tick ended."""
    position = json.loads(cursor or "{}").get("next", 0)
    return position if isinstance(position, int) else 0


def _check_sources(
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


def impatient() -> RetryPolicy:
    """An unavailable archive is checked again at the next tick; twice these timeouts fit after `TICK_BUDGET_S`."""
    from neuralpile_dagster.net.retry import RetryPolicy  # with its library, which the code location does not need

    return RetryPolicy(attempts=2, connect_timeout_s=4.0, read_timeout_s=8.0, retry_after_max_s=2.0)


def _compare(dataset: Dataset, instance: InstanceResource, seen: _TickResult) -> None:
    manifest = read_record(instance.open_store(), documents.manifest_path(dataset), Manifest)
    if manifest is None:
        return
    state = source_state(instance.open_archive(dataset.source, impatient()), dataset.source)
    seen.asked += 1
    if state.newer_version:
        seen.notes.append(f"{dataset.name}: {state.newer_version}")
    if (manifest.source_id, manifest.source_state) != (dataset.source.id, state.token):
        seen.changed.append(_manifest_request(dataset, state.token))
    elif datetime.now(UTC) - manifest.listed_at > FRESH_FOR - _A_DAY:
        # listed again, so that its freshness in the UI says that somebody looks
        seen.changed.append(_manifest_request(dataset, f"{state.token} listed {manifest.listed_at.isoformat()}"))


def _manifest_request(dataset: Dataset, state: str) -> dg.RunRequest:
    digest = hashlib.sha256(f"{dataset.source.id} {state}".encode()).hexdigest()[:24]
    return dg.RunRequest(run_key=f"{dataset.name}-listed-{digest}", asset_selection=[names.manifest_key(dataset)])


def alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """Sensor that sends an alert for each failed run; it is on where the environment says where to send them."""
    status = dg.DefaultSensorStatus.RUNNING if is_configured() else dg.DefaultSensorStatus.STOPPED

    @dg.run_failure_sensor(
        name="alert_on_failure",
        minimum_interval_seconds=30,
        monitor_all_code_locations=True,  # runs of the command line have no code location
        default_status=status,
        description="Sends the reason of each failed run to NEURALPILE_ALERT_WEBHOOK (of Slack, or any that takes JSON "
        "with a text) and NEURALPILE_ALERT_MAIL (smtp://user:password@host:587/?from=...&to=...). It is on from "
        "the start where one of them is set.",
    )
    def alert_on_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if PART_OF in run.tags:
            return dg.SkipReason(f"The job that started the run {run.run_id} reports it.")
        if not is_configured():
            return dg.SkipReason("Neither NEURALPILE_ALERT_WEBHOOK nor NEURALPILE_ALERT_MAIL is set.")
        where = send_alert(f"{what_ran(run)} failed", _text(context, settings))
        context.log.info(f"sent to {' and '.join(where)}")
        return None

    return alert_on_failure


def what_ran(run: dg.DagsterRun) -> str:
    """Name of the job, or the assets of a run."""
    if not run.asset_selection:
        return run.job_name
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))


def _text(context: dg.RunFailureSensorContext, settings: Settings) -> str:
    # with psutil, which the code location does not need
    from neuralpile_dagster.orchestration.serving import address_of

    reasons = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        description = data.user_failure_data.description if data.user_failure_data else None
        reasons.append(description or (data.error.message.strip() if data.error else ""))
    reason = " | ".join(filter(None, reasons)) or context.failure_event.message or "see its log"
    if len(reason) > MOST_CHARACTERS:
        reason = f"{reason[:MOST_CHARACTERS]} ..."
    address = address_of(settings.home)
    run_id = context.dagster_run.run_id
    return f"{reason}\n{f'{address}/runs/{run_id}' if address else f'run {run_id}'}"
