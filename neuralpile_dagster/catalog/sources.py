"""Archives as rows: what each is called, how its sources are named and shown, and what opens it.

Catalog rows, cards, pages, the folder layout and `archives.open_archive` derive from these rows: another archive is one
module with a class that has the methods of `archives.model.Archive`, and one row. How an archive is asked belongs in
that module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ArchiveRow:
    """One archive.

    Attributes
    ----------
    name : str
        As ``source.archive`` of a catalog row names it.
    opens : str
        What gives the `Archive`, called with ``(home, limits)``: ``"module:function"``, imported when it is needed.
        Empty for ``folder``, whose sources name their place themselves.
    publisher : str
        Its name in citations.
    page, version_page : str or None
        Web page of a source and of one version of it, with ``{id}`` and ``{version}``.
    folder : str
        Name of a source's folder below a local folder of recordings, with ``{id}``.
    download : str
        Command that puts a source there, with ``{id}`` and ``{root}``; empty when there is none.
    version_text : str
        What people read in place of a version where nobody pins one.
    has_ranges : bool
        Whether parts of files can be read; otherwise whole files are downloaded.
    synthetic : bool
        Whether its recordings are made on this machine, so that it has no sources of users.
    """

    name: str
    opens: str = ""
    publisher: str = ""
    page: str | None = None
    version_page: str | None = None
    folder: str = "{id}"
    download: str = ""
    version_text: str = ""
    has_ranges: bool = True
    synthetic: bool = False

    def url(self, source_id: str, version: str) -> str | None:
        """The web page where people look at a source; None when there is none."""
        page = self.page if version == "latest" else self.version_page or self.page
        return page and page.format(id=source_id, version=version)


_ROWS = (
    ArchiveRow(
        name="dandi",
        opens="neuralpile_dagster.archives.dandi:DandiArchive.from_environment",
        publisher="DANDI Archive",
        page="https://dandiarchive.org/dandiset/{id}",
        version_page="https://dandiarchive.org/dandiset/{id}/{version}",
        download="dandi download DANDI:{id} -o {root}",
    ),
    ArchiveRow(
        name="figshare",
        opens="neuralpile_dagster.archives.figshare:FigshareArchive.from_environment",
        publisher="figshare",
        page="https://figshare.com/articles/dataset/_/{id}",
        folder="figshare-{id}",
        version_text="the article as it is published",
        has_ranges=False,
    ),
    ArchiveRow(
        name="folder",
        version_text="the files as they lie in the folder",
    ),
    ArchiveRow(
        name="sample",
        opens="neuralpile_dagster.archives.folder:SampleArchive",
        synthetic=True,
    ),
)
ARCHIVES: Mapping[str, ArchiveRow] = {row.name: row for row in _ROWS}
