"""Batch of the pile's shards: a failed shard does not stop the others. How a shard is written is in `merge.shards`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property, lru_cache

import dagster as dg

from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.ledger.kinds import PILE_SHARDS
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.shards import DigestOf, PileShard
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import PartitionBatch
from neuralpile_dagster.orchestration.metadata import pile as pile_metadata
from neuralpile_dagster.orchestration.provenance import version_tags
from neuralpile_dagster.tables.copying.sources import FileOpener

SHARDS_PER_RUN = 10
"""Shards per run of a backfill; each takes seconds to a minute."""


@dataclass
class ShardBatch(PartitionBatch):
    """The shards of one run of ``<pile>/shards``."""

    pile: Pile
    thing = "shard"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan_of = lru_cache(maxsize=1)(self._load)

    @property
    def whole(self) -> str:
        """Name of the pile."""
        return self.pile.name

    @property
    def assets(self) -> tuple[dg.AssetKey, ...]:
        """The shards."""
        return (names.pile_shards_key(self.pile),)

    def label(self, key: str) -> str:
        """Name of the shard, which contains its plan's id."""
        return f"shard {key}"

    @cached_property
    def _open_file(self) -> FileOpener:
        from neuralpile_dagster.ledger.piles import file_opener

        return file_opener(self.store, self.instance.open_hub())

    @cached_property
    def _digest_of(self) -> DigestOf:
        return piles.file_digests(self.store, self.instance.open_hub())

    def _load(self, plan_id: str) -> PilePlan:
        from neuralpile_dagster.merge.plan import load_plan

        return load_plan(self.store, piles.plan_path(self.pile, self.settings, plan_id))

    def make(self, key: str) -> None:
        """Copy the rows of one shard."""
        from neuralpile_dagster.merge.shards import build_shard

        started, plan_id = time.monotonic(), key.split("-")[0]
        plan = self.plan_of(plan_id)
        folder = piles.shards_folder(self.pile, self.settings, plan_id)
        shard = build_shard(self.store, folder, plan, key, self._open_file, self._digest_of)
        self._record(plan, shard, time.monotonic() - started)
        self.log.info(f"shard {key}: {shard.rows:,} rows, {shard.tokens:,} tokens")

    def _record(self, plan: PilePlan, shard: PileShard, seconds: float) -> None:
        uri = self.store.uri(shard.file.key)
        facts = pile_metadata.shard_metadata(plan, shard, uri, seconds)
        source = names.manifest_key(self.pile)
        tags = version_tags(shard.file.sha256[:32], PILE_SHARDS.version, source, plan.record.digest, None)
        self.log_materialization(names.pile_shards_key(self.pile), shard.name, facts, tags)
