"""Assets of a pile, ``<pile>/*``: the components merged, split and published, and what is made of the planned pile.

Wiring only: plans and shards are made in `merge`, the repository in `publish`. What is made of a pile is one asset for
each row of `ledger.pile_analyses` that the pile's configuration asks for. The loops over partitions are in
`batches.pile`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import dagster as dg
from pydantic import Field, create_model

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import documents, kinds, piles
from neuralpile_dagster.ledger.due import published_components
from neuralpile_dagster.ledger.kinds import AssetKind
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis
from neuralpile_dagster.ledger.publishing import publish_pile
from neuralpile_dagster.ledger.splits import split_inputs
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.plan import plan_pile, save_plan
from neuralpile_dagster.merge.split_table import describe_plan
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import PartitionBatch
from neuralpile_dagster.orchestration.batches.pile import SHARDS_PER_RUN, PileAnalysisBatch, ShardBatch
from neuralpile_dagster.orchestration.describe import HUB_POOL, pile_facts, pool_of
from neuralpile_dagster.orchestration.metadata import folder_rasters
from neuralpile_dagster.orchestration.metadata.pile import pile_metadata, plan_metadata, split_metadata
from neuralpile_dagster.orchestration.progress import failing_in_words, forward_wait_warnings, progress_of
from neuralpile_dagster.orchestration.resources import Instance
from neuralpile_dagster.records import HeldOutGoTo, Order, SplitBy, SplitRule, SplitRules
from neuralpile_dagster.store import write_record


class PileConfig(dg.Config):
    """Run configuration of a pile's manifest."""

    seed: int = Field(default=0, ge=0, description="Seed of split and shuffle: same seed and inputs, same bytes.")
    split_by: SplitBy = Field(
        default="rows",
        description="rows: as the published pile, segments of one session may be in both splits. "
        "sessions: a session is wholly in one split; subjects, datasets: an animal, a dataset is (with split_rule: "
        "hash).",
    )
    split_rule: SplitRule = Field(
        default="permutation",
        description="permutation: as the published pile; an added session draws all splits again. "
        "hash: a session's split depends on its own name only, so that none moves when others come or go.",
    )
    test_size: float = Field(
        default=0.01, gt=0, lt=1, description="Share of rows (or sessions, ...) that become test; by hash on average."
    )
    valid_size: float = Field(
        default=0.0, ge=0, lt=1, description="Share that becomes a split valid; 0: there is none."
    )
    hold_out: list[str] = Field(
        default=[],
        description="What no model may train on: benchmark:<name>, dataset:<name>, session:<dataset>/<glob>, "
        "subject:<dataset>/<subject>.",
    )
    held_out_go_to: HeldOutGoTo = Field(
        default="test", description="test: what is held out is in test. leave_out: it is not in the pile."
    )
    order: Order = Field(
        default="as_published",
        description="as_published: one shuffle of all rows; an added session changes every shard. hash: each row has "
        "its place by its own name; an added session changes at most as many shards as it has rows.",
    )
    components: list[str] = Field(default=[], description="Datasets to merge; empty: all that are published.")
    extra_repositories: list[str] = Field(
        default=[], description="Repositories of other owners (owner/name) with the same row schema, read from the hub."
    )
    extra_splits: list[str] = Field(
        default=["train"], description="Splits of extra_repositories whose rows are merged: train, valid, test."
    )
    merge_from: Literal["store", "hub"] = Field(
        default="store", description="Read our components' rows from the store, or back from the hub."
    )

    def rules(self) -> SplitRules:
        """Those of the fields that say how to split beyond ``split_by`` and ``test_size``."""
        return SplitRules.model_validate(
            {name: value for name, value in self if name in SplitRules.model_fields}, strict=False
        )


def config_of(pile: Pile) -> type[PileConfig]:
    """`PileConfig` with the defaults that a pile's row states."""
    if not pile.planned_with:
        return PileConfig
    stated = PileConfig.model_validate(pile.planned_with)
    fields: dict[str, Any] = {}
    for name in pile.planned_with:
        known = PileConfig.model_fields[name]
        fields[name] = (known.annotation, known.merge_field_infos(known, default=getattr(stated, name)))
    return create_model("PileConfig", __base__=PileConfig, **fields)


def pile_assets(pile: Pile, datasets: Sequence[Dataset]) -> list[dg.AssetsDefinition]:
    """The three assets of a pile, and those of everything made of it; ``datasets`` are its members."""
    made = (_made_of_pile(pile, datasets, row) for row in pile_analyses_of(pile))
    return [_manifest(pile, datasets), _shards(pile, datasets), _hub_dataset(pile, datasets), *made]


def _manifest(pile: Pile, datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.manifest_key(pile),
        deps=[names.hub_dataset_key(dataset) for dataset in datasets],
        **pile_facts(pile, kinds.PILE_MANIFEST, datasets, _manifest),
    )
    def pile_manifest(
        context: dg.AssetExecutionContext,
        config: config_of(pile),  # type: ignore[valid-type]
        instance: Instance,
    ) -> dg.MaterializeResult:
        with failing_in_words(), forward_wait_warnings(context):
            started, store, settings = time.monotonic(), instance.open_store(), instance.settings
            hub = instance.open_hub()
            chosen = piles.choose_components(
                datasets,
                store,
                hub,
                settings,
                components=config.components,
                extra_repositories=config.extra_repositories,
                merge_from=config.merge_from,
                extra_splits=config.extra_splits,
            )
            inputs = split_inputs(pile, datasets, store, hub, settings, chosen, config.rules())
            plan = plan_pile(
                chosen.sources,
                seed=config.seed,
                split_by=config.split_by,
                test_size=config.test_size,
                rules=inputs.rules,
                identities=inputs.identities,
                held_out=inputs.held_out,
                earlier=inputs.earlier,
            )
            record = save_plan(store, piles.plan_path(pile, settings, plan.record.plan_id), plan)
            published = published_components(store, datasets, settings)
            current = piles.CurrentPlan(
                plan_id=record.plan_id,
                inputs=piles.inputs_digest(published),
                repositories=chosen.repositories,
                left_out=chosen.left_out,
                synthetic=chosen.synthetic,
                choices=config.model_dump(),
                stated=pile.planned_with,
                splits_left_out=chosen.splits_left_out,
            )
            write_record(store, piles.current_path(pile, settings), current)
            names.register(context.instance, names.shard_partitions(pile), [shard.name for shard in record.shards])
            rows, shards = plural(record.totals.rows, "row"), plural(len(record.shards), "shard")
            progress_of(context)(f"{pile.name} {record.plan_id}: {rows} in {shards}")
            return dg.MaterializeResult(
                metadata={
                    **plan_metadata(record, chosen.left_out, chosen.synthetic, published),
                    **split_metadata(*describe_plan(plan, inputs.identities)),
                    "seconds": round(time.monotonic() - started, 3),
                    "dagster/uri": store.uri(f"{piles.plan_path(pile, settings, record.plan_id)}.json"),
                },
                data_version=dg.DataVersion(record.digest),
            )

    return pile_manifest


def _shards(pile: Pile, datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    deps = [dg.AssetDep(names.manifest_key(pile))]
    batch = partial(ShardBatch, pile=pile)
    facts = pile_facts(pile, kinds.PILE_SHARDS, datasets, _shards)
    return _partitioned(pile, kinds.PILE_SHARDS, facts, deps, names.shard_partitions(pile), SHARDS_PER_RUN, batch)


def _made_of_pile(pile: Pile, datasets: Sequence[Dataset], row: PileAnalysis) -> dg.AssetsDefinition:
    deps = [_dep_of_upstream(pile, upstream, row) for upstream in row.upstream]
    members = names.member_keys(datasets, row)
    deps += [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in members]
    batch = partial(PileAnalysisBatch, pile=pile, datasets=datasets, analysis=row)
    facts = pile_facts(pile, row, datasets, _made_of_pile)
    return _partitioned(pile, row, facts, deps, names.analysis_partitions(pile, row), row.per_run, batch)


def _dep_of_upstream(pile: Pile, upstream: AssetKind, row: PileAnalysis) -> dg.AssetDep:
    """What is made of a pile needs all partitions of what has others than it."""
    partitions = "shards" if upstream is kinds.PILE_SHARDS else "none"
    if isinstance(upstream, PileAnalysis):
        partitions = upstream.partitions
    every = partitions not in ("none", row.partitions)
    return dg.AssetDep(names.asset_key(pile, upstream), partition_mapping=dg.AllPartitionMapping() if every else None)


def _partitioned(
    pile: Pile,
    kind: AssetKind,
    facts: Mapping[str, Any],
    deps: Sequence[dg.AssetDep],
    partitions: dg.PartitionsDefinition[str] | None,
    per_run: int,
    batch: Callable[..., PartitionBatch],
) -> dg.AssetsDefinition:
    """Multi-asset of a kind that is made of a pile in a ``batch``, of ``per_run`` partitions where it has some."""

    @dg.multi_asset(
        name=f"{pile.key}__{kind.name}",
        specs=[dg.AssetSpec(names.asset_key(pile, kind), deps=deps, skippable=True, **facts)],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(per_run) if partitions is not None else None,
        pool=pool_of(kind, None),
    )
    def made(context: dg.AssetExecutionContext, instance: Instance) -> Iterator[dg.MaterializeResult]:
        with failing_in_words():
            run = batch(context, instance)
            run.run()
        yield from run.results  # every partition is recorded by then

    return made


def _hub_dataset(pile: Pile, datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.hub_dataset_key(pile),
        deps=[
            dg.AssetDep(names.manifest_key(pile)),
            dg.AssetDep(names.pile_shards_key(pile), partition_mapping=dg.AllPartitionMapping()),
        ],
        pool=HUB_POOL,
        **pile_facts(pile, kinds.PILE_HUB_DATASET, datasets, _hub_dataset),
    )
    def pile_hub_dataset(context: dg.AssetExecutionContext, instance: Instance) -> dg.MaterializeResult:
        with failing_in_words(), forward_wait_warnings(context):
            started = time.monotonic()
            store, settings = instance.open_store(), instance.settings
            by_name = {documents.repository_name(dataset, settings): dataset for dataset in datasets}
            done = publish_pile(store, pile, settings, instance.open_hub(), by_name, progress_of(context))
            folder = documents.staging_folder(settings, piles.repository_name(pile, settings))
            return dg.MaterializeResult(
                metadata=pile_metadata(
                    done.plan,
                    done.left_out,
                    published_components(store, datasets, settings),
                    done.publication,
                    done.record,
                    time.monotonic() - started,
                    done.synthetic,
                    folder_rasters(folder, done.synthetic, "the pile"),
                ),
                data_version=dg.DataVersion(done.publication.version),
            )

    return pile_hub_dataset
