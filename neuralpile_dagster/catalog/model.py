"""The schema of a catalog row; facts about datasets belong in `rodent`, `sample` or ``catalog.yaml``."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from neuralpile_dagster.catalog import readers
from neuralpile_dagster.catalog.readers import PathPattern
from neuralpile_dagster.catalog.sources import ARCHIVES, ArchiveRow
from neuralpile_dagster.catalog.unit_rules import parse_rule
from neuralpile_dagster.errors import CatalogError, ConfigurationError, did_you_mean

RESERVED_NAMES = frozenset({"neural-pile", "neural-pile-primate"})
Severity = Literal["warn", "error"]
MAX_SESSION_TOKENS = 20_000_000_000
"""Tokens of a session that nobody has allowed more: eight times the largest session of the published pile."""

_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_ID = r"^[A-Za-z0-9][A-Za-z0-9-]*$"
_VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_DOI = r"^10\.\d{4,9}/\S+$"
FILE_STEM = r"^[A-Za-z0-9_-]+$"
_FORMS = {
    _NAME: ("small letters and digits, with single hyphens between them", r"[^a-z0-9]+", "-"),
    _ID: ("letters, digits and hyphens, a letter or digit first", r"[^A-Za-z0-9-]+", "-"),
    _VERSION: ("letters, digits, dots, hyphens and underscores, a letter or digit first", r"[^A-Za-z0-9._-]+", "-"),
    _DOI: ("a DOI without the address before it", r"^.*?(?=10\.)|\s+", ""),
    FILE_STEM: ("letters, digits, hyphens and underscores", r"[^A-Za-z0-9_-]+", "-"),
}
"""By pattern of a field: what it allows in words, what else a text may hold, and what takes the place of that."""

MAX_MOTIF_CELLS = 64
MAX_VOCABULARY_CELLS = 32
"""Cells of a motif that can be a token: scores are compared exactly in 64 bits."""
MAX_VOCABULARY = 1_000_000
MOTIF_TABLE_ROWS = 1_000_000
"""Most rows of a motif table, unless stated."""


def form_in_words(pattern: str, text: str) -> str:
    """What a field with one of the patterns of this module allows, and the form of the text that it would take.

    Examples
    --------
    >>> form_in_words(_NAME, "My recordings (2024)")
    "small letters and digits, with single hyphens between them, e.g. 'my-recordings-2024'"
    """
    words, other, instead = _FORMS[pattern]
    near = re.sub(other, instead, text.lower() if pattern == _NAME else text).strip("-._")
    return f"{words}, e.g. {near!r}" if re.match(pattern, near) else words


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in text):
        raise ValueError("control characters are not allowed in text")
    return text


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _known_archive(name: str) -> str:
    if name not in ARCHIVES:
        error = CatalogError(
            f"there is no archive {name[:60]!r}",
            expected=f"one of {', '.join(repr(row.name) for row in ARCHIVES.values() if not row.synthetic)}",
            remedy=did_you_mean(name, ARCHIVES),
        )
        raise ValueError(str(error))
    return name


def _known_reader(name: str) -> str:
    if name not in readers.BUILT_IN:  # those of other packages are not looked for to import the package's own rows
        try:
            readers.get_reader(name)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
    return name


def _is_rule(expression: str) -> str:
    parse_rule(expression)
    return expression


def _shape(value: Any) -> Any:
    """Refuse in words what is no shape; pydantic's errors are about the parts of a tuple."""
    numbers = [int(part) for part in value if re.fullmatch(r"\d{1,9}", str(part))] if _is_list(value) else []
    if len(numbers) != 2 or len(value) != 2:
        shown = f"[{', '.join(map(str, value))}]" if _is_list(value) else str(value)
        raise ValueError(f"{shown[:60]} is not a shape of motifs; expected: [units, bins], e.g. [1, 15]")
    if not 1 <= numbers[0] * numbers[1] <= MAX_MOTIF_CELLS:
        raise ValueError(f"{numbers} is not a shape of motifs; expected: units x bins of 1 to {MAX_MOTIF_CELLS}")
    return tuple(numbers)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{list(value) if _is_list(value) else value} is there twice")
    return values


ArchiveName = Annotated[str, AfterValidator(_known_archive)]
ReaderName = Annotated[str, AfterValidator(_known_reader)]
Text = Annotated[str, Field(max_length=2000), AfterValidator(_one_line)]
Title = Annotated[Text, AfterValidator(_not_blank)]
Name = Annotated[str, Field(pattern=_NAME, max_length=60)]
UnitRuleText = Annotated[Title, AfterValidator(_is_rule)]
Doi = Annotated[str, Field(pattern=_DOI, max_length=200)]

Shape = Annotated[tuple[int, int], BeforeValidator(_shape)]
Shapes = Annotated[tuple[Shape, ...], AfterValidator(_each_once)]
"""Shapes of motifs, (units, bins) each; `neuralpile_dagster.motifs`."""
VocabularySize = Annotated[int, Field(ge=3, le=MAX_VOCABULARY)]
TableRows = Annotated[int, Field(ge=1, le=100_000_000)]
"""Most rows of a motif table."""
VocabularySizes = Annotated[tuple[VocabularySize, ...], AfterValidator(_each_once)]
"""Numbers of token ids, the separator among them."""


class Row(BaseModel):
    """Base of everything in the catalog: frozen, and strict about unknown fields.

    Fields in ``added_later`` are dumped only where they are set: a new field
    changes no hash of a row without it, so that nothing becomes due.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    added_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value or name not in self.added_later}


class Source(Row):
    """Source of a dataset's files, pinned to a version.

    ``version`` is a version's identifier, ``"draft"``, or ``"latest"`` for the
    newest published one. When the pinned version does not exist the archive
    falls back to the latest published one, then to the draft, with a warning.

    Own recordings lie in a folder that no archive has: ``archive: folder`` with
    its ``path`` (``~`` is your home; a relative one counts from
    ``NEURALPILE_HOME``). Its ``id`` is the folder's name, unless it is given.
    """

    added_later = frozenset({"path"})

    archive: ArchiveName = "dandi"
    id: str = Field(pattern=_ID, max_length=60)
    version: str = Field(default="latest", pattern=_VERSION, max_length=60)
    path: Title | None = None

    @model_validator(mode="before")
    @classmethod
    def _folder_has_its_name(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "id" in content:
            return content
        path = content.get("path", "" if content.get("archive") == "folder" else None)
        if not isinstance(path, str):
            return content
        name = re.sub(r"[^A-Za-z0-9]+", "-", PurePath(path).name).strip("-")[:60].rstrip("-")
        return {**content, "id": name or "recordings"}

    @model_validator(mode="after")
    def _path_is_a_folder_s(self) -> Source:
        if (self.archive == "folder") != (self.path is not None):
            raise ValueError("`archive: folder` and `path: ...`, the folder of the recordings, belong together")
        return self

    @property
    def facts(self) -> ArchiveRow:
        """What is known of its archive."""
        return ARCHIVES[self.archive]

    @property
    def folder(self) -> str:
        """Name of this source's folder in a folder archive."""
        return self.facts.folder.format(id=self.id)

    @property
    def label(self) -> str:
        """Short name for people, e.g. ``dandi 000713``."""
        return f"{self.archive} {self.id}"

    @property
    def url(self) -> str | None:
        """The web page where people look at it; None for the synthetic sample."""
        return self.facts.url(self.id, self.version)


class SessionRule(Row):
    """Rule that chooses session files of an archive. Patterns are regular expressions *searched* in the path.

    Or else in the path with its suffix in lower case: ``a.NWB`` is an NWB file.

    A file is chosen when its path matches one of ``include``, none of
    ``exclude``, and its metadata (DANDI's ``variableMeasured``) holds all of
    ``requires``. Files are taken in the order of their full paths.

    ``same_session`` says which files belong together: those whose captured
    groups are equal; a file that it does not match is a session of its own.
    ``several`` says what to do with files that belong together: ``"refuse"``
    (an error; the default), ``"prefer"`` the one that matches the earliest
    pattern of ``include``, or ``"stack"`` all of them, units after units.

    ``subject_id`` is the name of the nearest ``sub-*`` folder of the file's
    path, else of its parent folder, and ``session_id`` the file name without
    extension (of the first file, when stacked), unless ``same_session`` has
    groups named ``subject`` or ``session``. The subject of a file that lies in
    no folder is its ``session_id``.
    """

    include: tuple[PathPattern, ...] = Field(default=(r"\.nwb$",), min_length=1)
    exclude: tuple[PathPattern, ...] = ()
    requires: tuple[str, ...] = ()
    same_session: PathPattern | None = None
    several: Literal["refuse", "prefer", "stack"] = "refuse"

    @model_validator(mode="after")
    def _grouping_has_groups(self) -> SessionRule:
        pattern = re.compile(self.same_session or "")
        if self.same_session is not None and pattern.groups == 0:
            raise ValueError("same_session must capture at least one (group)")
        unknown = set(pattern.groupindex) - {"subject", "session"}
        if unknown:
            raise ValueError(f"same_session names groups {sorted(unknown)}; only subject and session have a meaning")
        if self.several != "refuse" and self.same_session is None:
            raise ValueError(f"several: {self.several} needs same_session")
        return self


HAS_UNITS = SessionRule(requires=("Units",))
PROBES_OF_ONE_SESSION = SessionRule(
    same_session=(
        r"(?:^|/)(?P<subject>[^/]+)/(?:(?P=subject)|[^_/]+)_(?P<session>[^_/]+?)"
        r"(?:[-_]probe\d+)?(?:_[^/]*)?\.nwb$"
    ),
    several="stack",
)
"""By the subject's folder, and the first part (to a ``_``) of the file's name after the subject without its probe."""


class Dataset(Row):
    """One dataset (component) of the pile.

    ``*_published`` are the numbers of the published pile, ``sessions_expected``
    what the rule gives where that differs (or ``unknown``), ``notes`` the known doubts about them.
    ``reader`` is a name in `catalog.readers`, ``reader_options`` are what it takes; ``severity`` overrides the severity
    of asset checks by name. ``license``, ``authors`` and ``citation`` are
    published for own recordings (``source.archive: folder``); for others only
    where the source states none. A session of more than ``max_session_tokens`` is
    refused before it is written: most often its spike times are not in seconds.
    Ready-made counts of bins that cannot be summed to those of the instance are refused, unless ``allow_bin_width``
    publishes them in their own.
    ``tags`` say which piles it is a component of (`catalog.piles`). ``rule_checked`` and ``reader_checked`` are false
    while the session rule was not tried on a real listing, or the reader on none of its files.
    ``paper_url`` is for a paper without a known DOI; ``areas`` and ``task`` say in words where and during what was
    recorded. ``good_units`` are rules by name (`catalog.unit_rules`): the published ``units`` name for each unit those
    that hold; none is left out for them. ``same_subject`` is searched in a ``subject_id``; its group ``subject`` is the
    animal, which has several folders then. ``hold_out``: no pile trains on it. ``publish_spike_times``: a repository of
    its spike times is published with it. ``motif_shapes``: motifs of its sessions are counted; `load_catalog` adds
    those of its piles. ``unit_order``: the units of its sessions are ordered by how alike they fire; where it is not
    stated, `load_catalog` takes the line that holds for all.
    """

    added_later = frozenset(
        {
            *("license", "authors", "citation", "paper_url", "areas", "task"),
            *("reader_options", "allow_bin_width", "tags"),
            *("good_units", "same_subject", "hold_out", "publish_spike_times", "motif_shapes", "unit_order"),
        }
    )

    name: Name
    title: Title
    source: Source
    sessions: SessionRule = SessionRule()
    reader: ReaderName = "units"
    reader_options: dict[str, Any] = Field(default_factory=dict)
    allow_bin_width: bool = False
    species: Text | None = None
    doi: Doi | None = None
    paper_doi: Doi | None = None
    paper_url: HttpUrl | None = None
    areas: tuple[Title, ...] = ()
    task: Text = ""
    description: Text = ""
    license: Title | None = None
    authors: tuple[Title, ...] = ()
    citation: Title | None = None
    tokens_published: int | None = Field(default=None, ge=0)
    sessions_published: int | None = Field(default=None, ge=0)
    sessions_expected: Annotated[int, Field(ge=0)] | Literal["unknown"] | None = None
    subjects_published: int | None = Field(default=None, ge=0)
    notes: tuple[Text, ...] = ()
    good_units: dict[Title, UnitRuleText] = Field(default_factory=dict)
    severity: dict[str, Severity] = Field(default_factory=dict)
    max_session_tokens: int = Field(default=MAX_SESSION_TOKENS, ge=1)
    same_subject: PathPattern | None = None
    hold_out: bool = False
    publish_spike_times: bool = False
    motif_shapes: Shapes = ()
    unit_order: bool | None = None
    synthetic: bool = False
    tags: tuple[Name, ...] = ()
    rule_checked: bool = True
    reader_checked: bool = True

    @model_validator(mode="after")
    def _options_are_the_reader_s(self) -> Dataset:
        if self.reader not in readers.BUILT_IN or self.reader_options or self.reader == "binned_series":
            try:
                readers.get_reader(self.reader).configured(self.reader_options)
            except ConfigurationError as error:
                raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _name_is_free(self) -> Dataset:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"{self.name!r} is the name of a merged pile")
        if self.synthetic != self.name.startswith("sample-"):
            raise ValueError("names that begin with 'sample-' are for synthetic recordings, and only for those")
        if self.same_subject is not None and "subject" not in re.compile(self.same_subject).groupindex:
            raise ValueError("same_subject must capture a group named subject: (?P<subject>...)")
        return self

    @property
    def key(self) -> str:
        """Name for Dagster keys and groups (``-`` becomes ``_``)."""
        return self.name.replace("-", "_")

    @property
    def paper(self) -> str | None:
        """Web address of its paper: of the DOI if that is known, else ``paper_url``."""
        if self.paper_doi:
            return f"https://doi.org/{self.paper_doi}"
        return str(self.paper_url) if self.paper_url else None

    @property
    def sessions_due(self) -> int | None:
        """Expected number of sessions, if known."""
        if self.sessions_expected == "unknown":
            return None
        return self.sessions_published if self.sessions_expected is None else self.sessions_expected
