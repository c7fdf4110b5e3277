"""The form of a catalog row; it holds no facts about any dataset."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

RESERVED_NAMES = frozenset({"neural-pile"})
ReaderName = Literal["units", "firing_rates", "eight_probe_mat"]
ArchiveName = Literal["dandi", "figshare", "sample"]
Severity = Literal["warn", "error"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


PathPattern = Annotated[str, AfterValidator(_compiles)]


class Row(BaseModel):
    """Base of everything in the catalog: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Row):
    """Where a dataset's files come from, pinned to a version.

    ``version`` is a version's identifier, ``"draft"``, or ``"latest"`` for the
    newest published one. When the pinned version does not exist the archive
    falls back to the latest published one, then to the draft, and says so.
    """

    archive: ArchiveName = "dandi"
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    version: str = Field(default="latest", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")

    @property
    def folder(self) -> str:
        """Name of this source's folder in a folder archive."""
        return f"figshare-{self.id}" if self.archive == "figshare" else self.id

    @property
    def label(self) -> str:
        """How people name it, e.g. ``dandi 000713``."""
        return f"{self.archive} {self.id}"


class SessionRule(Row):
    """Which files of an archive are sessions. Patterns are regular expressions *searched* in the path.

    A file is chosen when its path matches one of ``include``, none of
    ``exclude``, and its metadata (DANDI's ``variableMeasured``) holds all of
    ``requires``. Files are taken in the order of their full paths.

    ``same_session`` says which files belong together: those whose captured
    groups are equal. ``several`` says what to do with them: ``"refuse"`` (an
    error; the default), ``"prefer"`` the one that matches the earliest pattern
    of ``include``, or ``"stack"`` all of them, units after units.

    ``subject_id`` is the name of the file's parent folder and ``session_id``
    the file name without extension, unless ``same_session`` has groups named
    ``subject`` or ``session``.
    """

    include: tuple[PathPattern, ...] = Field(default=(r"\.nwb$",), min_length=1)
    exclude: tuple[PathPattern, ...] = ()
    requires: tuple[str, ...] = ()
    same_session: PathPattern | None = None
    several: Literal["refuse", "prefer", "stack"] = "refuse"

    @model_validator(mode="after")
    def _grouping_has_groups(self) -> SessionRule:
        groups = re.compile(self.same_session).groups if self.same_session else 0
        if self.same_session is not None and groups == 0:
            raise ValueError("same_session must capture at least one (group)")
        if self.several != "refuse" and self.same_session is None:
            raise ValueError(f"several: {self.several} needs same_session")
        return self


class Dataset(Row):
    """One dataset (component) of the pile.

    ``*_published`` are the numbers of the published pile, ``sessions_expected``
    what the rule gives where that differs, ``notes`` the known doubts about them.
    ``severity`` overrides the severity of asset checks by name.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)
    title: str = Field(min_length=1)
    source: Source
    sessions: SessionRule = SessionRule()
    reader: ReaderName = "units"
    species: str | None = None
    doi: str | None = Field(default=None, pattern=r"^10\.\d{4,9}/\S+$")
    paper_doi: str | None = Field(default=None, pattern=r"^10\.\d{4,9}/\S+$")
    description: str = ""
    tokens_published: int | None = Field(default=None, ge=0)
    sessions_published: int | None = Field(default=None, ge=0)
    sessions_expected: int | None = Field(default=None, ge=0)
    subjects_published: int | None = Field(default=None, ge=0)
    notes: tuple[str, ...] = ()
    severity: dict[str, Severity] = Field(default_factory=dict)
    synthetic: bool = False

    @model_validator(mode="after")
    def _name_is_free(self) -> Dataset:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"{self.name!r} is the name of the merged pile")
        if self.synthetic != self.name.startswith("sample-"):
            raise ValueError("names that begin with 'sample-' are for synthetic recordings, and only for those")
        return self

    @property
    def key(self) -> str:
        """The name as Dagster keys and groups can hold it (``-`` becomes ``_``)."""
        return self.name.replace("-", "_")

    @property
    def sessions_due(self) -> int | None:
        """How many sessions the rule should give, where that is known."""
        return self.sessions_published if self.sessions_expected is None else self.sessions_expected
