"""Records of what is published: components and piles, and how a pile is split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuralpile_dagster.records.form import Model
from neuralpile_dagster.records.sessions import RowRecord, StoredFile


class ComponentSession(Model):
    """One session of a published component, with the facts of its rows that a merge needs.

    ``token_counts`` is its `CountsStats.histogram`, ``subject`` that of its facts, ``fingerprint`` that of its counts;
    missing in records of before.
    """

    key: str
    subject_id: str
    session_id: str
    n_units: int
    tokens: int
    counts: StoredFile
    units: StoredFile
    rows: tuple[RowRecord, ...]
    token_counts: tuple[int, ...] = Field(default=(), exclude_if=lambda counts: not counts)
    subject: str | None = Field(default=None, exclude_if=lambda subject: subject is None)
    fingerprint: str | None = Field(default=None, exclude_if=lambda fingerprint: fingerprint is None)


class ShardRecord(Model):
    """One Parquet file of a published split: ``path`` in the repository, ``bytes`` on disk, sha256 (hex)."""

    path: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


class PublicationRecord(Model):
    """Record of a repository that is made of a published pile.

    ``plan`` is the digest of the pile's plan, ``url`` where a person looks at it. ``shards`` are its files with rows.
    """

    inputs: str
    repository: str
    plan: str
    version: str
    url: str
    shards: tuple[ShardRecord, ...]

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """None in the store."""
        return ()


class PublishedTotals(Model):
    """Sums over the sessions of a component or pile; ``units`` counts a unit once per session."""

    sessions: int
    subjects: int
    units: int
    rows: int
    tokens: int
    spikes: int
    minutes: float


class AnnotationTotals(Model):
    """Numbers of the annotations of a component.

    ``digest`` is the hash of all that they are made from; ``sessions`` have annotations, of which ``with_intervals``
    have any interval and ``with_metrics`` any metric; ``tables`` are the rows of each table of intervals, ``metrics``
    the names of metrics.
    """

    digest: str
    sessions: int
    with_intervals: int
    with_metrics: int
    tables: dict[str, int]
    metrics: tuple[str, ...]


class UnitOrderTotals(Model):
    """Unit orders of a component: the hash of all of them, and how many sessions have one."""

    digest: str
    sessions: int


class SpikesRecord(Model):
    """The repository of a component's spike times.

    ``repository`` is ``namespace/name``, ``url`` its web page (None where the hub has none), ``sessions`` have spike
    times, in files of ``bytes`` together. ``bin_width_s`` is that of the counts made from them.
    """

    repository: str
    url: str | None
    sessions: int
    spikes: int
    bytes: int
    bin_width_s: float


class ComponentRecord(Model):
    """Record of a published component.

    ``inputs`` is the hash of its inputs; ``repository`` is
    ``namespace/name``; ``sessions`` are in the order of the rows; ``missing``
    maps the keys of sessions that are not in it to the reason. ``annotations`` and ``unit_order`` are not among the
    ``inputs``: the pile is not planned again for them. ``bin_width_s`` is that of the first session,
    ``other_bin_widths_s`` are those of sessions that have another (`Dataset.allow_bin_width`). ``spikes`` are its
    published spike times, where asked for.
    """

    dataset: str
    repository: str
    inputs: str
    title: str
    source: str
    source_version: str
    frozen: bool
    synthetic: bool
    license: str | None
    bin_width_s: float
    sessions: tuple[ComponentSession, ...]
    shards: tuple[ShardRecord, ...]
    totals: PublishedTotals
    missing: dict[str, str]
    annotations: AnnotationTotals | None = Field(default=None, exclude_if=lambda totals: totals is None)
    other_bin_widths_s: tuple[float, ...] = Field(default=(), exclude_if=lambda widths: not widths)
    spikes: SpikesRecord | None = Field(default=None, exclude_if=lambda spikes: spikes is None)
    unit_order: UnitOrderTotals | None = Field(default=None, exclude_if=lambda totals: totals is None)

    @property
    def bins_in_words(self) -> str:
        """Its bin widths, e.g. ``20 ms``."""
        return " and ".join(f"{width * 1000:g} ms" for width in (self.bin_width_s, *self.other_bin_widths_s))


class TokenCounts(Model):
    """Values of the tokens of one source in one split: ``counts[c]`` bins hold c spikes (trailing zeros cut).

    ``recorded_s`` is how long they were recorded, None where the source does not say.
    """

    source_dataset: str
    split: str
    counts: tuple[int, ...]
    recorded_s: float | None = None


class ComponentCitation(Model):
    """How to cite a component of a pile; ``bibtex`` is empty for synthetic recordings.

    ``foreign`` rows are from a repository of another owner, whose ``url`` (if any) has the README to cite from.
    """

    title: str
    authors: tuple[str, ...] = ()
    doi: str | None = None
    url: str | None = None
    bibtex: str = ""
    foreign: bool = False


SplitBy = Literal["rows", "sessions", "subjects", "datasets"]
"""What is wholly in one split."""
SplitRule = Literal["permutation", "hash"]
Order = Literal["as_published", "hash"]
HeldOutGoTo = Literal["test", "leave_out"]


class SplitRules(Model):
    """How a pile is split and ordered, beyond ``split_by``, ``test_size`` and seed. The defaults: as published.

    ``split_rule``: a permutation of all rows (sessions), or a hash of each. ``hold_out`` names benchmarks, datasets,
    sessions and subjects that go to ``test`` or are left out.
    """

    split_rule: SplitRule = "permutation"
    order: Order = "as_published"
    valid_size: float = 0.0
    hold_out: tuple[str, ...] = ()
    held_out_go_to: HeldOutGoTo = "test"


class SplitFacts(Model):
    """What a split of a pile holds; ``hours`` is None where the length of a session is not known."""

    split: str
    rows: int
    sessions: int
    subjects: int
    datasets: int
    tokens: int
    hours: float | None


class PileRecord(Model):
    """Record of the published pile; ``plan`` is the digest of its plan, ``shards`` are those of each split.

    ``citations`` are by name of the component, ``benchmarks`` by name of a public list: its sessions, and how many of
    them have rows in each split. Records of before lack them, ``token_counts`` and ``splits``; ``rules`` are missing
    where they are those of the published pile. ``annotations`` is the hash of those of its components and of their
    unit orders, empty without any.
    """

    repository: str
    plan: str
    seed: int
    split_by: str
    test_size: float
    components: tuple[str, ...]
    shards: dict[str, tuple[ShardRecord, ...]]
    token_counts: tuple[TokenCounts, ...] = Field(default=(), exclude_if=lambda counts: not counts)
    citations: dict[str, ComponentCitation] = Field(default_factory=dict, exclude_if=lambda citations: not citations)
    annotations: str = Field(default="", exclude_if=lambda digest: not digest)
    rules: SplitRules = Field(default=SplitRules(), exclude_if=lambda rules: rules == SplitRules())
    splits: tuple[SplitFacts, ...] = Field(default=(), exclude_if=lambda splits: not splits)
    benchmarks: dict[str, dict[str, int]] = Field(default_factory=dict, exclude_if=lambda lists: not lists)
