"""Two small published components, and a pile of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.merge.model import PilePlan
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.shards import PileShard, build_shard
from neuralpile_dagster.merge.sources import source_from_component
from neuralpile_dagster.publish.component import write_component
from neuralpile_dagster.publish.pile import PileSettings, hub_tables, write_pile
from neuralpile_dagster.publish.pile_card import PileComponent
from neuralpile_dagster.records import ComponentRecord, PileRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.hub.folders import silent
from neuralpile_dagster_tests.hub.sessions import DATASET, manifest_of, put_session


class Pile:
    """Two published components of two sessions each, and a pile of them, planned and sharded."""

    def __init__(self, home: Path, **manifest: Any) -> None:
        self.store = LocalStore(home / "store")
        self.hub = LocalHub(home / "hub", "local")
        self.staging = home / "staging"
        self.records = [self._component("mice", ["s1", "s2"], manifest), self._component("rats", ["r1", "r2"], {})]
        sources = [source_from_component(record.repository, record.sessions) for record in self.records]
        self.plan: PilePlan = plan_pile(sources, seed=3, test_size=0.2, shard_bytes=20_000)
        self.shards: list[PileShard] = [
            build_shard(self.store, "neural_pile/shards", self.plan, shard.name, self.store.open)
            for shard in self.plan.record.shards
        ]
        self.settings = PileSettings(self.plan.record.digest, 3, "rows", 0.2)

    def _component(self, name: str, keys: list[str], manifest: dict[str, Any]) -> ComponentRecord:
        counts = {key: put_session(self.store, key, n_units=4 if name == "mice" else 7) for key in keys}
        component = write_component(
            self.staging / name,
            self.store,
            DATASET.model_copy(update={"name": name}),
            manifest_of(*keys, **manifest),
            counts,
            missing={},
            repository=f"local/{name}",
            progress=silent,
        )
        self.hub.publish(name, self.staging / name, silent)
        return component

    def components(self, **changes: Any) -> list[PileComponent]:
        return [
            PileComponent(
                name=source.name,
                rows=source.totals.rows,
                sessions=source.totals.sessions,
                tokens=source.totals.tokens,
                **{"record": record, "tables": hub_tables(self.hub, source.name), **changes},
            )
            for source, record in zip(self.plan.record.sources, self.records, strict=True)
        ]

    def write(self, folder: Path, **changes: Any) -> PileRecord:
        return write_pile(
            folder,
            self.store,
            self.shards,
            changes.pop("components", None) or self.components(),
            changes.pop("settings", self.settings),
            repository="local/neural-pile",
            progress=silent,
        )
