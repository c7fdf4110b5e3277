"""DANDI as an archive, with the real `dandi` client: listings in a few requests, files by ranges or whole.

`dandi` 0.81 sets no timeouts, does not retry 408, 520 or broken bodies, and waits a fixed 53 s in all. Its `requests`
session takes adapters: here is ours, and the client's errors in our words. What DANDI's documents mean belongs in
`dandi_metadata`, the policy of retries in `net.retry`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from neuralpile_dagster.archives.dandi_metadata import (
    COUNT,
    DANDISET,
    OBJECT,
    PAGE,
    TIME,
    VERSION,
    FieldReader,
    archive_file,
    citation_of,
)
from neuralpile_dagster.archives.downloads import DownloadCache, local_copy
from neuralpile_dagster.archives.model import Access, ArchiveFile, Listing, SourceState, pinned_besides
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable
from neuralpile_dagster.hdf5.opened import LocalFile, OpenFile
from neuralpile_dagster.net.http import USER_AGENT, Connections, parse_json, read_body, read_pages
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster.net.retry import (
    RetryPolicy,
    host,
    network_errors,
    remedy_for,
    retry_request,
    status_failed,
    worth_retrying,
)
from neuralpile_dagster.settings import DEFAULT_CONNECTIONS, ProcessSettings

if TYPE_CHECKING:
    from dandi.dandiapi import DandiAPIClient

    from neuralpile_dagster.catalog.model import Source

DEFAULT_API_URL = "https://api.dandiarchive.org/api"
_PAGE_SIZE = 1000  # the most that the API gives at once
_DRAFT = "draft"
_LATEST = "most_recent_published_version"
_LISTING_TRIES = 3


@dataclass(frozen=True)
class _Chosen:
    """The version that is read; why it is not the pinned one, or which newer one there is."""

    dandiset: str
    version: str
    modified: str | None = None
    files: int | None = None
    note: str | None = None
    newer: str | None = None

    @property
    def path(self) -> str:
        return f"/dandisets/{self.dandiset}/versions/{self.version}/"

    @property
    def is_draft(self) -> bool:
        return self.version == _DRAFT

    @property
    def state(self) -> SourceState:
        changes = f" of {self.modified}, {self.files} files" if self.is_draft else ""  # None where invalid
        return SourceState(f"version {self.version}{changes}", self.newer)


class DandiArchive:
    """An `Archive` on a DANDI server.

    Parameters
    ----------
    api_url : str
        Ends in ``/api``.
    api_key : str or None
        For embargoed dandisets.
    cache : DownloadCache
        Where whole files go.
    connections : int
        Requests on their way at a time, for all files that are open together.
    limits : RetryPolicy
    """

    def __init__(
        self,
        api_url: str,
        api_key: str | None,
        cache: DownloadCache,
        connections: int = DEFAULT_CONNECTIONS,
        limits: RetryPolicy | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.connections = connections
        self.limits = limits or RetryPolicy()
        self._api_key = api_key
        self._cache = cache
        self._connections = Connections(connections, self.limits)
        self._asking = threading.Lock()  # `requests` promises nothing to threads

    @classmethod
    def from_environment(cls, home: Path, limits: RetryPolicy | None = None) -> DandiArchive:
        """Read DANDI_API_URL, DANDI_API_KEY and the `ProcessSettings`.

        Raises `ConfigurationError` naming the variable that is wrong.
        """
        process = ProcessSettings.from_environment()
        return cls(
            api_url=os.environ.get("DANDI_API_URL") or DEFAULT_API_URL,
            api_key=os.environ.get("DANDI_API_KEY") or None,
            cache=DownloadCache(home / "cache", process.cache_bytes),
            connections=process.connections,
            limits=limits,
        )

    @cached_property
    def _client(self) -> DandiAPIClient:
        os.environ.setdefault("DANDI_NO_ET", "1")  # no usage statistics; read when the client is made
        from dandi.consts import DandiInstance
        from dandi.dandiapi import DandiAPIClient

        # it logs a trace of every refused call; ours are said once, in our own words
        logging.getLogger("dandi").setLevel(logging.CRITICAL)
        # given an instance rather than a URL, the client asks the server nothing before its session is ours
        client = DandiAPIClient(dandi_instance=DandiInstance("dandi", None, self.api_url))
        for scheme in ("https://", "http://"):
            client.session.mount(scheme, _RetryAdapter(self.limits))
        client.session.headers.update({"User-Agent": f"{USER_AGENT} {client.session.headers['User-Agent']!s}"})
        if self._api_key:
            client.session.headers.update({"Authorization": f"token {self._api_key}"})
        return client

    def list_files(self, source: Source) -> Listing:
        """List the version's files with their metadata; see `Archive.list_files`.

        A draft may change between two pages; it is then listed again.
        """
        with self._explaining(source.label):
            for _ in range(_LISTING_TRIES):
                about, fields = FieldReader(), FieldReader()
                chosen = self._choose_version(source, about)
                listed_at = datetime.now(UTC)
                metadata = OBJECT.validate_python(self._client.get(chosen.path))
                citation = citation_of(metadata, about, f"version {chosen.version}")
                files = self._files(chosen, fields)
                if not chosen.is_draft or self._is_unchanged(chosen, source, files):
                    return Listing(
                        archive="dandi",
                        source_id=source.id,
                        version=chosen.version,
                        version_note=chosen.note,
                        newer_version=chosen.state.newer_version,
                        state=chosen.state.token,
                        frozen=not chosen.is_draft,
                        listed_at=listed_at,
                        files=files,
                        citation=citation,
                        notes=(*about.notes, *fields.notes),
                    )
        raise ArchiveUnavailable(
            f"the draft of {source.label} changed during each attempt to list it",
            found=f"changes during {_LISTING_TRIES} listings",
            remedy="try again when its authors have finished, or pin a published version in catalog.yaml",
        )

    def _choose_version(self, source: Source, fields: FieldReader) -> _Chosen:
        # `dandi`'s own classes reject the document for any field of it that is not used here
        dandiset = self._dandiset(source.id)
        if source.version == _DRAFT:
            return _draft(source, dandiset, fields)
        published = fields.read(VERSION, dandiset, _LATEST, source.label)
        latest = published and published["version"]
        if latest is not None and source.version in ("latest", latest):
            return _Chosen(source.id, latest)
        missing = ""
        if source.version != "latest":
            if self._exists(source):
                return _Chosen(source.id, source.version, newer=latest and pinned_besides(latest, source.version))
            missing = f"version {source.version} does not exist; "
        if latest is not None:
            return _Chosen(source.id, latest, note=f"{missing}the latest published version {latest} was read")
        VERSION.validate_python(dandiset[_LATEST])  # invalid is not the same as unpublished: the draft would be a guess
        return _draft(source, dandiset, fields, f"{missing}nothing is published; the draft was read")

    def _dandiset(self, dandiset_id: str) -> Mapping[str, Any]:
        return DANDISET.validate_python(self._client.get(f"/dandisets/{dandiset_id}/"))

    def _exists(self, source: Source) -> bool:
        from dandi.exceptions import HTTP404Error

        try:
            OBJECT.validate_python(self._client.get(f"/dandisets/{source.id}/versions/{source.version}/info/"))
        except HTTP404Error:
            return False
        return True

    def _files(self, chosen: _Chosen, fields: FieldReader) -> tuple[ArchiveFile, ...]:
        entries = list(self._entries(f"{chosen.path}assets/"))
        if entries and not any(isinstance(entry, dict) for entry in entries):
            raise TypeError("no entry of the listing is an object")
        files = (archive_file(entry, fields) for entry in entries)
        return tuple(sorted((file for file in files if file is not None), key=lambda file: file.path))

    def _entries(self, path: str) -> Iterator[Any]:
        # not `dandi`'s own pagination, which follows ``next`` as long as there is one
        query = {"metadata": "true", "order": "path", "page_size": str(_PAGE_SIZE)}

        def read(url: str) -> tuple[list[Any], str | None]:
            page = PAGE.validate_python(self._client.get(url, params=query if url == path else None))
            return page["results"], page["next"]

        return read_pages(path, read)

    def _is_unchanged(self, chosen: _Chosen, source: Source, files: tuple[ArchiveFile, ...]) -> bool:
        now = _draft(source, self._dandiset(source.id), FieldReader())
        return now.modified == chosen.modified and len({file.path for file in files}) == len(files)

    def state(self, source: Source) -> SourceState:
        """See `Watchable.state`; a second request where the pinned version is not the latest one."""
        with self._explaining(source.label):
            return self._choose_version(source, FieldReader()).state

    @contextmanager
    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> Iterator[OpenFile]:
        """Open one listed file; see `Archive.open`."""
        from dandi.consts import ZARR_EXTENSIONS

        from neuralpile_dagster.hdf5.ranged import open_ranged

        # a Zarr folder has no checksum until the archive has computed it
        if "zarr-checksum" in file.digests or PurePosixPath(file.path).suffix in ZARR_EXTENSIONS:
            raise ArchiveError(
                f"{file.path} of {source.label} is a Zarr folder",
                expected="an HDF5 file",
                remedy="exclude it in the dataset's session rule",
            )
        with ExitStack() as stack:

            def whole_file() -> LocalFile:
                return stack.enter_context(local_copy(self._cache, file, lambda: self._remote(file), self.connections))

            if access == "download":
                yield whole_file()
                return

            def copy() -> Path:
                # where no digest is listed it raises, rather than give what may be a page of a proxy
                whole = whole_file()
                opened.cost.add(whole.cost)
                return whole.path

            opened = stack.enter_context(open_ranged(self._remote(file), copy, connections=self.connections))
            yield opened

    def _remote(self, file: ArchiveFile) -> RemoteObject:
        return RemoteObject(
            file.path, file.size, file.url, lambda: self._signed_url(file), self._connections, key="DANDI_API_KEY"
        )

    def _signed_url(self, file: ArchiveFile) -> str:
        """Where the API says that the file's bytes are now (a URL that expires)."""
        with self._asking, self._explaining(file.path):
            path = f"/assets/{file.file_id}/download/"
            answer = self._client.get(path, json_resp=False, allow_redirects=False)
            return urljoin(self._client.get_url(path), answer.headers.get("Location", ""))  # it may be relative

    @contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        """Turn what the client raises inside the block into `ArchiveError` and `ArchiveUnavailable` about ``what``."""
        try:
            yield
        except requests.HTTPError as error:
            raise _refused(what, self.api_url, error, has_key=self._api_key is not None) from error
        except ArchiveUnavailable as error:  # of `_RetryAdapter`, which does not know what was asked for
            raise _unavailable(what, self.api_url, error.found) from error
        except (InvalidURL, InvalidSchema, MissingSchema) as error:  # whose texts repeat the URL
            raise _invalid(what, self.api_url, f"invalid URL ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise _unavailable(what, self.api_url, f"{type(error).__name__}: {error}") from error
        except RecursionError:
            raise _invalid(what, self.api_url, "JSON that is nested too deeply") from None
        # pydantic's ValidationError is a ValueError; the client asserts that a page is a list
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise _invalid(what, self.api_url, found) from error


def _draft(source: Source, dandiset: Mapping[str, Any], fields: FieldReader, note: str | None = None) -> _Chosen:
    draft = fields.read(OBJECT, dandiset, "draft_version", source.label) or {}
    modified = fields.read(TIME, draft, "modified", "the draft")
    return _Chosen(source.id, _DRAFT, modified, fields.read(COUNT, draft, "asset_count", "the draft"), note)


class _RetryAdapter(HTTPAdapter):
    """Send requests with retries until the whole response is read; the client above retries nothing more.

    Raises `ArchiveUnavailable`, which the client's own retries let through.
    """

    def __init__(self, limits: RetryPolicy) -> None:
        super().__init__(max_retries=0)
        self._limits = limits

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send a request; see `requests.adapters.HTTPAdapter.send`."""
        url, limits = request.url or "", self._limits
        waits = timeout or (limits.connect_timeout_s, limits.read_timeout_s)
        what = f"the API at {host(url)}"

        def attempt() -> requests.Response:
            with network_errors(what, url):
                response = HTTPAdapter.send(self, request, True, waits, verify, cert, proxies)
                if not stream:
                    _take_body(what, response, limits)
            if worth_retrying(response.status_code):
                response.close()
                raise status_failed(response.status_code, response.headers)
            if not stream and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
                parse_json(what, response.content)
            return response

        return retry_request(attempt, what, url, limits)


def _take_body(what: str, response: requests.Response, limits: RetryPolicy) -> None:
    """Read the body here, where one that breaks off, trickles or does not end is noticed."""
    try:
        response._content = read_body(what, response.raw, limits)
        response._content_consumed = True
    except BaseException:
        response.close()
        raise
    response.raw.release_conn()


def _invalid(what: str, api_url: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"{what}: the response of {api_url} was not understood",
        found=found,
        expected="a document of the DANDI API",
        remedy="check DANDI_API_URL; upgrade dandi if the server is newer",
    )


def _unavailable(what: str, api_url: str, found: str) -> ArchiveUnavailable:
    return ArchiveUnavailable(
        f"{what} could not be read from {api_url}",
        found=found,
        expected="a response",
        remedy=remedy_for(found, "try again later; check DANDI_API_URL and this machine's network if it lasts"),
    )


def _refused(what: str, api_url: str, error: requests.HTTPError, has_key: bool) -> ArchiveError:
    status = 404 if error.response is None else error.response.status_code
    if status in (401, 403):
        return ArchiveError(
            f"access to {what} was refused by {api_url}",
            found=f"HTTP status {status}, {'with' if has_key else 'without'} an API key",
            expected="a public dandiset, or an API key with access to it",
            remedy="set DANDI_API_KEY to a key of an owner of the dandiset",
        )
    return ArchiveError(
        f"{what} is not on {api_url}" if status == 404 else f"{what} cannot be read from {api_url}",
        found=f"HTTP status {status}",
        remedy="check the id and version in the catalog; if files are gone, materialize the manifest again",
    )
