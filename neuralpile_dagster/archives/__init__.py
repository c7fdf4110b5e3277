"""Archives: where recordings come from. `open_archive` picks the one that the settings and a source name.

Which archives there are is in `catalog.sources`; how each is read is in a module of its own, imported when it is
needed.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from neuralpile_dagster.catalog.sources import ARCHIVES

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.net.retry import RetryPolicy
    from neuralpile_dagster.settings import Settings


def open_archive(settings: Settings, source: Source, limits: RetryPolicy | None = None) -> Archive:
    """The archive that serves ``source`` on this instance; ``limits`` are other ones than the usual.

    ``NEURALPILE_ARCHIVE`` decides: the sample, a local folder of dandisets, or
    (``dandi``) the source's own archive. Synthetic recordings are in no folder,
    and own recordings always in the one that their row names.
    """
    from neuralpile_dagster.archives.folder import FolderArchive

    if source.path is not None:
        return FolderArchive((settings.home / Path(source.path).expanduser()).resolve(), holds_one_source=True)
    row = ARCHIVES["sample" if settings.archive == "sample" else source.archive]
    if settings.archive not in ("dandi", "sample") and not row.synthetic:
        return FolderArchive(Path(settings.archive))
    archive: Archive = pkgutil.resolve_name(row.opens)(settings.home, limits)
    return archive
