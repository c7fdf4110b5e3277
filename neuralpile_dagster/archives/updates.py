"""Whether a source has changed since it was listed: one or two requests, no listing."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive, Listing
    from neuralpile_dagster.catalog.model import Source


class SourceState(NamedTuple):
    """What an archive says about a source.

    Attributes
    ----------
    token : str
        Differs from that of an earlier listing when a new one may give other files. Of a pinned version that
        exists it stays the same for ever, whatever is published later.
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
