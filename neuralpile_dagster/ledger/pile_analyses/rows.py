"""Which kinds of asset are made of a pile; none unless its configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable

from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.ledger.pile_analyses.model import PileAnalysis
from neuralpile_dagster.ledger.pile_analyses.motifs import motif_rows
from neuralpile_dagster.ledger.pile_analyses.tokens import token_rows

FAMILIES: tuple[Callable[[Pile], tuple[PileAnalysis, ...]], ...] = (motif_rows, token_rows)
"""Each gives the rows that a pile's configuration asks for, upstream rows first."""


def pile_analyses_of(pile: Pile) -> tuple[PileAnalysis, ...]:
    """The kinds of asset made of a pile, upstream ones first."""
    return tuple(row for family in FAMILIES for row in family(pile))
