"""What is made of a planned pile, each kind of asset one row: its inputs, and how one of its partitions is made.

A row lists itself in `neuralpile status`, `neuralpile build --merge` and automation, gets an asset, and a record per
partition. A row that is a repository is made by `publication`, and published by `publish`.

Which rows a pile has is in `motif_rows`, their state in `status`; what a row computes, and what a repository holds,
belongs in other rooms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError, HubError
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.due import published_components
from neuralpile_dagster.ledger.kinds import PILE_HUB_DATASET, PILE_SHARDS, AssetKind
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import PilePlan, PileShard, PlanRecord
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card_parts import licenses_of_all
from neuralpile_dagster.publish.configs import config_path
from neuralpile_dagster.records import ComponentRecord, PublicationRecord, ShardRecord, StoredFile, json_hash
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record

if TYPE_CHECKING:
    from neuralpile_dagster.publish.motif_table import OfPile


class MadeRecord(Protocol):
    """Record of one partition: a `records.Model` with at least these."""

    @property
    def inputs(self) -> str:
        """Hash of all that it was made from."""
        ...

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files in the store; the digest of the first is its version in the UI."""
        ...


ALL = "all"
"""Key of the only part of what has no partitions: the name of its record."""
Partitions = Literal["none", "buckets", "shards"]
Number = int | float | str
Kept = TypeVar("Kept")
Rows = Sequence[Mapping[str, Number]]
"""A table for the UI: all rows have the same columns."""


@dataclass(frozen=True, eq=False)
class PlannedPile:
    """A pile with its current plan, and the state of what is made of it; read as it is asked for, and kept.

    Attributes
    ----------
    store : Store
    pile : Pile
    datasets : sequence of Dataset
        Its members.
    settings : Settings
    current : CurrentPlan
    plan : PlanRecord
    """

    store: Store
    pile: Pile
    datasets: Sequence[Dataset]
    settings: Settings
    current: piles.CurrentPlan
    plan: PlanRecord
    _kept: dict[Any, Any] = field(default_factory=dict, init=False)

    def kept(self, name: object, make: Callable[[], Kept]) -> Kept:
        """What ``make`` gave when it was first asked for under that name: partitions of one run share it."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(Kept, self._kept[name])

    @cached_property
    def planned(self) -> PilePlan:
        """The plan with the order of its rows."""
        from neuralpile_dagster.merge.plan import load_plan

        return load_plan(self.store, piles.plan_path(self.pile, self.settings, self.current.plan_id))

    @cached_property
    def shards(self) -> dict[str, PileShard]:
        """Records of the plan's shards that are made, by name."""
        return piles.made_shards(self.store, self.pile, self.settings, self.plan)

    def keys(self, row: PileAnalysis) -> tuple[str, ...]:
        """The partitions that a kind of asset has with this plan."""
        if row.partitions == "none":
            return (ALL,)
        if row.partitions == "shards":
            return tuple(shard.name for shard in self.plan.shards)
        from neuralpile_dagster.motifs.records import BUCKETS

        return BUCKETS

    def record(self, row: PileAnalysis, key: str = ALL) -> Any:
        """Record of one partition, or None; of the row's own type."""
        return read_record(self.store, row.record_key(self.pile, self.settings, key), row.record)

    def upstream(self, row: PileAnalysis, key: str = ALL) -> Any:
        """`record` of something that is made before what asks for it, read once."""
        return self.kept((row.name, key), lambda: self.record(row, key))

    def records(self, row: PileAnalysis) -> dict[str, Any]:
        """Records of all partitions that have one, by key."""
        keys = self.keys(row)
        found = zip(keys, map_items(self.store, lambda key: self.record(row, key), keys), strict=True)
        return {key: record for key, record in found if record is not None}


def planned_pile(store: Store, pile: Pile, datasets: Sequence[Dataset], settings: Settings) -> PlannedPile | None:
    """The pile with its current plan, or None while there is none; ``datasets`` are all those of the instance."""
    current = read_record(store, piles.current_path(pile, settings), piles.CurrentPlan)
    if current is None:
        return None
    plan = read_record(store, f"{piles.plan_path(pile, settings, current.plan_id)}.json", PlanRecord)
    return None if plan is None else PlannedPile(store, pile, pile.members(datasets), settings, current, plan)


def require_planned(store: Store, pile: Pile, datasets: Sequence[Dataset], settings: Settings) -> PlannedPile:
    """`planned_pile`; raises `ConfigurationError` while the pile is not planned."""
    of = planned_pile(store, pile, datasets, settings)
    if of is None:
        raise ConfigurationError(f"{pile.name} is not planned yet", remedy=f"materialize {pile.key}/manifest")
    return of


@dataclass(frozen=True)
class PileTask:
    """Inputs for one partition of what is made of a pile.

    Attributes
    ----------
    of : PlannedPile
    key : str
        The partition; `ALL` where there are none.
    folder : str
        Store prefix for files of this kind of asset; they are named after ``key``.
    inputs : str
        For the record.
    open_hub : callable
        Opens the hub, where it is needed.
    progress : callable
    """

    of: PlannedPile
    key: str
    folder: str
    inputs: str
    open_hub: Callable[[], Hub]
    progress: Progress

    @property
    def path(self) -> str:
        """Store key of the partition's files, without ending."""
        return f"{self.folder}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class PileAnalysis(AssetKind):
    """An asset made of a planned pile, as a row.

    Attributes
    ----------
    partitions : {"none", "buckets", "shards"}
        What it is made of, part by part: all at once, the 64 buckets of motifs, the shards of the pile's plan.
    upstream : tuple of AssetKind
        Assets of the pile that it is made from; other rows among them must be complete before it is made.
    of_members : tuple of str
        Names of analyses of the pile's members that it is made from.
    record : type
        A `MadeRecord`.
    inputs : callable
        Hash (sha256, hex) of the inputs of a partition's record; None while something upstream is missing.
    make : callable
        Makes one partition; raises `NeuralPileError` when that is not possible. May be called again after any failure.
    numbers : callable
        Numbers of a record for the UI, by name.
    tables, pictures : callable
        Tables and pictures (Markdown) for the UI, by name.
    waits : callable
        Why no partition can be made yet, in words; empty when each can be. Asked only where something is due.
    says : callable
        What the command line says once it is made, of a row without partitions; empty for nothing.
    checks : str
        Layer of the checks that judge it (`checks.registry`); empty without any.
    per_run : int
        Partitions of one run.
    """

    partitions: Partitions = "none"
    upstream: tuple[AssetKind, ...]
    of_members: tuple[str, ...] = ()
    record: type[Any]
    inputs: Callable[[PlannedPile, str], str | None]
    make: Callable[[PileTask], MadeRecord]
    numbers: Callable[[Any], Mapping[str, Number]]
    tables: Callable[[Any], Mapping[str, Rows]] = lambda record: {}
    pictures: Callable[[PlannedPile, Any], Mapping[str, str]] = lambda of, record: {}
    waits: Callable[[PlannedPile], str] = lambda of: ""
    says: Callable[[Any], str] = lambda record: ""
    checks: str = ""
    per_run: int = 10

    @property
    def is_published(self) -> bool:
        """Whether it lies on the hub, of which no record knows whether it is still there."""
        return self.pool == "hub"

    def record_key(self, pile: Pile, settings: Settings, key: str) -> str:
        """Store key of one partition's record."""
        return f"{self.folder(pile, settings)}/{key}.json"

    def upstream_rows(self) -> Iterator[PileAnalysis]:
        """Other rows that it is made from."""
        return (kind for kind in self.upstream if isinstance(kind, PileAnalysis))

    @property
    def needs_shards(self) -> bool:
        """Whether a partition is made from the pile's shard of that name."""
        return PILE_SHARDS in self.upstream and self.partitions == "shards"


def repository_of(of: PlannedPile, ending: str) -> str:
    """``namespace/name`` of a repository that is made of a pile."""
    return f"{of.settings.namespace}/{_name_of(of, ending)}"


def hash_of(of: PlannedPile, ending: str, *parts: object) -> str:
    """Hash (sha256, hex) of the inputs of a publication: its place, the pile's, the plan, and ``parts``."""
    place = [of.settings.hub, repository_of(of, ending)]
    return json_hash([*place, piles.repository_name(of.pile, of.settings), of.plan.digest, *parts])


def publication(
    kind: str,
    ending: str,
    *,
    text: str,
    made_from: PileAnalysis,
    inputs: Callable[[PlannedPile, str], str | None],
    make: Callable[[PileTask], PublicationRecord],
) -> PileAnalysis:
    """Row of a repository: published after the pile that it is made of, and judged by the checks of its ``kind``."""
    return PileAnalysis(
        name=f"{kind}_{ending}",
        text=text,
        badges=frozenset({"huggingface", "parquet"}),
        version="1",
        pool="hub",
        upstream=(made_from, PILE_HUB_DATASET),
        record=PublicationRecord,
        inputs=inputs,
        make=make,
        waits=_waits_for_pile,
        numbers=_publication_numbers,
        says=_says_where,
        checks=kind,
    )


def publish(task: PileTask, ending: str, write: Callable[[Path, OfPile], Sequence[ShardRecord]]) -> PublicationRecord:
    """Let ``write`` make a folder, and publish it; raises as ``write`` and `Hub.publish` do.

    Raises `HubError` as well when the repository of that name holds rows of spike counts.
    """
    of, name = task.of, _name_of(task.of, ending)
    hub, folder = task.open_hub(), documents.staging_folder(of.settings, name)
    if any(file.path == config_path("units") for file in hub.files(name)):
        raise HubError(
            f"the repository {name} holds spike counts of a dataset or pile",
            expected=f"none, or what is made of {of.pile.name}",
            remedy="give that dataset or pile another name",
        )
    shards = write(folder, _of_pile(task, repository_of(of, ending)))
    published = hub.publish(name, folder, task.progress)
    return PublicationRecord(
        inputs=task.inputs,
        repository=published.repository,
        plan=of.plan.digest,
        version=published.version,
        url=published.url,
        shards=tuple(shards),
    )


def _name_of(of: PlannedPile, ending: str) -> str:
    """Name of a repository that is made of a pile: the pile's own, and an ending."""
    return f"{piles.repository_name(of.pile, of.settings)}-{ending}"


def _waits_for_pile(of: PlannedPile) -> str:
    """Why nothing can be published beside the pile: it is not published as it is planned now."""
    published = piles.read_published(of.store, of.pile, of.settings)
    current = published is not None and published.plan == of.plan.digest
    return "" if current else f"{of.pile.name} is not published as it is planned now ({of.pile.key}/hub_dataset)"


def _our_components(of: PlannedPile) -> dict[str, ComponentRecord | None]:
    """Published components of a plan by name; None for a repository of another owner, which may have such a name."""
    published = published_components(of.store, of.datasets, of.settings)
    return {
        source.name: published.get(source.name) if of.current.repositories.get(source.name) == source.name else None
        for source in of.plan.sources
    }


def bin_widths_s(of: PlannedPile) -> tuple[float, ...]:
    """Widths of the bins of all sessions of a pile, ascending; empty where those of a source are not known."""
    ours = _our_components(of).values()
    widths = [() if record is None else (record.bin_width_s, *record.other_bin_widths_s) for record in ours]
    return tuple(sorted({width for some in widths for width in some})) if all(widths) else ()


def _of_pile(task: PileTask, repository: str) -> OfPile:
    from neuralpile_dagster.publish.motif_table import OfPile

    of, hub = task.of, task.open_hub()
    ours = _our_components(of)
    return OfPile(
        repository=repository,
        pile=f"{of.settings.namespace}/{piles.repository_name(of.pile, of.settings)}",
        title=of.pile.title,
        plan=of.plan.digest,
        bin_width_s=of.settings.bin_width_s,
        other_bin_widths_s=tuple(width for width in bin_widths_s(of) if width != of.settings.bin_width_s),
        synthetic=[name for name, record in ours.items() if record is not None and record.synthetic],
        licenses=licenses_of_all(record.license if record else None for record in ours.values()),
        page=hub.page,
    )


def _publication_numbers(record: PublicationRecord) -> dict[str, Number]:
    """Numbers of a publication for the UI."""
    return {
        "repository": record.repository,
        "rows": sum(shard.rows for shard in record.shards),
        "bytes_of_rows": sum(shard.bytes for shard in record.shards),
        "published_at": record.url,
        "version": record.version,
    }


def _says_where(record: PublicationRecord) -> str:
    """What the command line says of a publication."""
    rows = sum(shard.rows for shard in record.shards)
    return f"{record.repository}: {plural(rows, 'row')}; in {record.url}"
