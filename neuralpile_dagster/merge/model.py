"""Records of a pile's plan, shards and splits; how a plan is made belongs in `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import Field

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.records import Model, SplitBy, SplitRules, StoredFile

if TYPE_CHECKING:
    from neuralpile_dagster.tables.copying.copy import RowRef

SPLITS = ("train", "valid", "test")
"""In the order of their rows in a plan; ``valid`` only where it was asked for."""
TRAIN, VALID, TEST, LEFT_OUT = 0, 1, 2, -1
"""Splits as numbers: places in `SPLITS`."""
SETTINGS = b"neuralpile"
"""Key of `SplitSettings` in the metadata of a ``splits`` table's schema."""


class SourceFile(Model):
    """A source file of rows: name as its opener understands it, bytes, sha256 (hex)."""

    name: str
    size: int
    sha256: str


class Totals(Model):
    """Sums over rows; ``bytes`` are those of the encoded rows."""

    rows: int
    sessions: int
    tokens: int
    bytes: int


class PlannedSource(Model):
    """One ``source_dataset`` in a plan: the digest of its source, its totals, and its part of each split."""

    name: str
    digest: str
    totals: Totals
    splits: dict[str, Totals]


class PlannedShard(Model):
    """One shard: rows ``start`` to ``stop`` of the plan's order (train, then valid, then test)."""

    name: str
    split: str
    start: int
    stop: int
    tokens: int
    bytes: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class PlanRecord(Model):
    """Record of a plan, without the order of its rows. ``digest`` is of all inputs, ``plan_id`` its beginning.

    Shards of one plan are named after it, so a partition key says which plan it belongs to.
    ``promoted`` are the sessions (rows, subjects, datasets) that fill a split which the rule left empty, ``held_out``
    is what ``rules`` held out, ``follows`` the published pile whose twins and promotions were kept. These and
    ``rules`` are missing in plans that are split and ordered as the published pile.
    """

    plan_id: str
    digest: str
    code_version: str
    seed: int
    split_by: SplitBy
    test_size: float
    shard_bytes: int
    sources: tuple[PlannedSource, ...]
    totals: Totals
    splits: dict[str, Totals]
    shards: tuple[PlannedShard, ...]
    files: tuple[SourceFile, ...]
    rows_file: StoredFile | None = None
    rules: SplitRules = Field(default=SplitRules(), exclude_if=lambda rules: rules == SplitRules())
    promoted: dict[str, str] = Field(default_factory=dict, exclude_if=lambda promoted: not promoted)
    held_out: Totals | None = Field(default=None, exclude_if=lambda totals: totals is None)
    follows: str = Field(default="", exclude_if=lambda follows: not follows)
    splits_file: StoredFile | None = Field(default=None, exclude_if=lambda file: file is None)

    def shard(self, name: str) -> PlannedShard:
        """The shard of that name; raises `MergeError` when the plan has none."""
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise MergeError(
            f"{name} is not a shard of the plan {self.plan_id}",
            expected=f"one of {len(self.shards):,} shards, e.g. {self.shards[0].name}",
            remedy="materialize the pile's manifest again, and the shards that it names",
        )


@dataclass(frozen=True, eq=False)
class PilePlan:
    """A plan with the order of its rows.

    ``rows`` has one row per row of the pile, in order (train, then valid, then test):
    ``split``, ``source_dataset``, ``file``, ``row`` (number in the file), ``subject_id``,
    ``session_id``, ``tokens``, ``bytes``; texts are dictionary-encoded.
    ``splits`` has one row per session (`SPLITS_SCHEMA`), also of those left out; None in a stored plan that is split as
    the published pile: `split_table.splits_of_rows` makes it.
    """

    record: PlanRecord
    rows: pa.Table
    splits: pa.Table | None = None

    def refs(self, shard_name: str) -> list[RowRef]:
        """Rows of a shard as arguments of `copy_rows`."""
        from neuralpile_dagster.tables.copying.copy import RowRef

        rows = self.shard_rows(shard_name)
        columns = (rows[name].to_pylist() for name in ("file", "row", "source_dataset"))
        return [RowRef(file, row, source) for file, row, source in zip(*columns, strict=True)]

    def shard_rows(self, shard_name: str) -> pa.Table:
        """Slice of ``rows`` of one shard."""
        shard = self.record.shard(shard_name)
        return self.rows.slice(shard.start, shard.rows)


class PileShard(Model):
    """Record of a stored shard: rows ``start`` to ``stop`` of the plan whose ``digest`` is ``inputs``.

    ``decoded`` counts rows that could not be copied without decoding, by reason.
    """

    inputs: str
    name: str
    split: str
    file: StoredFile
    rows: int
    tokens: int
    decoded: dict[str, int]


class SplitSettings(Model):
    """Settings and memory of a ``splits`` table, kept in its Parquet metadata; ``plan`` is empty while it is made."""

    plan: str = ""
    seed: int
    split_by: str
    test_size: float
    rules: SplitRules = SplitRules()
    promoted: dict[str, str] = Field(default_factory=dict)
    n_shards: dict[str, int] = Field(default_factory=dict)

    def same_rule(self, other: SplitSettings) -> bool:
        """Whether their ``u`` are comparable: of the same seed, by hash, of the same things."""
        rules = {self.rules.split_rule, other.rules.split_rule}
        return (self.seed, self.split_by) == (other.seed, other.split_by) and rules == {"hash"}


def settings_of(splits: pa.Table) -> SplitSettings | None:
    """Settings of a ``splits`` table; None when it has none that this version reads."""
    text = (splits.schema.metadata or {}).get(SETTINGS)
    try:
        return SplitSettings.model_validate_json(text, extra="ignore") if text else None
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class EarlierSplits:
    """The ``splits`` table of the last published pile, and where it lies, in words."""

    table: pa.Table
    where: str
