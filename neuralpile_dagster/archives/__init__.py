"""Archives: where recordings come from. `open_archive` picks the one that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.net.retry import RetryPolicy
    from neuralpile_dagster.settings import Settings


def open_archive(settings: Settings, source: Source, limits: RetryPolicy | None = None) -> Archive:
    """The archive that serves ``source`` on this instance; ``limits`` are other ones than the usual.

    ``NEURALPILE_ARCHIVE`` decides: the sample, a local folder of dandisets, or
    (``dandi``) the source's own archive on the network.
    """
    if settings.archive == "sample" or source.archive == "sample":
        from neuralpile_dagster.archives.sample.archive import SampleArchive

        return SampleArchive(settings.home)
    if settings.archive != "dandi":
        from neuralpile_dagster.archives.folder import FolderArchive

        return FolderArchive(Path(settings.archive))
    if source.archive == "figshare":
        from neuralpile_dagster.archives.figshare import FigshareArchive

        return FigshareArchive.from_environment(settings.home, limits)
    from neuralpile_dagster.archives.dandi.archive import DandiArchive

    return DandiArchive.from_environment(settings.home, limits)
