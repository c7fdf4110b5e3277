"""The `Archive` protocol: list the files of a pinned version, open one for reading.

Archives know nothing of Dagster, bins or tables. Listing costs a few requests,
never one per file; opening reads no more than is asked for.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.records import Citation, Model

if TYPE_CHECKING:
    from neuralpile_dagster.catalog.model import Source


Access = Literal["ranges", "download"]


class ArchiveFile(Model):
    """One file of an archive (a DANDI "asset"), as listed.

    ``variables`` is DANDI's ``variableMeasured``; ``None`` means that it could
    not be known (a local file that does not open): such a file is never
    dropped for lacking a variable, it fails when it is read.
    The same holds for a DANDI file whose ``variableMeasured`` is invalid.
    ``digests`` maps an algorithm (``sha256``, ``dandi-etag``, ``md5``) to hex.
    """

    path: str
    size: Annotated[int, Field(ge=0, lt=2**63)]
    file_id: str
    digests: dict[str, str] = Field(default_factory=dict)
    variables: tuple[str, ...] | None = ()
    modified: str | None = None
    url: str | None = None


class Listing(Model):
    """The files of one version of a source, at one time.

    ``frozen`` is false for a mutable version (a DANDI draft);
    ``version_note`` says so when another version than the pinned one was used,
    ``newer_version`` when the pinned one was and a newer one is published.
    ``state``: see `SourceState`; None where the files are all that is known.
    ``notes`` name the fields of the archive's documents that were invalid and not used.
    """

    archive: str
    source_id: str
    version: str
    version_note: str | None = None
    newer_version: str | None = None
    state: str | None = None
    frozen: bool
    synthetic: bool = False
    listed_at: datetime
    files: tuple[ArchiveFile, ...]
    citation: Citation = Citation()
    notes: tuple[str, ...] = ()


class Archive(Protocol):
    """Where recordings come from."""

    def list_files(self, source: Source) -> Listing:
        """List the files of the source's version, in path order.

        Raises `ArchiveError` when the source does not exist, `ArchiveUnavailable`
        when the archive cannot be reached.
        """
        ...

    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> AbstractContextManager[OpenFile]:
        """Open one listed file for reading."""
        ...


class SourceState(NamedTuple):
    """What an archive says about a source.

    Attributes
    ----------
    token : str
        Differs from that of an earlier listing when a new one may give other files. Of a pinned version that
        exists it never changes, whatever is published later.
    newer_version : str or None
        Which version is published besides the pinned one, in words.
    """

    token: str
    newer_version: str | None


@runtime_checkable
class Watchable(Protocol):
    """An archive that knows more cheaply than by listing whether a source changed."""

    def state(self, source: Source) -> SourceState:
        """The state of a source, the same that its listings have."""
        ...


def source_state(archive: Archive, source: Source) -> SourceState:
    """The state of a source now.

    One or two requests where the archive can do that; otherwise the files are listed and their sizes,
    digests and times make the token. Raises `ArchiveError`, `ArchiveUnavailable`.
    """
    if isinstance(archive, Watchable):
        return archive.state(source)
    listing = archive.list_files(source)
    return SourceState(listing_token(listing), listing.newer_version)


def listing_token(listing: Listing) -> str:
    """The token of `SourceState` when this was listed."""
    if listing.state is not None:
        return listing.state
    digest = hashlib.sha256()
    for file in listing.files:
        digest.update(json.dumps(file.model_dump()).encode())  # which takes names that are no text, too
    return digest.hexdigest()


def pinned_besides(latest: str, pinned: str) -> str | None:
    """`SourceState.newer_version` where the pinned version was found."""
    return None if latest == pinned else f"version {latest} is published, {pinned} is pinned"
