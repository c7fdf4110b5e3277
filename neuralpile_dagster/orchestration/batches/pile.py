"""Batches of a pile: of its shards, and of the partitions of something made of it.

How a shard is written is in `merge.shards`, what is made of a pile in the rows of `ledger.pile_analyses`; nothing here
depends on a particular one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import is_current
from neuralpile_dagster.ledger.kinds import PILE_SHARDS
from neuralpile_dagster.ledger.pile_analyses import (
    ALL,
    MadeRecord,
    PileAnalysis,
    PileTask,
    PlannedPile,
    require_planned,
)
from neuralpile_dagster.ledger.status import require_upstream
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.merge.shards import DigestOf, PileShard, build_shard
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.batches.base import DATA_VERSION, PartitionBatch, version_tags
from neuralpile_dagster.orchestration.checks import latest_event
from neuralpile_dagster.orchestration.metadata.pile import analysis_metadata, shard_metadata
from neuralpile_dagster.store import write_record
from neuralpile_dagster.tables.copying.copy import FileOpener

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
        return piles.file_opener(self.store, self.instance.open_hub())

    @cached_property
    def _digest_of(self) -> DigestOf:
        return piles.file_digests(self.store, self.instance.open_hub())

    def _load(self, plan_id: str) -> PilePlan:
        return load_plan(self.store, piles.plan_path(self.pile, self.settings, plan_id))

    def make(self, key: str) -> None:
        """Copy the rows of one shard."""
        started, plan_id = time.monotonic(), key.split("-")[0]
        plan = self.plan_of(plan_id)
        folder = piles.shards_folder(self.pile, self.settings, plan_id)
        shard = build_shard(self.store, folder, plan, key, self._open_file, self._digest_of)
        self._record(plan, shard, time.monotonic() - started)
        self.log.info(f"shard {key}: {plural(shard.rows, 'row')}, {plural(shard.tokens, 'token')}")

    def _record(self, plan: PilePlan, shard: PileShard, seconds: float) -> None:
        uri = self.store.uri(shard.file.key)
        facts = shard_metadata(plan, shard, uri, seconds)
        source = names.manifest_key(self.pile)
        tags = version_tags(shard.file.sha256[:32], PILE_SHARDS.version, source, plan.record.digest)
        self.log_materialization(names.pile_shards_key(self.pile), shard.name, facts, tags)


@dataclass
class PileAnalysisBatch(PartitionBatch):
    """The partitions of one run of an asset that is made of a pile; ``datasets`` are the pile's members."""

    pile: Pile
    datasets: Sequence[Dataset]
    analysis: PileAnalysis
    thing = "partition"

    @property
    def whole(self) -> str:
        """Pile and kind of asset."""
        return f"{self.pile.name} {self.analysis.name}"

    @property
    def assets(self) -> Sequence[dg.AssetKey]:
        """The asset."""
        return [names.asset_key(self.pile, self.analysis)]

    def keys(self) -> Sequence[str]:
        """Partitions of this run; one where the asset has none."""
        return (ALL,) if self.analysis.partitions == "none" else super().keys()

    def label(self, key: str) -> str:
        """Name of a partition in log lines."""
        return self.whole if key == ALL else f"{self.whole} {key}"

    def partition_of(self, key: str) -> str | None:
        """Dagster's partition of a key."""
        return None if key == ALL else key

    def log_materialization(
        self, asset: dg.AssetKey, partition: str, metadata: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Log a partition's materialization at once; that of the one part without partition is a result of the run."""
        if partition == ALL and isinstance(self.context, dg.AssetExecutionContext):
            version = dg.DataVersion(tags[DATA_VERSION])
            self.results.append(dg.MaterializeResult(asset, metadata=dict(metadata), data_version=version))
        else:
            super().log_materialization(asset, partition, metadata, tags)

    @cached_property
    def of(self) -> PlannedPile:
        """The pile as it is planned at the start of the run."""
        return require_planned(self.store, self.pile, self.datasets, self.settings)

    @cached_property
    def _upstream_is_complete(self) -> bool:
        require_upstream(self.of, self.analysis)
        return True

    def _inputs(self, key: str) -> str | None:
        return self.analysis.inputs(self.of, key) if key in self.of.keys(self.analysis) else None

    def record_failure(self, key: str, error: Exception) -> None:
        """Store the failure of a partition of the current plan, for `neuralpile status` and automation."""
        if (inputs := self._inputs(key)) is not None:
            self.store_failure(self.pile, key, error, inputs, self.analysis.name)

    def make(self, key: str) -> None:
        """Make one partition unless it is up to date; what is published is compared with the hub in any case."""
        started = time.monotonic()
        if key not in self.of.keys(self.analysis):
            raise ConfigurationError(
                f"{self.analysis.name} of {self.pile.name} has no {key} in the current plan",
                found=f"a partition of an older plan; the current one is {self.of.current.plan_id}",
                remedy="leave it alone; materialize the partitions of the current plan",
            )
        inputs, record = self._inputs(key), self.of.record(self.analysis, key)
        reused = is_current(self.store, record, inputs) and not self.analysis.is_published
        if not reused:
            record = self._make(key, inputs)
            write_record(self.store, self.analysis.record_key(self.pile, self.settings, key), record)
        seconds = time.monotonic() - started
        facts = analysis_metadata(self.analysis, self.of, record, self._uri(record), seconds, reused)
        self.log_materialization(self.assets[0], key, facts, self._tags(record))
        documents.forget_failure(self.store, self.pile, self.settings, key, self.analysis.name)

    def _make(self, key: str, inputs: str | None) -> Any:
        if not self._upstream_is_complete or inputs is None:
            raise ConfigurationError(
                f"{self.label(key)} cannot be made yet",
                found="something that it is made from is missing",
                remedy=f"materialize {self.pile.key}/{self.analysis.upstream[0].name} first",
            )
        if self.analysis.needs_shards and key not in self.of.shards:
            raise ConfigurationError(
                f"{self.label(key)} cannot be made yet",
                found="the pile has no such shard",
                remedy=f"materialize this partition of {self.pile.key}/shards first",
            )
        task = PileTask(
            of=self.of,
            key=key,
            folder=self.analysis.folder(self.pile, self.settings),
            inputs=inputs,
            open_hub=self.instance.open_hub,
            progress=self.log.info,
        )
        return self.analysis.make(task)

    def _uri(self, record: MadeRecord) -> str | None:
        return self.store.uri(record.files[0].key) if record.files else None

    @cached_property
    def _sources(self) -> list[tuple[dg.AssetKey, str, dg.EventLogRecord | None]]:
        """The assets that partitions are made from, the version of each, and the event that says so."""
        of_pile = [names.asset_key(self.pile, upstream) for upstream in self.analysis.upstream]
        found = []
        for source in [*of_pile, *names.member_keys(self.datasets, self.analysis)]:
            event = latest_event(self.context.instance, source)
            stated = event.asset_materialization.tags or {} if event and event.asset_materialization else {}
            version = stated.get(DATA_VERSION, self.of.plan.digest)
            found.append((source, version, event))
        return found

    def _tags(self, record: MadeRecord) -> dict[str, str]:
        """Versions of the partition and of the assets that it is made from."""
        version = (record.files[0].sha256 if record.files else record.inputs)[:32]
        tags: dict[str, str] = {}
        for source in self._sources:
            tags |= version_tags(version, self.analysis.version, *source)
        return tags
