"""Records: small JSON documents in the store that describe stored files.

A record is written after its file, so a file counts as made only once its
record exists and names its size and digest. Dagster's metadata, the
publishing step, the pile's plan and ``neuralpile status`` all read records.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from neuralpile_dagster.errors import DocumentError, NewerDocument

FORM = 1
"""Form of the documents written now: raised when an older version must not read them. Absent in a document: form 0.

Form 1: fields that this version does not know are kept (a newer version may add fields without a new form).
"""

_FORM = "form"
_DIGEST = "content_sha256"


class Model(BaseModel):
    """Base of what is stored as JSON: frozen, and strict where a program makes one.

    A stored document may have unknown fields (`read_document`): they are written again, and are in no
    ``model_dump``, so that hashes of inputs do not depend on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyModel = TypeVar("AnyModel", bound=Model)


def document(model: Model) -> str:
    """Return a model as the text of a stored document: JSON that a person can read, with its form and digest."""
    content = {_FORM: FORM, **_with_unknown(json.loads(model.model_dump_json()), model)}
    return json.dumps({_DIGEST: content_digest(content), **content}, indent=1, ensure_ascii=False) + "\n"


def content_digest(content: dict[str, Any]) -> str:
    """Return the sha256 (hex) that a document of this content has, however its JSON is laid out; in every form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_document(text: bytes, kind: type[AnyModel], name: str) -> AnyModel:
    """Parse a stored document, keeping fields that this version does not know.

    Parameters
    ----------
    text : bytes
        From `document`, of this or another version.
    kind : type
        The `Model` that it should be.
    name : str
        How errors call the document.

    Raises
    ------
    NewerDocument
        A newer version made it.
    DocumentError
        It is damaged, or not such a document.
    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
    except ValueError as error:
        raise _not_a(kind, name, str(error)) from error
    stated = content.pop(_DIGEST, None)
    if stated is not None and stated != (digest := content_digest(content)):
        raise _damaged(name, f"content with sha256 {digest}", str(stated))
    form = content.pop(_FORM, 0)
    if type(form) is not int or form < 0:
        raise _not_a(kind, name, f"form {form!r}")
    if form > FORM:
        raise NewerDocument(
            f"{name} was made by a newer version of neuralpile-dagster",
            found=f"form {form}",
            expected=f"form {FORM} or older",
            remedy="upgrade neuralpile-dagster here: pip install --upgrade neuralpile-dagster",
        )
    if form and stated is None:
        raise _damaged(name, f"form {form} without {_DIGEST}", _DIGEST)
    try:
        return kind.model_validate_json(json.dumps(content), extra="allow")
    except ValueError as error:
        raise _not_a(kind, name, str(error).splitlines()[0]) from error


def _damaged(name: str, found: str, expected: str) -> DocumentError:
    return DocumentError(
        f"{name} is damaged, or was edited",
        found=found,
        expected=expected,
        remedy="restore it from a backup, or delete that file and materialize the asset that makes it",
    )


def _not_a(kind: type[Model], name: str, found: str) -> DocumentError:
    return DocumentError(
        f"{name} is not a {kind.__name__.lstrip('_')}",
        found=found,
        remedy="delete that file and materialize the asset that makes it",
    )


def _with_unknown(content: Any, value: Any) -> Any:
    """Add to what was dumped of ``value`` the unknown fields that its models were read with."""
    if isinstance(value, Model):
        fields = [name for name in type(value).model_fields if name in content]
        known = {name: _with_unknown(content[name], getattr(value, name)) for name in fields}
        return {**known, **(value.__pydantic_extra__ or {})}
    if isinstance(value, tuple):
        return [_with_unknown(*pair) for pair in zip(content, value, strict=True)]
    if isinstance(value, dict):
        return {name: _with_unknown(content[name], item) for name, item in value.items()}
    return content


class StoredFile(Model):
    """One file in the store: key relative to the store, bytes, sha256 (hex)."""

    key: str
    size: int
    sha256: str


class FactsRecord(Model):
    """Stored form of `neuralpile_dagster.recordings.model.SessionFacts`."""

    subject: str | None = None
    sex: str | None = None
    age: str | None = None
    species: str | None = None
    start_time: str | None = None
    reference_time: str | None = None
    description: str | None = None


class Citation(Model):
    """Authors, title, DOI and license from a source's own metadata."""

    title: str | None = None
    authors: tuple[str, ...] = ()
    citation: str | None = None
    license: str | None = None
    doi: str | None = None
    url: str | None = None


class TrainsRecord(Model):
    """Record of ``spike_trains/<key>``. ``inputs`` is the hash of its inputs.

    ``n_spikes`` is None for recordings that hold ready-made counts. ``unverified``: values were read by byte ranges
    from data without checksums, so that a bit flipped in the transfer would not be seen. ``annotate``: automation
    annotates the session too; not set by earlier versions, so that an upgrade makes nothing due.
    """

    inputs: str
    file: StoredFile
    subject_id: str
    session_id: str
    source_version: str
    n_units: int
    n_spikes: int | None
    facts: FactsRecord
    notes: tuple[str, ...] = ()
    unverified: bool = False
    annotate: bool = Field(default=False, exclude_if=lambda annotate: not annotate)


class RowRecord(Model):
    """One row (segment) of a counts file; ``bytes`` is the compressed size of its row group."""

    segment_id: str
    n_bins: int
    bytes: int


class ClockRecord(Model):
    """What a session's spike times say about their clock; seconds of that clock.

    ``start_s`` is the time at which bin 0 begins, None where the file holds counts without a clock (seconds are
    then from bin 0). ``observed_s`` is the time in which any unit was observed: within the ``obs_intervals`` where
    the file states them (``intervals_stated``), else from the first spike to the last. ``outside_intervals`` spikes
    lie outside those of their unit. ``falls`` spikes of ``falling_units`` units are earlier than the one before
    them, by up to ``largest_fall_s``. ``whole_times`` are whole numbers.
    """

    start_s: float | None
    first_spike_s: float
    last_spike_s: float
    observed_s: float
    intervals_stated: bool = False
    outside_intervals: int = 0
    falls: int = 0
    falling_units: int = 0
    largest_fall_s: float = 0.0
    whole_times: int = 0


class CountsStats(Model):
    """Numbers about one session's counts.

    ``spikes_kept + lost_to_saturation + dropped_negative + dropped_nan +
    dropped_beyond == spikes_read`` always holds. ``histogram[c]`` is the number
    of bins that hold c spikes (trailing zeros cut). ``fingerprint`` is equal
    for two sessions with the same spikes per unit and length.
    ``implausible_bins`` hold more spikes than a rate of 1 kHz allows (20 in 20
    ms), ``implausible_units`` are the rows they are in, each with how many.
    ``duplicate_spikes`` have exactly the time of another spike of their unit.
    ``bins_dropped`` last bins of a file with ready-made counts did not fill a bin.
    ``longest_quiet_bins`` is the longest stretch without a spike of any unit.
    ``activity`` holds the spikes kept in each of up to 120 equal parts of the
    session. ``clock`` and ``activity`` are missing in records of before, and
    then left out of what is stored and hashed: such records stay as they are.
    """

    n_units: int
    n_bins: int
    bin_width_s: float
    tokens: int
    spikes_read: int
    spikes_kept: int
    dropped_negative: int = 0
    dropped_nan: int = 0
    dropped_beyond: int = 0
    lost_to_saturation: int = 0
    saturated_bins: int = 0
    missing_bins: int = 0
    bins_dropped: int = Field(default=0, exclude_if=lambda bins: not bins)
    silent_units: int
    max_count: int
    histogram: tuple[int, ...]
    implausible_bins: int = 0
    implausible_units: tuple[tuple[int, int], ...] = ()
    duplicate_spikes: int = 0
    longest_quiet_bins: int = 0
    fingerprint: str
    activity: tuple[int, ...] = Field(default=(), exclude_if=lambda activity: not activity)
    clock: ClockRecord | None = Field(default=None, exclude_if=lambda clock: clock is None)

    @property
    def duration_s(self) -> float:
        """Length of the binned session in seconds."""
        return self.n_bins * self.bin_width_s

    @property
    def observed_s(self) -> float:
        """Seconds in which the session was observed (`ClockRecord`); its length where the record does not say."""
        return self.clock.observed_s if self.clock is not None and self.clock.observed_s > 0 else self.duration_s

    @property
    def mean_rate_hz(self) -> float:
        """Spikes per unit and second, over the time observed."""
        return self.spikes_kept / (self.n_units * self.observed_s)

    @property
    def dropped(self) -> int:
        """Spikes whose times are in no bin; saturated ones are not among them."""
        return self.dropped_negative + self.dropped_nan + self.dropped_beyond

    @property
    def unaccounted(self) -> int:
        """Spikes read but neither kept nor counted as lost; 0 in a correct session."""
        lost = self.lost_to_saturation + self.dropped_negative + self.dropped_nan + self.dropped_beyond
        return self.spikes_read - self.spikes_kept - lost


class CountsRecord(Model):
    """Record of ``spike_counts/<key>``: the counts file, the units table beside it, its rows and statistics.

    ``trains_inputs`` is `TrainsRecord.inputs` of the spike trains that were
    binned, which identifies the archive files as listed then. ``unverified`` is that of the spike trains.
    """

    inputs: str
    trains_inputs: str
    file: StoredFile
    units_file: StoredFile
    subject_id: str
    session_id: str
    source_version: str
    max_tokens: int
    facts: FactsRecord
    stats: CountsStats
    rows: tuple[RowRecord, ...]
    unverified: bool = False


class AnalysisRecord(Model):
    """Base of an analysis' stored results for one session; ``inputs`` is the hash of everything they were made from."""

    inputs: str
    session_id: str
    file: StoredFile | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files in the store."""
        return (self.file,) if self.file else ()


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
    maps the keys of sessions that are not in it to the reason. ``annotations`` are not among the ``inputs``: the pile
    is not planned again for them. ``bin_width_s`` is that of the first session, ``other_bin_widths_s`` are those of
    sessions that have another (`Dataset.allow_bin_width`). ``spikes`` are its published spike times, where asked for.
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
    where they are those of the published pile. ``annotations`` is the hash of those of its components, empty without
    any.
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
