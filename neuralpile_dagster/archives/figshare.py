"""figshare as an archive: public articles, always downloaded whole and verified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralpile_dagster.archives.downloads import DownloadCache, local_copy
from neuralpile_dagster.archives.model import Access, ArchiveFile, Listing, SourceState, pinned_besides
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.net.http import Connections, get_json, read_pages
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster.net.retry import NotFound, RetryPolicy
from neuralpile_dagster.records import Citation
from neuralpile_dagster.settings import DEFAULT_CONNECTIONS, ProcessSettings

if TYPE_CHECKING:
    from neuralpile_dagster.catalog.model import Source

DEFAULT_API_URL = "https://api.figshare.com/v2"
PAGE_SIZE = 1000  # the most that the API gives at once


class FigshareArchive:
    """An `Archive` of figshare articles; a source's id is the article's, its version the article's number.

    Parameters
    ----------
    api_url : str
        Ends in ``/v2``.
    cache : DownloadCache
        Where the files go.
    connections : int
        Requests on their way at a time, for all files that are open together.
    limits : RetryPolicy
    """

    def __init__(
        self,
        api_url: str,
        cache: DownloadCache,
        connections: int = DEFAULT_CONNECTIONS,
        limits: RetryPolicy | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.connections = connections
        self.limits = limits or RetryPolicy()
        self._cache = cache
        self._connections = Connections(connections, self.limits)

    @classmethod
    def from_environment(cls, home: Path, limits: RetryPolicy | None = None) -> FigshareArchive:
        """Read FIGSHARE_API_URL and the `ProcessSettings`.

        Raises `ConfigurationError` naming the variable that is wrong.
        """
        process = ProcessSettings.from_environment()
        return cls(
            api_url=os.environ.get("FIGSHARE_API_URL") or DEFAULT_API_URL,
            cache=DownloadCache(home / "cache", process.cache_bytes),
            connections=process.connections,
            limits=limits,
        )

    def list_files(self, source: Source) -> Listing:
        """List the article's files; see `Archive.list_files`. Versions of articles never change."""
        article, path, note, state = self._choose_version(source)
        with _understanding(source):
            entries = list(self._entries(source, f"{path}/files"))
            return Listing(
                archive="figshare",
                source_id=source.id,
                version=str(article["version"]),
                version_note=note,
                newer_version=state.newer_version,
                state=state.token,
                frozen=True,
                listed_at=datetime.now(UTC),
                files=tuple(sorted((_archive_file(entry) for entry in entries), key=lambda file: file.path)),
                citation=_citation(article),
            )

    def state(self, source: Source) -> SourceState:
        """See `Watchable.state`; a second request where the pinned version is not the latest one."""
        return self._choose_version(source)[3]

    def _choose_version(self, source: Source) -> tuple[dict[str, Any], str, str | None, SourceState]:
        """The article's version that is read, its path, why it is not the pinned one, and the source's state."""
        path = f"/articles/{source.id}"
        article = self._get(source, path)
        note, newer = None, None
        with _understanding(source):
            latest = str(article["version"])
        if source.version not in ("latest", latest):
            try:
                article = self._get(source, f"{path}/versions/{source.version}")
                path = f"{path}/versions/{source.version}"
                newer = pinned_besides(latest, source.version)
            except NotFound:
                note = f"version {source.version} does not exist; the latest version {latest} was read"
        with _understanding(source):
            return article, path, note, SourceState(f"version {article['version']}", newer)

    @contextmanager
    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> Iterator[LocalFile]:
        """Open a verified copy of one listed file; both kinds of access download it whole."""
        url = file.url
        if url is None:
            raise ArchiveError(
                f"{file.path} of {source.label} is a link to another site, not a file",
                expected="a file stored by figshare",
                remedy="download it yourself and set NEURALPILE_ARCHIVE to the folder that contains it",
            )

        def connect() -> RemoteObject:
            return RemoteObject(file.path, file.size, url, lambda: url, self._connections)

        with local_copy(self._cache, file, connect, self.connections) as copy:
            yield copy

    def _get(self, source: Source, path: str, query: dict[str, str] | None = None) -> Any:
        return get_json(f"{self.api_url}{path}", source.label, self.limits, query)

    def _entries(self, source: Source, path: str) -> Iterator[dict[str, Any]]:
        def read(page: int) -> tuple[list[Any], int | None]:
            entries = self._get(source, path, {"page": str(page), "page_size": str(PAGE_SIZE)})
            return entries, None if len(entries) < PAGE_SIZE else page + 1

        return read_pages(1, read)


@contextmanager
def _understanding(source: Source) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(
            f"{source.label}: the response of figshare was not understood",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected="an article as described by figshare's API version 2",
            remedy="check FIGSHARE_API_URL",
        ) from error


def _archive_file(entry: dict[str, Any]) -> ArchiveFile:
    md5 = entry.get("computed_md5") or entry.get("supplied_md5")
    return ArchiveFile(
        path=entry["name"],
        size=entry["size"],
        file_id=str(entry["id"]),
        digests={"md5": md5} if md5 else {},
        variables=None,
        url=None if entry.get("is_link_only") else entry["download_url"],
    )


def _citation(article: dict[str, Any]) -> Citation:
    license_ = article.get("license") or {}
    return Citation(
        title=article.get("title"),
        authors=tuple(author["full_name"] for author in article.get("authors", ())),
        citation=article.get("citation"),
        license=license_.get("name"),
        doi=article.get("doi") or None,
        url=article.get("url_public_html") or None,
    )
