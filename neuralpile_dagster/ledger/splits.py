"""What a pile's splits are decided from: animals, twins and benchmarks of its sessions, and the splits published last.

Reads records and hubs; the decision itself belongs in `merge.splits`, the lists in `catalog.benchmarks`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.catalog.benchmarks import Benchmark, load_benchmarks
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import (
    CatalogError,
    ConfigurationError,
    HubError,
    MergeError,
    TableError,
    TransientError,
    did_you_mean,
)
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.merge.model import EarlierSplits, PilePlan, PlanRecord, settings_of
from neuralpile_dagster.merge.order import check_sizes
from neuralpile_dagster.merge.plan import check_rule
from neuralpile_dagster.merge.split_table import describe_plan, splits_of_rows
from neuralpile_dagster.merge.splits import SessionId, SessionIdentity
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.publish.configs import config_path, hub_tables, open_config
from neuralpile_dagster.publish.pile import PileSplits
from neuralpile_dagster.records import ComponentRecord, ComponentSession, SplitRules
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, put_file
from neuralpile_dagster.tables.footer import damaged
from neuralpile_dagster.tables.schemas import SPLITS_SCHEMA

_SHOWN = 10
_KINDS = ("benchmark", "dataset", "session", "subject")


@dataclass(frozen=True)
class SplitInputs:
    """What `plan_pile` needs to split by more than ids; ``rules`` also hold out what catalog rows say."""

    rules: SplitRules
    identities: dict[SessionId, SessionIdentity]
    held_out: frozenset[SessionId]
    earlier: EarlierSplits | None


def split_inputs(
    pile: Pile,
    datasets: Sequence[Dataset],
    store: Store,
    hub: Hub,
    settings: Settings,
    chosen: piles.Chosen,
    rules: SplitRules,
) -> SplitInputs:
    """Read what the splits of these components are decided from.

    Raises
    ------
    ConfigurationError
        ``hold_out`` names something that the pile does not have; lists what it has.
    CatalogError
        A list of the user's in ``benchmarks/`` is invalid.
    """
    catalog = {documents.repository_name(dataset, settings): dataset for dataset in datasets}
    benchmarks = load_benchmarks(settings)
    sessions = [session for source in chosen.sources for session in source.session_ids]
    identities = session_identities(store, hub, settings, catalog, chosen.repositories, sessions, benchmarks)
    ours = [catalog[name] for name, repository in chosen.repositories.items() if name == repository and name in catalog]
    by_row = tuple(f"dataset:{dataset.name}" for dataset in ours if dataset.hold_out)
    rules = rules.model_copy(update={"hold_out": tuple(dict.fromkeys((*rules.hold_out, *by_row)))})
    by_hash = "hash" in (rules.split_rule, rules.order)
    return SplitInputs(
        rules=rules,
        identities=identities,
        held_out=held_out_sessions(rules.hold_out, identities, benchmarks),
        earlier=read_published_splits(hub, pile, settings) if by_hash else None,
    )


def read_published_splits(hub: Hub, pile: Pile, settings: Settings) -> EarlierSplits | None:
    """The ``splits`` table of a pile as it is published now; None where there is none that this version reads."""
    name = piles.repository_name(pile, settings)
    parquet = open_config(hub, name, "splits")
    if parquet is None or not set(SPLITS_SCHEMA.names) <= set(parquet.schema_arrow.names):
        return None
    with damaged(f"{name}/{config_path('splits')}"):
        table = parquet.read()
    stated = settings_of(table)
    return EarlierSplits(table, f"{settings.namespace}/{name}, plan {stated.plan[:8]}") if stated else None


def read_earlier_splits(store: Store, pile: Pile, settings: Settings, plan_id: str) -> pa.Table | None:
    """The ``splits`` table that was published before that of a plan; None where there was none."""
    key = _earlier_path(pile, settings, plan_id)
    if store.size(key) is None:
        return None
    with store.open(key) as file, damaged(store.uri(key)):
        return pq.read_table(file)


def _earlier_path(pile: Pile, settings: Settings, plan_id: str) -> str:
    return f"{piles.plan_path(pile, settings, plan_id)}.before.parquet"


def keep_earlier_splits(
    store: Store, hub: Hub, pile: Pile, settings: Settings, plan: PlanRecord, progress: Progress = silent
) -> None:
    """Store the splits that are published now, before those of another plan replace them: a check compares them.

    A damaged table is not kept, and ``progress`` told: publishing repairs it.
    """
    try:
        earlier = read_published_splits(hub, pile, settings)
    except (HubError, TableError) as error:
        if isinstance(error, TransientError):
            raise
        progress(f"the splits published before are not compared with these: {error}")
        return
    stated = settings_of(earlier.table) if earlier else None
    if earlier and stated and stated.plan != plan.digest:
        table, key = earlier.table, _earlier_path(pile, settings, plan.plan_id)
        put_file(store, key, lambda path: pq.write_table(table, path, compression="zstd"))


def published_splits(
    store: Store,
    hub: Hub,
    settings: Settings,
    catalog: Mapping[str, Dataset],
    repositories: Mapping[str, str],
    plan: PilePlan,
) -> PileSplits:
    """What is published of a plan's splits; ``catalog`` and ``repositories`` as in `session_identities`."""
    ids = ["source_dataset", "subject_id", "session_id"]
    named = plan.rows.group_by(ids).aggregate([]).to_pylist()
    sessions = sorted((row[ids[0]], row[ids[1]], row[ids[2]]) for row in named)
    benchmarks = load_benchmarks(settings)
    identities = session_identities(store, hub, settings, catalog, repositories, sessions, benchmarks)
    table = splits_of_rows(plan.record, plan.rows, identities) if plan.splits is None else plan.splits
    facts, listed = describe_plan(plan, identities)
    return PileSplits(table, facts, listed)


def session_identities(
    store: Store,
    hub: Hub,
    settings: Settings,
    catalog: Mapping[str, Dataset],
    repositories: Mapping[str, str],
    sessions: Iterable[SessionId],
    benchmarks: Mapping[str, Benchmark],
) -> dict[SessionId, SessionIdentity]:
    """What is known of sessions: of ours from records, of another owner's from the tables of their repository.

    ``catalog`` is by repository name, ``repositories`` map each ``source_dataset`` to its repository on the hub.
    The animal is what the row's ``same_subject`` says, else what all files of its folder state, else the folder's name.
    """
    by_source: dict[str, list[SessionId]] = defaultdict(list)
    for session in sessions:
        by_source[session[0]].append(session)
    found = {}
    for source, some in by_source.items():
        # a repository of another owner may have the name of one of ours
        dataset = catalog.get(source) if repositories.get(source) == source else None
        published = documents.read_published(store, dataset, settings) if dataset else None
        if published is not None:
            facts = _of_record(store, published)
        else:
            facts = _of_hub(hub, repositories.get(source, source), source)
        name = dataset.name if dataset else source
        animal = _animals(facts, dataset.same_subject if dataset else None)
        for session in some:
            _, subject_id, session_id = session
            _, fingerprint, seconds = facts.get((subject_id, session_id), (None, None, None))
            lists = tuple(row.name for row in benchmarks.values() if row.holds(name, subject_id, session_id))
            found[session] = SessionIdentity(name, animal(subject_id), fingerprint, seconds, lists)
    return found


Facts = dict[tuple[str, str], tuple[str | None, str | None, float | None]]
"""Stated subject, fingerprint and seconds by (subject_id, session_id)."""


def _of_record(store: Store, published: ComponentRecord) -> Facts:
    stated = map_items(store, partial(_stated, store), published.sessions)
    # the record does not say which session has which width where there are several
    width = None if published.other_bin_widths_s else published.bin_width_s
    return {
        (s.subject_id, s.session_id): (*facts, width and sum(row.n_bins for row in s.rows) * width)
        for s, facts in zip(published.sessions, stated, strict=True)
    }


def _stated(store: Store, session: ComponentSession) -> tuple[str | None, str | None]:
    """Stated subject and fingerprint; of a session that an earlier version published, of its own record."""
    if session.fingerprint is not None:
        return session.subject, session.fingerprint
    record = documents.read_published_counts(store, session)
    return (record.facts.subject, record.stats.fingerprint) if record else (None, None)


def _of_hub(hub: Hub, repository: str, source: str) -> Facts:
    found: Facts = {}
    for table in hub_tables(hub, repository)("sessions"):
        for row in table.drop_columns(["files"]).to_pylist():
            if row.get("source_dataset", source) == source:
                found[row["subject_id"], row["session_id"]] = (row["subject"], None, row["duration_s"])
    return found


def _animals(facts: Facts, same_subject: str | None) -> Callable[[str], str]:
    """The animal of a folder."""
    stated: dict[str, set[str | None]] = defaultdict(set)
    for (subject_id, _), (subject, *_) in facts.items():
        stated[subject_id].add(subject)

    def animal(subject_id: str) -> str:
        if same_subject and (found := re.search(same_subject, subject_id)):
            return found["subject"] or subject_id
        names = stated[subject_id]
        name = next(iter(names)) if len(names) == 1 else None
        return name or subject_id.removeprefix("sub-")

    return animal


def require_possible_choices(choices: Mapping[str, Any], settings: Settings) -> None:
    """Refuse what is possible in no pile, before datasets are built for one.

    Parameters
    ----------
    choices : mapping
        All fields of the run configuration of a pile's manifest.
    settings : Settings

    Raises
    ------
    MergeError
        The shares leave nothing to train on, or ``split_by`` needs another rule.
    ConfigurationError
        An entry of ``hold_out`` is of no known kind, or its benchmark is unknown or has no ids.
    CatalogError
        A list of the user's in ``benchmarks/`` is invalid.
    """
    check_rule(choices["split_by"], choices["split_rule"])
    check_sizes(choices["test_size"], choices["valid_size"])
    benchmarks = load_benchmarks(settings)
    for entry in choices["hold_out"]:
        kind, _, name = entry.partition(":")
        listed = benchmarks.get(name)
        if kind not in _KINDS or (kind == "benchmark" and (listed is None or _lacks_ids(listed))):
            raise _nothing_held_out(entry, {}, benchmarks)


def require_possible_pile(pile: Pile, settings: Settings) -> None:
    """As `require_possible_choices`, of what the row of a pile says; raises `CatalogError` naming the pile."""
    try:
        require_possible_choices(pile.model_dump(mode="json"), settings)
    except (MergeError, ConfigurationError) as error:
        raise CatalogError(
            f"the pile {pile.name}, {error.what}", found=error.found, expected=error.expected, remedy=error.remedy
        ) from error


def held_out_sessions(
    hold_out: Sequence[str], identities: Mapping[SessionId, SessionIdentity], benchmarks: Mapping[str, Benchmark]
) -> frozenset[SessionId]:
    """Sessions that ``hold_out`` names; raises `ConfigurationError` for an entry that names none of the pile."""
    found: set[SessionId] = set()
    for entry in hold_out:
        kind, _, name = entry.partition(":")
        dataset, _, rest = name.partition("/")
        chosen = {
            session
            for session, known in identities.items()
            if (kind == "benchmark" and name in known.benchmarks)
            or (kind == "dataset" and name in (known.dataset, session[0]))
            or (kind == "session" and dataset in (known.dataset, session[0]) and fnmatchcase(session[2], rest))
            or (kind == "subject" and dataset in (known.dataset, session[0]) and rest in (known.subject, session[1]))
        }
        if not chosen:
            raise _nothing_held_out(entry, identities, benchmarks)
        found |= chosen
    return frozenset(found)


def _lacks_ids(listed: Benchmark) -> bool:
    """Whether the list is only named: its ids are not part of this package."""
    return bool(listed.not_included) and not listed.ids


def _nothing_held_out(
    entry: str, identities: Mapping[SessionId, SessionIdentity], benchmarks: Mapping[str, Benchmark]
) -> ConfigurationError:
    kind, _, name = entry.partition(":")
    dataset, _, rest = name.partition("/")
    datasets = sorted({known.dataset for known in identities.values()})
    inside = {session: known for session, known in identities.items() if dataset in (known.dataset, session[0])}
    listed = benchmarks.get(name) if kind == "benchmark" else None
    if listed is not None and _lacks_ids(listed):
        return ConfigurationError(
            f"hold_out: {entry} cannot be held out",
            found="a list whose ids are not part of this package",
            expected=listed.not_included,
            remedy=f"save it as benchmarks/{name}.yaml in NEURALPILE_HOME (docs/merge.md shows the form)",
        )
    if kind == "benchmark":
        names = sorted(benchmarks)
    elif kind == "dataset" or (kind in ("session", "subject") and not inside):
        names = datasets
    elif kind == "session":
        names = sorted(session[2] for session in inside)
    elif kind == "subject":
        names = sorted({known.subject for known in inside.values()})
    else:
        return ConfigurationError(
            f"hold_out: {entry} is invalid",
            expected="benchmark:<name>, dataset:<name>, session:<dataset>/<glob> or subject:<dataset>/<subject>",
        )
    close = "" if listed else did_you_mean(rest if inside and kind in ("session", "subject") else dataset, names)
    shown = names if kind in ("benchmark", "dataset") else names[:_SHOWN]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return ConfigurationError(
        f"hold_out: {entry} names nothing in this pile",
        found=f"no session of the benchmark {name} in it" if listed else f"no {kind} of that name",
        expected="a benchmark with sessions in this pile" if listed else f"one of {', '.join(shown)}{more}",
        remedy=close or "correct it, or remove it from hold_out",
    )
