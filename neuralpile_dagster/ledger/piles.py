"""Store keys and records of a pile: plan, shards, publication, and the components it is merged from.

Planning and copying rows belong in `merge`; deciding what is out of date belongs in `due`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from neuralpile_dagster.catalog.load import get_dataset
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError, MergeError
from neuralpile_dagster.files import sha256_of
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.kinds import PILE_SHARDS
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import SPLITS, PileShard, PlanRecord
from neuralpile_dagster.merge.sources import PileSource, SourceFile, source_from_component, source_from_parquet
from neuralpile_dagster.publish.configs import open_published
from neuralpile_dagster.records import ComponentRecord, CountsRecord, Model, PileRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, Store, is_intact, map_items, read_record


class CurrentPlan(Model):
    """The latest plan of a pile's manifest, and the components left out with reasons.

    ``inputs`` is the hash of all publications at that time, ``repositories`` maps
    each ``source_dataset`` to its repository on the hub.
    ``choices`` is the run configuration that a person gave; every later plan
    is made with it, whoever requests it.
    ``stated`` is what the pile's row stated then (`Pile.planned_with`).
    ``splits_left_out`` are those of other owners' repositories that are not merged.
    """

    plan_id: str
    inputs: str
    repositories: dict[str, str]
    left_out: dict[str, str]
    synthetic: bool
    choices: dict[str, Any] = Field(default_factory=dict)
    stated: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda stated: not stated)
    splits_left_out: dict[str, tuple[str, ...]] = Field(default_factory=dict, exclude_if=lambda splits: not splits)


def manifest_op(pile: Pile) -> str:
    """Name of the step of a pile's manifest in run configuration."""
    return f"{pile.key}__manifest"


def plan_config(
    store: Store,
    pile: Pile,
    settings: Settings,
    also: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run configuration (``ops``) of a pile's manifest with the choices of the current plan, and ``changes``.

    ``also`` are datasets to merge in any case; where no components were named, all are.
    """
    current = read_record(store, current_path(pile, settings), CurrentPlan)
    choices = dict(current.choices) if current else {}
    if current:
        choices |= {name: value for name, value in pile.planned_with.items() if current.stated.get(name) != value}
    choices |= changes or {}
    if changes and "hold_out" in changes:  # which are for all piles of a dataset: none loses what its own row names
        choices["hold_out"] = list(dict.fromkeys([*pile.hold_out, *changes["hold_out"]]))
    if named := choices.get("components"):
        choices["components"] = list(dict.fromkeys([*named, *also]))
    return {manifest_op(pile): {"config": choices}} if choices else {}


def planned_members(pile: Pile, datasets: Iterable[Dataset], config: Mapping[str, Any]) -> list[Dataset]:
    """The members of a pile that a plan with the configuration of `plan_config` merges, if they are published."""
    named = config.get(manifest_op(pile), {}).get("config", {}).get("components")
    return [row for row in pile.members(datasets) if not named or row.name in named]


def current_path(pile: Pile, settings: Settings) -> str:
    """Store key of the pointer to the current plan."""
    return f"{pile.key}/manifest{settings.variant}.json"


def plan_path(pile: Pile, settings: Settings, plan_id: str) -> str:
    """Store key of a plan, without ending."""
    return f"{pile.key}/plans{settings.variant}/{plan_id}"


def shards_folder(pile: Pile, settings: Settings, plan_id: str) -> str:
    """Store prefix of a plan's shards."""
    return f"{PILE_SHARDS.folder(pile, settings)}/{plan_id}"


def published_path(pile: Pile, settings: Settings) -> str:
    """Store key of the record of the last publication."""
    return f"{pile.key}/published{settings.variant}.json"


def repository_name(pile: Pile, settings: Settings) -> str:
    """The name of a pile's repository."""
    return documents.repository_name(pile, settings)


def require_current(store: Store, pile: Pile, settings: Settings) -> CurrentPlan:
    """The current plan; raises `ConfigurationError` when there is none."""
    current = read_record(store, current_path(pile, settings), CurrentPlan)
    if current is None:
        raise ConfigurationError(f"{pile.name} is not planned yet", remedy=f"materialize {pile.key}/manifest")
    return current


def inputs_digest(published: Mapping[str, ComponentRecord]) -> str:
    """Hash of the publications that a pile of all of them would be made from."""
    text = "\n".join(f"{name} {record.inputs}" for name, record in published.items())
    return hashlib.sha256(text.encode()).hexdigest()


def annotations_digest(components: Mapping[str, ComponentRecord]) -> str:
    """Hash of the annotations and unit orders of a pile's components, by name; empty while none has any."""
    lines = [f"{name} {record.annotations.digest}" for name, record in components.items() if record.annotations]
    lines += [f"{name} order {record.unit_order.digest}" for name, record in components.items() if record.unit_order]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() if lines else ""


def read_published(store: Store, pile: Pile, settings: Settings) -> PileRecord | None:
    """Record of the pile's last publication, or None."""
    return read_record(store, published_path(pile, settings), PileRecord)


def require_published(store: Store, pile: Pile, settings: Settings) -> PileRecord:
    """Record of the pile's last publication; raises `ConfigurationError` when there is none."""
    record = read_published(store, pile, settings)
    if record is None:
        raise ConfigurationError(f"{pile.name} is not published yet", remedy=f"materialize {pile.key}/hub_dataset")
    return record


def contents(record: PileRecord) -> str:
    """Contents of a published pile in words: tokens, and the rows of each split."""
    tokens = sum(shard.tokens for shards in record.shards.values() for shard in shards)
    rows = (plural(sum(shard.rows for shard in shards), f"{split} row") for split, shards in record.shards.items())
    return ", ".join((plural(tokens, "token"), *rows))


def current_plan(store: Store, pile: Pile, settings: Settings) -> PlanRecord | None:
    """The plan that is current; raises `ConfigurationError` when none was made."""
    plan_id = require_current(store, pile, settings).plan_id
    return read_record(store, f"{plan_path(pile, settings, plan_id)}.json", PlanRecord)


def made_shards(store: Store, pile: Pile, settings: Settings, plan: PlanRecord) -> dict[str, PileShard]:
    """Records of a plan's shards that the store has, whole, by name."""
    folder = shards_folder(pile, settings, plan.plan_id)

    def look(name: str) -> PileShard | None:
        shard = read_record(store, f"{folder}/{name}.json", PileShard)
        made = shard is not None and shard.inputs == plan.digest and is_intact(store, shard.file)
        return shard if made else None

    names = [shard.name for shard in plan.shards]
    found = zip(names, map_items(store, look, names), strict=True)
    return {name: shard for name, shard in found if shard is not None}


_ON_HUB = "hub:"


@dataclass(frozen=True)
class Chosen:
    """Components of a pile in catalog order, their repositories on the hub, and reasons for those left out."""

    sources: tuple[PileSource, ...]
    repositories: dict[str, str]
    left_out: dict[str, str]
    synthetic: bool
    splits_left_out: dict[str, tuple[str, ...]]


def is_on_hub(name: str) -> bool:
    """Whether a planned file is read from the hub, not from the store."""
    return name.startswith(_ON_HUB)


def file_opener(store: Store, hub: Hub) -> Callable[[str], pa.NativeFile]:
    """Opener of planned files by name, from the store or the hub."""

    def open_file(name: str) -> pa.NativeFile:
        return _open_planned(hub, name) if is_on_hub(name) else store.open(name)

    return open_file


def file_digests(store: Store, hub: Hub) -> Callable[[str], str]:
    """Tells a planned file's sha256 as it is recorded now; asks for each file and repository once.

    Hashing the files themselves for every shard would read the whole pile each time; pages have checksums of their
    own. A file of a folder that was written after its record is hashed: somebody replaced it without one.
    """

    @cache
    def published(repository: str) -> dict[str, str]:
        return {file.path: file.sha256 for file in hub.files(repository)}

    @cache
    def digest(name: str) -> str:
        if is_on_hub(name):
            repository, path = name.removeprefix(_ON_HUB).split(":", 1)
            return published(repository).get(path, "of no file that is listed now")
        key = f"{name.removesuffix('.parquet')}.json"
        record = read_record(store, key, CountsRecord)
        if record is None:
            return "of no recorded file"
        if isinstance(store, LocalStore):
            file = Path(store.uri(name))
            if file.stat().st_mtime_ns > Path(store.uri(key)).stat().st_mtime_ns:
                return sha256_of(file)
        return record.file.sha256

    return digest


def _open_planned(hub: Hub, name: str) -> pa.NativeFile:
    repository, path = name.removeprefix(_ON_HUB).split(":", 1)
    return open_published(hub, repository, path)


def _from_hub(hub: Hub, repository: str, splits: Sequence[str] = SPLITS[:1]) -> tuple[PileSource, tuple[str, ...]]:
    """Rows of a repository's ``splits``, one split after another, and its splits that were not taken."""
    listed: dict[str, list[SourceFile]] = {split: [] for split in SPLITS}
    for file in hub.files(repository):
        split = next((split for split in SPLITS if file.path.startswith(f"data/{split}-")), None)
        if split and file.path.endswith(".parquet"):
            name = f"{_ON_HUB}{repository}:{file.path}"
            listed[split].append(SourceFile(name=name, size=file.size, sha256=file.sha256))
    files = [file for split in SPLITS if split in splits for file in listed[split]]
    if not files:
        raise MergeError(
            f"{repository} cannot be merged",
            found=f"no {' and no '.join(f'data/{split}-*.parquet' for split in splits)} in it",
            expected="a published repository with the row schema",
            remedy="correct `components` or `extra_repositories`, or publish it first",
        )
    left_out = tuple(split for split in SPLITS if listed[split] and split not in splits)
    return source_from_parquet(repository, files, partial(_open_planned, hub)), left_out


def choose_components(
    datasets: Sequence[Dataset],
    store: Store,
    hub: Hub,
    settings: Settings,
    *,
    components: Sequence[str],
    extra_repositories: Sequence[str],
    merge_from: str,
    extra_splits: Sequence[str] = SPLITS[:1],
) -> Chosen:
    """Choose the sources of a pile.

    Parameters
    ----------
    components : sequence of str
        Names of datasets; empty for all that are published.
    extra_repositories : sequence of str
        Repositories of other owners with the row schema, always read from the hub.
    merge_from : {"store", "hub"}
        Where rows of our own components are read from.
    extra_splits : sequence of str
        Splits of ``extra_repositories`` whose rows are merged: ``train``, ``valid``, ``test``.

    Raises
    ------
    MergeError, ConfigurationError
        A named component is not published, or nothing is, or there is no such split.
    """
    if not extra_splits or not set(extra_splits) <= set(SPLITS):
        raise ConfigurationError(
            "extra_splits is invalid", found=str(list(extra_splits)), expected="some of train, valid and test"
        )
    by_name = {dataset.name: dataset for dataset in datasets}
    named = {get_dataset(by_name, name).name for name in components}
    sources, left_out, synthetic = [], {}, False
    for dataset in datasets:
        published = documents.read_published(store, dataset, settings)
        if named and dataset.name not in named:
            continue
        if published is None:
            if named:
                documents.require_published(store, dataset, settings)
            left_out[dataset.name] = "not published with these settings"
            continue
        name = documents.repository_name(dataset, settings)
        synthetic = synthetic or published.synthetic
        in_store = merge_from == "store"
        sources.append(source_from_component(name, published.sessions) if in_store else _from_hub(hub, name)[0])
    repositories = {source.name: source.name for source in sources}
    splits_left_out = {}
    for repository in extra_repositories:
        source, rest = _from_hub(hub, repository, extra_splits)
        sources.append(source)
        repositories.update(dict.fromkeys(source.datasets, repository))
        if rest:
            splits_left_out[repository] = rest
            left_out[f"{', '.join(rest)} rows of {repository}"] = "extra_splits does not name them"
    if not sources:
        raise MergeError(
            "there is nothing to merge",
            found="no published component",
            expected="at least one",
            remedy="publish a component first, e.g. neuralpile build steinmetz",
        )
    return Chosen(tuple(sources), repositories, left_out, synthetic, splits_left_out)
