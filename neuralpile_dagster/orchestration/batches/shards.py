"""A batch of the pile's shards, one after the other: a shard that fails costs only itself, as in `batches`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

import dagster as dg

from neuralpile_dagster.ledger import piles
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.shards import PileShard
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import batch_failure, patiently, told
from neuralpile_dagster.orchestration.metadata import pile as pile_metadata
from neuralpile_dagster.orchestration.progress import our_log
from neuralpile_dagster.orchestration.provenance import version_tags
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.tables.copying.sources import OpenFile

SHARDS_PER_RUN = 10
"""Shards that one run of a backfill makes: each takes seconds to a minute."""
SHARDS_VERSION = "1"


@dataclass
class ShardBatch:
    """The shards of one run of ``neural_pile/shards``.

    Raises `dagster.Failure` at the end of `run` when any shard failed.
    """

    context: dg.AssetExecutionContext
    instance: InstanceResource
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = our_log(self.context)
        self.settings = self.instance.settings
        self.store = self.instance.open_store()
        self.plan_of = lru_cache(maxsize=1)(self._load)

    def run(self) -> None:
        """Make every shard of the batch; see `ShardBatch`."""
        wanted = self.context.partition_keys
        for name in wanted:
            try:
                patiently(partial(self._shard, name), f"shard {name}", self.log)
            except Exception as error:  # noqa: BLE001 - told, and raised again, as one Failure, after the others
                self.failed[name] = told(error, f"shard {name}", self.log)
        if self.failed:
            raise batch_failure("shards of the pile", self.failed, len(wanted))

    @cached_property
    def _open_file(self) -> OpenFile:
        from neuralpile_dagster.ledger.piles import file_opener

        return file_opener(self.store, self.instance.open_hub())

    def _load(self, plan_id: str) -> PilePlan:
        from neuralpile_dagster.merge.plan import load_plan

        return load_plan(self.store, piles.plan_path(self.settings, plan_id))

    def _shard(self, name: str) -> None:
        from neuralpile_dagster.merge.shards import build_shard

        started, plan_id = time.monotonic(), name.split("-")[0]
        plan = self.plan_of(plan_id)
        folder = piles.shards_folder(self.settings, plan_id)
        shard = build_shard(self.store, folder, plan, name, self._open_file)
        self._record(plan, shard, time.monotonic() - started)
        self.log.info(f"shard {name}: {shard.rows:,} rows, {shard.tokens:,} tokens")

    def _record(self, plan: PilePlan, shard: PileShard, seconds: float) -> None:
        uri = self.store.uri(shard.file.key)
        facts = pile_metadata.shard_metadata(plan, shard, uri, seconds)
        tags = version_tags(shard.file.sha256[:32], SHARDS_VERSION, names.PILE_MANIFEST, plan.record.digest, None)
        event = dg.AssetMaterialization(names.PILE_SHARDS, partition=shard.name, metadata=facts, tags=tags)
        self.context.log_event(event)
