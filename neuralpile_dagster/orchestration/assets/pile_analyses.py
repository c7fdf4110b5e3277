"""Assets made of a planned pile, ``<pile>/<kind>``: one for each row that the pile's configuration asks for.

Wiring only: the rows are in `ledger.pile_analyses`, the loop over partitions in `batches.pile_analyses`.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger.kinds import PILE_SHARDS, AssetKind
from neuralpile_dagster.ledger.pile_analyses.model import PileAnalysis
from neuralpile_dagster.ledger.pile_analyses.rows import pile_analyses_of
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.pile_analyses import PileAnalysisBatch
from neuralpile_dagster.orchestration.describe import pile_facts
from neuralpile_dagster.orchestration.names import analysis_partitions
from neuralpile_dagster.orchestration.pools import pool_of
from neuralpile_dagster.orchestration.progress import failing_in_words
from neuralpile_dagster.orchestration.resources import Instance


def pile_analysis_assets(pile: Pile, datasets: Sequence[Dataset]) -> list[dg.AssetsDefinition]:
    """The assets of everything made of a pile; ``datasets`` are its members."""
    return [_asset(pile, datasets, row) for row in pile_analyses_of(pile)]


def _asset(pile: Pile, datasets: Sequence[Dataset], row: PileAnalysis) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=f"{pile.key}__{row.name}",
        specs=[
            dg.AssetSpec(
                names.asset_key(pile, row),
                deps=[*_of_pile(pile, row), *_of_members(datasets, row)],
                skippable=True,
                **pile_facts(pile, row, datasets, _asset),
            )
        ],
        partitions_def=analysis_partitions(pile, row),
        backfill_policy=dg.BackfillPolicy.multi_run(row.per_run) if row.partitions != "none" else None,
        pool=pool_of(row, None),
    )
    def partitions(context: dg.AssetExecutionContext, instance: Instance) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            batch = PileAnalysisBatch(context, instance, pile, datasets, row)
            batch.run()
        yield from batch.results  # every partition is recorded by then

    return partitions


def _partitions(kind: AssetKind) -> str:
    if isinstance(kind, PileAnalysis):
        return kind.partitions
    return "shards" if kind is PILE_SHARDS else "none"


def _of_pile(pile: Pile, row: PileAnalysis) -> Iterator[dg.AssetDep]:
    for upstream in row.upstream:
        every = _partitions(upstream) not in ("none", row.partitions)
        mapping = dg.AllPartitionMapping() if every else None
        yield dg.AssetDep(names.asset_key(pile, upstream), partition_mapping=mapping)


def _of_members(datasets: Sequence[Dataset], row: PileAnalysis) -> Iterator[dg.AssetDep]:
    for key in names.member_keys(datasets, row):
        yield dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
