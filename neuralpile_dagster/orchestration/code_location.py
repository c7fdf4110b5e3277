"""All definitions of an instance, for Dagster's processes, and the named jobs among them.

A named job does what takes an operator more than one click on assets: build a dataset, retry failures, publish all.
What is due is decided in `ledger`; sessions are made in `batches`, and runs of assets are started by `launch`. What an
asset, a check or a sensor is stands in modules of its own.
"""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg
from pydantic import Field

from neuralpile_dagster.catalog.load import get_dataset, load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import analyses_of
from neuralpile_dagster.ledger.due import dataset_due, pile_due
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.status import pile_standings
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration.assets import (
    dataset_definitions,
    how_runs_go,
    job_of_assets,
    pile_definitions,
)
from neuralpile_dagster.orchestration.assets.dataset import SessionConfig
from neuralpile_dagster.orchestration.batches.base import PartitionBatch, batch_failure
from neuralpile_dagster.orchestration.batches.pile import PileAnalysisBatch
from neuralpile_dagster.orchestration.batches.sessions import AnalysisBatch, SessionBatch
from neuralpile_dagster.orchestration.describe import session_pool
from neuralpile_dagster.orchestration.launch import PART_OF, Launcher
from neuralpile_dagster.orchestration.overview import overview_asset, pages_sensor
from neuralpile_dagster.orchestration.progress import failing_in_words, progress_of
from neuralpile_dagster.orchestration.resources import Instance, InstanceResource
from neuralpile_dagster.orchestration.sensors import alert_sensor, current_sensor, version_sensor
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import read_record


class RetryConfig(SessionConfig):
    """Run configuration of ``retry_failed``."""

    datasets: list[str] = Field(default=[], description="Datasets whose failed sessions to retry; empty: all.")


class ShareConfig(dg.Config):
    """Run configuration of jobs that publish."""

    min_session_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of a dataset's sessions, from 0 to 1, that must be done to publish it; the card names "
        "those that are missing. Empty: as NEURALPILE_MIN_SESSION_SHARE says.",
    )


class BuildConfig(ShareConfig):
    """Run configuration of jobs that build a dataset."""

    annotations: bool = Field(
        default=False,
        description="Also read trials, epochs, stimuli and unit metrics of the sessions that lack them, before "
        "publishing.",
    )


def build_definitions(settings: Settings, datasets: Iterable[Dataset] | None = None) -> dg.Definitions:
    """All definitions of an instance; ``datasets`` replaces its catalog."""
    rows = list(load_catalog(settings).values() if datasets is None else datasets)
    piles = load_piles(settings, rows)
    shared = dg.Definitions(
        assets=[overview_asset(rows, piles)],
        jobs=[_retry_failed(rows, piles), _publish_all(rows, piles), *_builds(rows)],
        sensors=[version_sensor(rows), current_sensor(rows, piles), pages_sensor(rows, piles), alert_sensor(settings)],
        **how_runs_go(settings),
    )
    of_piles = (pile_definitions(pile, rows) for pile in piles)
    return dg.Definitions.merge(shared, *of_piles, *(dataset_definitions(row) for row in rows))


def _builds(datasets: Sequence[Dataset]) -> list[dg.JobDefinition]:
    """The jobs ``build_<dataset>``, which share one op: as it is made, Dagster infers its configuration."""
    by_job = {f"build_{row.key}": row for row in datasets}

    @dg.op
    def build(context: dg.OpExecutionContext, config: BuildConfig, instance: Instance) -> None:
        dataset = by_job[context.job_name]
        share = instance.settings.min_session_share if config.min_session_share is None else config.min_session_share
        launcher = _launcher(context, instance, [dataset])
        with failing_in_words():
            launcher.dataset(dataset, None, None, share if share < 1 else None, config.annotations)
        _finish(context, launcher)

    return [_build(name, row, build) for name, row in by_job.items()]


def _build(name: str, dataset: Dataset, build: dg.OpDefinition) -> dg.JobDefinition:
    @dg.job(
        name=name,
        description=f"Lists the sessions of {dataset.name}, makes those that are missing or out of date, and publishes "
        "them, as `neuralpile build` does. Each step is a run of its own in the list of runs; what is up to date is "
        "skipped.",
        tags={"dataset": dataset.name},
    )
    def job() -> None:
        build.alias(f"list_make_and_publish_{dataset.key}")()

    return job


def _publish_all(datasets: Sequence[Dataset], piles: Sequence[Pile]) -> dg.JobDefinition:
    @dg.op(name="publish_what_is_due")
    def publish(context: dg.OpExecutionContext, config: ShareConfig, instance: Instance) -> None:
        settings, store = instance.settings, instance.open_store()
        share = settings.min_session_share if config.min_session_share is None else config.min_session_share
        launcher = _launcher(context, instance, datasets, piles)
        with failing_in_words():
            for dataset in datasets:
                due = dataset_due(store, dataset, settings, share)
                if due.publish:
                    launcher.publish(dataset, share)
                else:
                    context.log.info(f"{dataset.name}: {due.why}")
            for pile in piles:
                if pile_due(store, pile, datasets, settings) is not None:
                    launcher.pile(pile)
                else:
                    launcher.made_of(pile)
        _finish(context, launcher)

    @dg.job(
        name="publish_all",
        description="Publishes every dataset whose sessions are done and not published as they are now, then each "
        "pile of those that are published, with the seed and split of its last plan, and what is made of it. It "
        "makes no session's spike counts.",
    )
    def job() -> None:
        publish()

    return job


def _launcher(
    context: dg.OpExecutionContext, instance: InstanceResource, datasets: Sequence[Dataset], piles: Sequence[Pile] = ()
) -> Launcher:
    job = job_of_assets(instance.settings, datasets, piles, datasets)
    tags = {PART_OF: context.job_name, "neuralpile/job_run": context.run.run_id}
    return Launcher(instance.settings, context.instance, job, tags, datasets)


def _finish(context: dg.OpExecutionContext, launcher: Launcher) -> None:
    """Log what was made; raises `dagster.Failure` when anything failed."""
    tell, outcome = progress_of(context), launcher.outcome
    if outcome.failed:
        raise dg.Failure(outcome.summary(), allow_retries=False)
    tell(outcome.summary() or "nothing was due")


def _retry_failed(datasets: Sequence[Dataset], piles: Sequence[Pile]) -> dg.JobDefinition:
    # the pool of an op is fixed: sessions that need much memory have one of their own
    ops = [
        _retry_op(pool, [row for row in datasets if session_pool(row) == pool], {row.name: row for row in datasets})
        for pool in sorted({session_pool(row) for row in datasets})
    ]
    if any(pile_analyses_of(pile) for pile in piles):
        ops.append(_retry_of_piles_op(datasets, piles))

    @dg.job(
        name="retry_failed",
        description="Makes all sessions whose last attempt failed, of every dataset, and the failed sessions of "
        "analyses and partitions of what is made of piles, in this one run, however scattered they are. One that fails "
        "again does not stop the others.",
    )
    def job() -> None:
        for op in ops:
            op()

    return job


def _retry_op(pool: str, datasets: Sequence[Dataset], known: dict[str, Dataset]) -> dg.OpDefinition:
    @dg.op(name=f"retry_failed_in_{pool}", pool=pool)
    def retry(context: dg.OpExecutionContext, config: RetryConfig, instance: Instance) -> None:
        with failing_in_words():
            for name in config.datasets:
                get_dataset(known, name)  # refuse a name that no dataset has
            chosen = [row for row in datasets if row.name in config.datasets or not config.datasets]
            _try_again(context, _failed_batches(context, config, instance, chosen))

    return retry


def _retry_of_piles_op(datasets: Sequence[Dataset], piles: Sequence[Pile]) -> dg.OpDefinition:
    @dg.op(name="retry_failed_of_piles")
    def retry(context: dg.OpExecutionContext, instance: Instance) -> None:
        store, settings = instance.open_store(), instance.settings
        with failing_in_words():
            batches = (
                PileAnalysisBatch(context, instance, pile, datasets, standing.analysis, chosen=list(standing.failed))
                for pile in piles
                for standing in pile_standings(store, pile, datasets, settings)
                if standing.failed
            )
            _try_again(context, batches)

    return retry


def _try_again(context: dg.OpExecutionContext, batches: Iterable[PartitionBatch]) -> None:
    """Run all batches; raises `dagster.Failure` at the end when anything of them failed again."""
    failed: dict[str, str] = {}
    tried = 0
    for batch in batches:
        tried += len(batch.chosen or ())
        try:
            batch.run()
        except dg.Failure:
            failed |= {batch.label(key): reason for key, reason in batch.failed.items()}
    known = plural(tried, "failed partition")
    progress_of(context)(f"{tried - len(failed)} of {known} are done now" if tried else "no partition has failed")
    if failed:
        raise batch_failure("failed partition", failed, tried)


def _failed_batches(
    context: dg.OpExecutionContext, config: RetryConfig, instance: InstanceResource, datasets: Sequence[Dataset]
) -> Iterator[PartitionBatch]:
    """A batch per dataset and kind of asset that has failed sessions."""
    store, settings = instance.open_store(), instance.settings
    for dataset in datasets:
        manifest = read_record(store, documents.manifest_path(dataset), Manifest)
        if manifest is None:
            continue
        listed = [session.key for session in manifest.sessions if not session.vanished]
        failures = documents.read_failures(store, dataset, settings)
        if keys := [key for key in listed if key in failures]:
            yield SessionBatch(context, instance, dataset, config.access, chosen=keys)
        for analysis in analyses_of(dataset):
            failures = documents.read_failures(store, dataset, settings, analysis.name)
            if keys := [key for key in listed if key in failures]:
                yield AnalysisBatch(context, instance, dataset, config.access, analysis, chosen=keys)
