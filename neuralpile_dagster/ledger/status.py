"""Status of each dataset and the pile, read from the store's records; the UI's overview and the terminal show it.

Deciding what is out of date belongs in `due`, formatting in `cli.looking` and `orchestration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import analyses_of
from neuralpile_dagster.ledger.documents import STOPPED, done_records
from neuralpile_dagster.ledger.due import AnalysisStanding, PileDue, analysis_standing, pile_due
from neuralpile_dagster.ledger.pile_analyses.standing import pile_standings
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import PileRecord
from neuralpile_dagster.session import build
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items, read_record

NOTHING_PUBLISHED = "no component is published yet"
REASON_CHARACTERS = 160
"""Characters of a failure's reason shown in a table of sessions."""


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
