"""Who may read what from the DANDI archive, and what is refused with a clear error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.archives.model import Access
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable
from neuralpile_dagster.net.http import USER_AGENT
from neuralpile_dagster_tests.fixtures.archives import (
    PATH,
    SOURCE,
    archive_of,
    local_counts,
    only_file,
    read_counts,
    serve_session,
)
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.http import Request, Response

KEY = "secret-of-an-owner"
STRANGER = "secret-of-somebody-else"


@pytest.mark.parametrize("access", ["ranges", "download"])
def test_an_embargoed_dandiset_is_read_with_the_key_though_its_signed_urls_expire(
    server: DandiServer, session: Path, tmp_path: Path, access: Access
):
    serve_session(server, session)
    server.store.dandisets[SOURCE.id].api_key = KEY
    api, blobs = server.http.application, 0

    def expire(request: Request) -> Response:
        nonlocal blobs
        blobs += request.path.startswith("/signed/")
        if blobs == 3:
            server.store.signature += 1
        return api(request)

    server.http.application = expire
    archive = archive_of(server, tmp_path, KEY)
    found, cost = read_counts(archive, access)
    np.testing.assert_array_equal(found, local_counts(session))
    assert blobs > 3
    assert cost.retries >= 1
    assert not [target for _, target, _, _ in server.http.log if KEY in target]


@pytest.mark.parametrize("key", [None, "a wrong one", STRANGER])
def test_an_embargoed_dandiset_without_the_right_key_names_the_variable_and_not_the_key(
    server: DandiServer, session: Path, tmp_path: Path, key: str | None
):
    serve_session(server, session)
    file = only_file(archive_of(server, tmp_path))
    server.store.dandisets[SOURCE.id].api_key = KEY
    server.store.strangers.add(STRANGER)
    archive = archive_of(server, tmp_path, key)
    for look in (lambda: archive.list_files(SOURCE), lambda: read_counts(archive, "ranges", file)):
        with pytest.raises(ArchiveError, match="DANDI_API_KEY") as caught:
            look()
        assert not isinstance(caught.value, ArchiveUnavailable)
        assert key is None or key not in str(caught.value)
        assert f"HTTP status {403 if key == STRANGER else 401}" in str(caught.value)


def test_requests_name_the_project_and_carry_the_key_only_to_the_api(
    server: DandiServer, session: Path, tmp_path: Path
):
    serve_session(server, session)
    server.store.strangers.add(KEY)
    seen: list[tuple[str, dict[str, str]]] = []
    api = server.http.application

    def look(request: Request) -> Response:
        seen.append((request.path, request.headers))
        return api(request)

    server.http.application = look
    read_counts(archive_of(server, tmp_path, KEY), "ranges")
    assert USER_AGENT.startswith("neuralpile-dagster/")
    for path, headers in seen:
        assert headers["user-agent"].startswith(USER_AGENT)
        assert headers.get("authorization") == (f"token {KEY}" if path.startswith("/api/") else None)
    assert {path.split("/")[1] for path, _ in seen} == {"api", "blobs"}


def test_a_relative_location_of_a_download_is_one_on_the_same_host(server: DandiServer, session: Path, tmp_path: Path):
    serve_session(server, session)
    archive = archive_of(server, tmp_path)
    file = only_file(archive).model_copy(update={"url": None})
    api = server.http.application

    def relative(request: Request) -> Response:
        response = api(request)
        location = response.headers.get("Location", "").removeprefix(server.http.url)
        return replace(response, headers=response.headers | ({"Location": location} if location else {}))

    server.http.application = relative
    found, _ = read_counts(archive, "ranges", file)
    np.testing.assert_array_equal(found, local_counts(session))
    assert server.http.requests("GET", "/signed/")


def test_an_unknown_dandiset_is_a_clear_error(server: DandiServer, tmp_path: Path):
    with pytest.raises(ArchiveError, match="dandi 123456 is not on") as caught:
        archive_of(server, tmp_path).list_files(Source(id="123456"))
    assert not isinstance(caught.value, ArchiveUnavailable)


def test_a_file_that_is_gone_upstream_is_a_clear_error(server: DandiServer, session: Path, tmp_path: Path):
    serve_session(server, session)
    archive = archive_of(server, tmp_path)
    file = only_file(archive)
    server.store.assets.clear()
    server.store.blobs.clear()
    accesses: tuple[Access, ...] = ("ranges", "download")
    for access in accesses:
        with pytest.raises(ArchiveError, match=r"manifest.* again") as caught:
            read_counts(archive, access, file)
        assert not isinstance(caught.value, ArchiveUnavailable)


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path):
    with dandi_server() as server:
        archive = archive_of(server, tmp_path)
    with pytest.raises(ArchiveUnavailable, match="try again"):
        archive.list_files(SOURCE)


def test_a_zarr_folder_is_listed_and_not_opened(server: DandiServer, tmp_path: Path):
    source = Source(id=SOURCE.id, version="draft")  # dandisets with Zarr folders cannot be published
    server.store.add_paths(source.id, source.version, "sub-1/a.nwb.zarr", zarr=True)
    archive = archive_of(server, tmp_path)
    file = only_file(archive, source)
    assert list(file.digests) == ["zarr-checksum"]
    unchecked = file.model_copy(update={"digests": {}})  # before the archive has computed its checksum
    for listed in (file, unchecked, file.model_copy(update={"path": "sub-1/a"})):
        with pytest.raises(ArchiveError, match="Zarr"), archive.open(source, listed):
            pass


def test_the_path_of_a_file_names_it_in_errors(server: DandiServer, session: Path, tmp_path: Path):
    serve_session(server, session)
    archive = archive_of(server, tmp_path)
    file = only_file(archive).model_copy(update={"size": 77})
    with pytest.raises(ArchiveError, match=PATH):
        read_counts(archive, "ranges", file)
