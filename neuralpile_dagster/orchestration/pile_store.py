"""Where the pile's documents are in the store, and what is recorded of a published pile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.merge.model import PlanRecord
from neuralpile_dagster.orchestration import locations
from neuralpile_dagster.orchestration.locations import PILE
from neuralpile_dagster.records import ComponentRecord, Model, PileRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, read_record

PILE_MANIFEST_OP = f"{PILE}__manifest"
"""What Dagster calls the step of ``neural_pile/manifest`` in run configuration."""


class CurrentPlan(Model):
    """The plan that ``neural_pile/manifest`` made last, and what was left out of it and why.

    ``inputs`` is the hash of all publications at that time, ``repositories`` maps
    each ``source_dataset`` to the repository that the hub knows it by.
    ``choices`` is the run configuration that a person gave; the next plan is
    made with it, whoever asks for that.
    """

    plan_id: str
    inputs: str
    repositories: dict[str, str]
    left_out: dict[str, str]
    synthetic: bool
    choices: dict[str, Any] = Field(default_factory=dict)


def plan_config(store: Store, settings: Settings, also: Sequence[str] = ()) -> dict[str, Any]:
    """Run configuration (``ops``) of ``neural_pile/manifest`` with the choices of the current plan.

    ``also`` are datasets to merge in any case; where no components were named, all are.
    """
    current = read_record(store, current_path(settings), CurrentPlan)
    choices = dict(current.choices) if current else {}
    if named := choices.get("components"):
        choices["components"] = list(dict.fromkeys([*named, *also]))
    return {PILE_MANIFEST_OP: {"config": choices}} if choices else {}


def current_path(settings: Settings) -> str:
    """Store key of the pointer to the current plan."""
    return f"{PILE}/manifest{settings.variant}.json"


def plan_path(settings: Settings, plan_id: str) -> str:
    """Store key of a plan, without ending."""
    return f"{PILE}/plans{settings.variant}/{plan_id}"


def shards_folder(settings: Settings, plan_id: str) -> str:
    """Store prefix of a plan's shards."""
    return f"{PILE}/shards{settings.variant}/{plan_id}"


def published_path(settings: Settings) -> str:
    """Store key of what was published last."""
    return f"{PILE}/published{settings.variant}.json"


def repository_name(settings: Settings) -> str:
    """The pile's repository."""
    return locations.repository_name(None, settings)


def require_current(store: Store, settings: Settings) -> CurrentPlan:
    """The current plan; raises `ConfigurationError` when there is none."""
    current = read_record(store, current_path(settings), CurrentPlan)
    if current is None:
        raise ConfigurationError("the pile is not planned yet", remedy="materialize neural_pile/manifest")
    return current


def inputs_digest(published: Mapping[str, ComponentRecord]) -> str:
    """Hash of the publications that a pile of all of them would be made from."""
    text = "\n".join(f"{name} {record.inputs}" for name, record in published.items())
    return hashlib.sha256(text.encode()).hexdigest()


def read_published(store: Store, settings: Settings) -> PileRecord | None:
    """What was published last, or None."""
    return read_record(store, published_path(settings), PileRecord)


def require_published(store: Store, settings: Settings) -> PileRecord:
    """What was published last; raises `ConfigurationError` when nothing was."""
    record = read_published(store, settings)
    if record is None:
        raise ConfigurationError("the pile is not published yet", remedy="materialize neural_pile/hub_dataset")
    return record


def contents(record: PileRecord) -> str:
    """What a published pile holds, in words: tokens, and the rows of each split."""
    tokens = sum(shard.tokens for shards in record.shards.values() for shard in shards)
    rows = (f"{sum(shard.rows for shard in shards):,} {split} rows" for split, shards in record.shards.items())
    return ", ".join((f"{tokens:,} tokens", *rows))


def planned_shards(store: Store, settings: Settings) -> list[str]:
    """Names of the current plan's shards."""
    plan = read_record(store, f"{plan_path(settings, require_current(store, settings).plan_id)}.json", PlanRecord)
    return [shard.name for shard in plan.shards] if plan else []
