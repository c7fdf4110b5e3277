"""Which kinds of asset are made of a pile, and their state: done, due, failed, or waiting for something upstream.

A pile has none unless its configuration asks for them, and then nothing is read. The command line, status, automation
and runs of the assets all ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import is_current
from neuralpile_dagster.ledger.pile_analyses.model import PileAnalysis, PlannedPile, planned_pile
from neuralpile_dagster.ledger.pile_analyses.motifs import motif_rows
from neuralpile_dagster.ledger.pile_analyses.tokens import token_rows
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items

FAMILIES: tuple[Callable[[Pile], tuple[PileAnalysis, ...]], ...] = (motif_rows, token_rows)
"""Each gives the rows that a pile's configuration asks for, upstream rows first."""
_REASONS_SHOWN = 3


def pile_analyses_of(pile: Pile) -> tuple[PileAnalysis, ...]:
    """The kinds of asset made of a pile, upstream ones first."""
    return tuple(row for family in FAMILIES for row in family(pile))


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
        named = list(self.failed.items())[:_REASONS_SHOWN]
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

    done, due, failed = 0, {}, {}
    for key, (inputs, current) in zip(keys, map_items(of.store, look, keys), strict=True):
        failure = failures.get(key)
        if current:
            done += 1
        elif inputs is None or (row.needs_shards and key not in of.shards):
            continue
        elif failure is not None and failure.inputs == inputs:
            failed[key] = failure.message
            if failure.transient and not failure.is_recent:
                due[key] = inputs
        else:
            due[key] = inputs
    waits = row.waits(of) if due else ""
    if not due and done + len(failed) < len(keys):
        waits = f"{of.pile.key}/{row.upstream[0].name} is not complete"
    return PileAnalysisStanding(row, len(keys), done, {} if waits else due, failed, waits)
