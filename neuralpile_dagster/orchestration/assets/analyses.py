"""Assets ``<dataset>/<analysis>``: one partitioned asset per analysis of a dataset.

Wiring only: rows are in `ledger.analyses`, the loop over sessions is in `batches.analyses`.
"""

from collections.abc import Iterator

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.assets.sessions import SessionConfig
from neuralpile_dagster.orchestration.batches.analyses import AnalysisBatch
from neuralpile_dagster.orchestration.describe import spec_facts
from neuralpile_dagster.orchestration.names import session_partitions
from neuralpile_dagster.orchestration.pools import batch_size, pool_of
from neuralpile_dagster.orchestration.progress import failing_in_words
from neuralpile_dagster.orchestration.resources import Instance


def analysis_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """The assets of all analyses of a dataset."""
    return [_analysis_asset(dataset, analysis) for analysis in analyses_of(dataset)]


def _analysis_asset(dataset: Dataset, analysis: Analysis) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        names.asset_key(dataset, analysis),
        deps=[names.upstream_key(dataset, analysis)],
        skippable=True,
        group_name=dataset.key,
        **spec_facts(dataset, analysis),
    )

    @dg.multi_asset(
        name=f"{dataset.key}__{analysis.name}",
        specs=[spec],
        partitions_def=session_partitions(dataset),
        backfill_policy=dg.BackfillPolicy.multi_run(batch_size(dataset)),
        pool=pool_of(analysis, dataset),
    )
    def sessions(
        context: dg.AssetExecutionContext, config: SessionConfig, instance: Instance
    ) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            AnalysisBatch(context, instance, dataset, analysis, config.access.value).run()
        yield from ()  # every session's result is logged by then

    return sessions
