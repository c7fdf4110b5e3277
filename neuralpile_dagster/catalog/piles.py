"""The schema of a pile and of lines for all piles, and the piles of the package: which datasets each merges, and how.

A user's own piles are rows of ``piles`` in ``catalog.yaml`` (`load`). Which of its components are published, and what a
pile was planned with, belongs in `ledger.piles`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import Field, model_validator

from neuralpile_dagster.catalog.model import (
    MAX_VOCABULARY_CELLS,
    MOTIF_TABLE_ROWS,
    Dataset,
    Name,
    Row,
    Shapes,
    TableRows,
    Text,
    Title,
    VocabularySizes,
)
from neuralpile_dagster.records import HeldOutGoTo, Order, SplitBy, SplitRule


def require_vocabularies(shapes: tuple[tuple[int, int], ...], sizes: tuple[int, ...], table_rows: int) -> None:
    """Raise `ValueError` when vocabularies of these sizes cannot be made of motifs of these shapes."""
    if sizes and not shapes:
        raise ValueError("vocabulary_sizes needs motif_shapes, e.g. [[1, 15]]")
    if sizes and max(sizes) > table_rows + 1:  # with the separator
        raise ValueError(f"a vocabulary of {max(sizes):,} needs motif_table_rows of {max(sizes) - 1:,} at least")
    for n_units, n_bins in shapes if sizes else ():
        if n_units * n_bins > MAX_VOCABULARY_CELLS:
            raise ValueError(
                f"a vocabulary of motifs of [{n_units}, {n_bins}] is impossible; expected: shapes of at most "
                f"{MAX_VOCABULARY_CELLS} cells where there are vocabulary_sizes"
            )


class Everywhere(Row):
    """Lines of a ``catalog.yaml`` that hold for all of an instance, whatever its archive.

    ``motif_shapes``, ``vocabulary_sizes`` and ``motif_table_rows`` are those of every pile that states none of its own;
    ``unit_order`` is that of every dataset that does not state it.
    """

    motif_shapes: Shapes = ()
    vocabulary_sizes: VocabularySizes = ()
    motif_table_rows: TableRows = MOTIF_TABLE_ROWS
    unit_order: bool = False

    @model_validator(mode="after")
    def _vocabularies_are_possible(self) -> Everywhere:
        require_vocabularies(self.motif_shapes, self.vocabulary_sizes, self.motif_table_rows)
        return self


class Pile(Row):
    """A pile: the datasets that one repository merges.

    Its members are the datasets named in ``components``, those that have one of ``tags``, and with ``untagged`` those
    that have no tag at all. ``extra_repositories`` to ``order`` are what it is planned with until somebody
    chooses otherwise in the launchpad, and again when they change; those not stated have the launchpad's defaults.
    Motifs of each of ``motif_shapes`` (units, bins) are counted in what it trains on, and the ``motif_table_rows`` most
    frequent ones published; with ``vocabulary_sizes`` its rows are tokenized with vocabularies of so many ids.
    """

    ABOUT: ClassVar[frozenset[str]] = frozenset(
        {
            *("name", "title", "description", "components", "tags", "untagged"),
            *("motif_shapes", "vocabulary_sizes", "motif_table_rows"),
        }
    )
    """Fields that do not say how it is planned."""

    name: Name
    title: Title
    description: Text = ""
    components: tuple[Title, ...] = ()
    tags: tuple[Name, ...] = ()
    untagged: bool = False
    extra_repositories: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)
    split_by: SplitBy = "rows"
    split_rule: SplitRule = "permutation"
    test_size: float = Field(default=0.01, gt=0, lt=1)
    valid_size: float = Field(default=0, ge=0, lt=1)
    hold_out: tuple[str, ...] = ()
    held_out_go_to: HeldOutGoTo = "test"
    order: Order = "as_published"
    motif_shapes: Shapes = ()
    vocabulary_sizes: VocabularySizes = ()
    motif_table_rows: TableRows = MOTIF_TABLE_ROWS

    @model_validator(mode="after")
    def _has_members(self) -> Pile:
        if not (self.components or self.tags or self.untagged):
            raise ValueError("a pile needs `components` or `tags`")
        return self

    def with_lines(self, lines: Everywhere) -> Pile:
        """Take the lines of ``catalog.yaml`` that the pile does not state itself.

        Raises `ValueError` when its vocabularies are impossible then.
        """
        stated = self if "motif_shapes" in self.model_fields_set else lines
        shapes, sizes = stated.motif_shapes, self.vocabulary_sizes
        if "vocabulary_sizes" not in self.model_fields_set:
            sizes = lines.vocabulary_sizes if shapes else ()
        rows = (self if "motif_table_rows" in self.model_fields_set else lines).motif_table_rows
        require_vocabularies(shapes, sizes, rows)
        taken = {"motif_shapes": shapes, "vocabulary_sizes": sizes, "motif_table_rows": rows}
        changed = {name: value for name, value in taken.items() if getattr(self, name) != value}
        return self.model_copy(update=changed) if changed else self

    @property
    def key(self) -> str:
        """First part of its asset keys, its group, and its folder in the store (``-`` becomes ``_``)."""
        return self.name.replace("-", "_")

    @property
    def endings(self) -> tuple[str, ...]:
        """What the names of the repositories made of it end in, after its own: ``1x15``, ``1x15-32k``."""
        shapes = [f"{n_units}x{n_bins}" for n_units, n_bins in self.motif_shapes]
        return (*shapes, *(f"{shape}-{short_size(size)}" for shape in shapes for size in self.vocabulary_sizes))

    @property
    def planned_with(self) -> dict[str, Any]:
        """The fields of run configuration that it states, as JSON values."""
        return self.model_dump(mode="json", include=self.model_fields_set - self.ABOUT)

    def members(self, datasets: Iterable[Dataset]) -> list[Dataset]:
        """Its datasets among these, in their order."""
        return [
            row
            for row in datasets
            if row.name in self.components or set(row.tags) & set(self.tags) or (self.untagged and not row.tags)
        ]


def short_size(size: int) -> str:
    """Size of a vocabulary as names have it: ``32k`` for 32,000."""
    return f"{size // 1000}k" if size % 1000 == 0 else str(size)


def as_published(datasets: Iterable[Dataset]) -> str:
    """What these datasets have in the published piles, in words; empty when none of them is known to be in one."""
    known = [row for row in datasets if row.tokens_published]
    if not known:
        return ""
    tokens = sum(row.tokens_published or 0 for row in known)
    sessions = sum(row.sessions_published or 0 for row in known)
    return f"{tokens:,} tokens, {sessions:,} sessions, {len(known):,} datasets"


NEURAL_PILE = Pile(
    name="neural-pile",
    title="Neural pile",
    description="All datasets of rodents, and your own and synthetic ones that have no tags.",
    tags=("rodent",),
    untagged=True,
)
PRIMATE_PILE = Pile(
    name="neural-pile-primate",
    title="Neural pile of primates",
    description=(
        "The 18 datasets of monkeys and humans of the published primate pile that are on DANDI: 34,152,054,193 of its "
        "40,280,725,744 tokens. Seven datasets of other archives are not in it."
    ),
    tags=("primate",),
)
BUILT_IN: tuple[Pile, ...] = (NEURAL_PILE, PRIMATE_PILE)

PUBLISHED_BIN_WIDTH_S = 0.02
PUBLISHED_TOKEN_SHARES = (0.918506301, 0.0689463825, 0.0099332821, 0.00193299945, 0.000459155663)
"""Share of the values 0 to 4 among the 448,210,497,249 train tokens of the published pile of rodents.

From ``helpers/rodent_token_probabilities.npy`` of github.com/eminorhan/neural-pile-rodent, which has all 256.
"""


def piles_of(piles: Iterable[Pile], datasets: Iterable[Dataset]) -> list[Pile]:
    """The piles that have a member among these datasets."""
    rows = list(datasets)
    return [pile for pile in piles if pile.members(rows)]
