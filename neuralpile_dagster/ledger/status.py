"""Status of each dataset, of a pile, and of what is made of a pile, read from the store's records.

The UI's overview and the terminal show it; automation and runs of what is made of a pile ask here what is due. What is
out of date of datasets and piles is decided in `due`; formatting belongs in `cli.looking` and `orchestration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import shorten

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import analyses_of, is_current
from neuralpile_dagster.ledger.documents import STOPPED, done_records
from neuralpile_dagster.ledger.due import AnalysisStanding, PileDue, analysis_standing, pile_due
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis, PlannedPile, planned_pile
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import PileRecord
from neuralpile_dagster.session import build
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record

NOTHING_PUBLISHED = "no component is published yet"
REASON_CHARACTERS = 160
"""Characters of a failure's reason shown in a table of sessions."""
REASONS_SHOWN = 3
"""Failed partitions of what is made of a pile whose reasons are shown."""


@dataclass(frozen=True)
class DatasetStatus:
    """Status of one dataset; ``known`` is None when it has no manifest yet. Tokens are of the sessions done.

    Sessions that vanished from the archive count only where they are done: the others can no longer be made.
    ``stopped`` says why a batch left sessions to do that it did not attempt; empty when none did.
    ``untouched`` datasets have nothing in the store, neither a manifest nor results.
    """

    dataset: Dataset
    known: int | None
    done: int
    failed: dict[str, str]
    tokens: int
    published_tokens: int | None
    analyses: tuple[AnalysisStanding, ...] = ()
    untouched: bool = False
    stopped: str = ""

    @property
    def to_do(self) -> int:
        """Sessions neither done nor failed."""
        return (self.known or 0) - self.done - len(self.failed)


def dataset_status(store: Store, dataset: Dataset, settings: Settings) -> DatasetStatus:
    """Read one dataset's status."""
    manifest = read_record(store, documents.manifest_path(dataset), Manifest)
    if manifest is None:
        return DatasetStatus(dataset, None, 0, {}, 0, None, untouched=next(store.keys(dataset.key), None) is None)
    records = done_records(store, dataset, settings, manifest)
    counted = [session.key for session in manifest.sessions if session.key in records or not session.vanished]
    failures = documents.read_failures(store, dataset, settings)
    published = documents.read_published(store, dataset, settings)
    return DatasetStatus(
        dataset=dataset,
        known=len(counted),
        done=len(records),
        failed={key: failure.message for key, failure in failures.items() if key in counted},
        tokens=sum(record.stats.tokens for record in records.values()),
        published_tokens=published.totals.tokens if published else None,
        analyses=tuple(
            analysis_standing(store, dataset, settings, analysis, manifest) for analysis in analyses_of(dataset)
        ),
        stopped=STOPPED if any(failures[key].stopped_batch for key in counted if key in failures) else "",
    )


def session_states(store: Store, dataset: Dataset, settings: Settings, manifest: Manifest) -> dict[str, str]:
    """State of each session of a manifest in words, by key."""
    done = done_records(store, dataset, settings, manifest)
    failures = documents.read_failures(store, dataset, settings)
    to_do = f"to do: {STOPPED}" if any(failure.stopped_batch for failure in failures.values()) else "to do"

    def state(session: Session) -> str:
        if session.vanished:
            return (
                "no longer in the archive; its results are kept" if session.key in done else "no longer in the archive"
            )
        if session.key in failures:
            return f"failed: {shorten(failures[session.key].message, REASON_CHARACTERS, placeholder=' ...')}"
        if session.key not in done:
            return to_do
        listed = build.session_inputs(session, dataset)
        return "done" if done[session.key].trains_inputs == listed else "stale: its files or the reader changed"

    return {session.key: state(session) for session in manifest.sessions}


def partitions_to_keep(store: Store, dataset: Dataset, settings: Settings, manifest: Manifest) -> set[str]:
    """Keys of a manifest's sessions, but for those that vanished from the archive before anything was made of them."""

    def is_stored(session: Session) -> bool:
        folders = [documents.trains_folder(dataset, settings), documents.counts_folder(dataset, settings)]
        folders += [analysis.folder(dataset, settings) for analysis in analyses_of(dataset)]
        return any(store.size(f"{folder}/{session.key}.json") is not None for folder in folders)

    stored = map_items(store, is_stored, manifest.vanished)
    without = {session.key for session, kept in zip(manifest.vanished, stored, strict=True) if not kept}
    return {session.key for session in manifest.sessions} - without


@dataclass(frozen=True)
class PileAnalysisStanding:
    """State of one kind of asset made of a pile.

    Attributes
    ----------
    analysis : PileAnalysis
    partitions : int
        With the current plan.
    done : int
    due : dict of str to str
        Partitions to make, each with the hash of its inputs.
    failed : dict of str to str
        Reasons of partitions whose last attempt failed; those after a transient error are due again after a while.
    waits : str
        Why the others cannot be made yet, in words; empty when they can.
    behind : str
        The other kind of asset that must be complete before; empty when that is not why.
    """

    analysis: PileAnalysis
    partitions: int
    done: int = 0
    due: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waits: str = ""
    behind: str = ""

    @property
    def complete(self) -> bool:
        """Whether every partition is up to date."""
        return self.done == self.partitions

    def in_words(self, pile: Pile) -> list[str]:
        """Lines for `neuralpile status`."""
        name, left = f"{pile.name} {self.analysis.name}", self.partitions - self.done - len(self.failed)
        waits = f": {self.waits}" if left and self.waits else ""
        done = f"{self.done:,} of {self.partitions:,} done" if self.partitions > 1 else f"{self.done} done"
        lines = [f"{name}: {done}, {len(self.failed):,} failed, {left:,} to do{waits}"]
        named = list(self.failed.items())[:REASONS_SHOWN]
        lines += [f"failed {name}{'' if self.partitions == 1 else f' {key}'}: {reason}" for key, reason in named]
        return lines


def pile_standings(
    store: Store, pile: Pile, datasets: Sequence[Dataset], settings: Settings
) -> tuple[PileAnalysisStanding, ...]:
    """State of everything made of a pile, upstream first; empty without rows, or while it is not planned.

    ``datasets`` are all those of the instance. Failures with unchanged inputs are not due, transient ones are after an
    hour.
    """
    rows = pile_analyses_of(pile)
    of = planned_pile(store, pile, datasets, settings) if rows else None
    if of is None:
        return ()
    found: list[PileAnalysisStanding] = []
    for row in rows:
        found.append(_standing(of, row, {standing.analysis.name for standing in found if standing.complete}))
    return tuple(found)


def require_upstream(of: PlannedPile, row: PileAnalysis) -> None:
    """Raise `ConfigurationError` when something that a row is made from is not complete."""
    complete: set[str] = set()
    for upstream in pile_analyses_of(of.pile):
        if upstream.name == row.name:
            break
        if _standing(of, upstream, complete).complete:
            complete.add(upstream.name)
    if waits := _behind(of, row, complete)[0] or row.waits(of):
        raise ConfigurationError(
            f"{row.name} of {of.pile.name} cannot be made yet",
            found=waits,
            remedy="neuralpile build NAME --merge makes what is missing, in order (neuralpile status shows it)",
        )


def _behind(of: PlannedPile, row: PileAnalysis, complete: set[str]) -> tuple[str, str]:
    """The first row upstream that is not complete, in words, and its name."""
    name = next((upstream.name for upstream in row.upstream_rows() if upstream.name not in complete), "")
    return (f"{of.pile.key}/{name} is not complete", name) if name else ("", "")


def _standing(of: PlannedPile, row: PileAnalysis, complete: set[str]) -> PileAnalysisStanding:
    keys = of.keys(row)
    waits, behind = _behind(of, row, complete)
    if behind:
        return PileAnalysisStanding(row, len(keys), waits=waits, behind=behind)
    failures = documents.read_failures(of.store, of.pile, of.settings, row.name)

    def look(key: str) -> tuple[str | None, bool]:
        inputs = row.inputs(of, key)
        return inputs, is_current(of.store, of.record(row, key), inputs)

    # a partition whose shard of the pile is missing is as one whose inputs are
    states = {
        key: (None if row.needs_shards and key not in of.shards else inputs, current)
        for key, (inputs, current) in zip(keys, map_items(of.store, look, keys), strict=True)
    }
    done, due, failed = documents.by_state(states, failures)
    waits = row.waits(of) if due else ""
    if not due and done + len(failed) < len(keys):
        waits = f"{of.pile.key}/{row.upstream[0].name} is not complete"
    return PileAnalysisStanding(row, len(keys), done, {} if waits else due, failed, waits)


def pile_status(store: Store, pile: Pile, datasets: Sequence[Dataset], settings: Settings) -> str:
    """A pile's status in words: its publication, and missing or stale parts."""
    published = piles.read_published(store, pile, settings)
    due = pile_due(store, pile, datasets, settings)
    name = piles.repository_name(pile, settings)
    if published is None and due is None:
        return f"{name}: {NOTHING_PUBLISHED}"
    return f"{name}: {_published(published)}; {_lacking(pile, due)}"


def piles_status(
    store: Store, some: Sequence[Pile], datasets: Sequence[Dataset], settings: Settings, *, every: bool = False
) -> list[str]:
    """`pile_status` of the first pile, and of the others that have anything (or of ``every`` one).

    Each is followed by the lines of what is made of it.
    """
    lines = []
    for number, pile in enumerate(some):
        line = pile_status(store, pile, datasets, settings)
        if every or not number or not line.endswith(NOTHING_PUBLISHED):
            lines.append(line)
            for standing in pile_standings(store, pile, datasets, settings):
                lines += standing.in_words(pile)
    return lines


def _published(record: PileRecord | None) -> str:
    if record is None:
        return "not published yet"
    return f"{piles.contents(record)} published (components: {', '.join(record.components)})"


def _lacking(pile: Pile, due: PileDue | None) -> str:
    if due is None:
        return "up to date"
    if due.plan:
        return f"to be planned ({pile.key}/manifest)"
    if due.shards:
        return f"{plural(len(due.shards), 'shard')} to make ({pile.key}/shards)"
    return f"to be published ({pile.key}/hub_dataset)"
