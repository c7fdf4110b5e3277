"""Whether a source has changed since somebody last looked: one request, no listing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source


@runtime_checkable
class Watchable(Protocol):
    """An archive that knows more cheaply than by listing whether a source changed."""

    def state(self, source: Source) -> str:
        """A text that changes when a new listing may differ from the last one."""
        ...


def source_state(archive: Archive, source: Source) -> str:
    """A short token, different whenever a newer version was published or the files may have changed.

    One API call where the archive can do that; otherwise the files are listed and their sizes,
    digests and times make the token. Raises `ArchiveError`, `ArchiveUnavailable`.
    """
    if isinstance(archive, Watchable):
        return archive.state(source)
    digest = hashlib.sha256()
    for file in archive.list_files(source).files:
        digest.update(file.model_dump_json().encode())
    return digest.hexdigest()
