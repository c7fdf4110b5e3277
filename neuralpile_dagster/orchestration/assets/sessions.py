"""Assets partitioned by session: ``<dataset>/spike_trains`` with ``<dataset>/spike_counts``, and its analyses.

Wiring only: the loops over sessions are in `batches.sessions` and `batches.analyses`, reading and binning in `session`,
the rows of analyses in `ledger.analyses`.
"""

from collections.abc import Iterator
from enum import Enum

import dagster as dg
from pydantic import Field

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger import kinds
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of
from neuralpile_dagster.orchestration import checks, names
from neuralpile_dagster.orchestration.batches.analyses import AnalysisBatch
from neuralpile_dagster.orchestration.batches.sessions import SessionBatch
from neuralpile_dagster.orchestration.describe import signed, spec_facts
from neuralpile_dagster.orchestration.names import session_partitions
from neuralpile_dagster.orchestration.pools import batch_size, pool_of, session_pool
from neuralpile_dagster.orchestration.progress import failing_in_words
from neuralpile_dagster.orchestration.resources import Instance


class AccessChoice(Enum):
    """Method of reading recordings from a remote archive."""

    ranges = "ranges"
    download = "download"


class SessionConfig(dg.Config):
    """Run configuration of assets that are partitioned by session."""

    access: AccessChoice = Field(
        default=AccessChoice.ranges,
        description="ranges: read only the spikes, by ranged requests. "
        "download: fetch whole files first, verify their digests, keep them in a cache.",
    )


def sessions_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Multi-asset that reads, bins and stores a dataset's sessions."""
    trains, counts = names.spike_trains_key(dataset), names.spike_counts_key(dataset)
    partitions = session_partitions(dataset)

    @dg.multi_asset(
        name=f"{dataset.key}__sessions",
        specs=[
            dg.AssetSpec(
                trains,
                deps=[names.manifest_key(dataset)],
                skippable=True,
                group_name=dataset.key,
                **spec_facts(dataset, kinds.SPIKE_TRAINS, sessions_asset),
            ),
            dg.AssetSpec(
                counts,
                deps=[trains],
                skippable=True,
                group_name=dataset.key,
                **spec_facts(dataset, kinds.SPIKE_COUNTS, sessions_asset),
            ),
        ],
        check_specs=checks.specs(dataset, "spike_counts"),
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=session_pool(dataset),
    )
    @signed
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            SessionBatch(context, instance, dataset, config.access.value).run()
        yield from ()  # every session's results are logged by then

    return sessions


def analysis_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """The assets of all analyses of a dataset."""
    return [_analysis_asset(dataset, analysis) for analysis in analyses_of(dataset)]


def _analysis_asset(dataset: Dataset, analysis: Analysis) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        names.asset_key(dataset, analysis),
        deps=[names.upstream_key(dataset, analysis)],
        skippable=True,
        group_name=dataset.key,
        **spec_facts(dataset, analysis, _analysis_asset),
    )

    @dg.multi_asset(
        name=f"{dataset.key}__{analysis.name}",
        specs=[spec],
        partitions_def=session_partitions(dataset),
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=pool_of(analysis, dataset),
    )
    @signed
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            AnalysisBatch(context, instance, dataset, analysis, config.access.value).run()
        yield from ()  # every session's result is logged by then

    return sessions
