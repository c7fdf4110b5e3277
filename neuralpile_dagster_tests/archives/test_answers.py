"""Odd answers of an archive: too slow, too long, of another form; they cost neither the listing nor the memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.archives import figshare
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.figshare import FigshareArchive
from neuralpile_dagster.archives.model import Access
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable
from neuralpile_dagster.net import http
from neuralpile_dagster_tests.fixtures.archives import (
    BLOBS,
    IMPATIENT,
    PATH,
    SOURCE,
    archive_of,
    local_counts,
    read_counts,
    serve_session,
    write_session,
)
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.figshare_server import FigshareServer, figshare_server
from neuralpile_dagster_tests.servers.http import json_response

ARTICLE = Source(archive="figshare", id="5")
NESTED = b"[" * 200_000 + b"]" * 200_000
JSON = (("Content-Type", "application/json"),)


@pytest.fixture
def dandi() -> Iterator[DandiServer]:
    with dandi_server() as server:
        server.store.add_paths(SOURCE.id, SOURCE.version, "sub-1/a.nwb", "sub-1/b.nwb")
        yield server


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[FigshareServer]:
    (tmp_path / "x").write_bytes(b"x")
    with figshare_server() as server:
        server.store.add_article(5, {"x.mat": tmp_path / "x"})
        yield server


def figshare_of(server: FigshareServer, folder: Path) -> FigshareArchive:
    return FigshareArchive(server.api_url, DownloadCache(folder / "cache"), 2, IMPATIENT)


@pytest.fixture(params=["dandi", "figshare"])
def listed(request: pytest.FixtureRequest, dandi: DandiServer, shares: FigshareServer, tmp_path: Path) -> Any:
    """Either server, and how its files are listed."""
    if request.param == "dandi":
        return dandi, lambda: archive_of(dandi, tmp_path, limits=IMPATIENT).list_files(SOURCE)
    return shares, lambda: figshare_of(shares, tmp_path).list_files(ARTICLE)


def test_an_answer_that_trickles_is_broken_off_and_asked_for_again(
    listed: tuple[DandiServer, Callable[[], Any]], caplog: pytest.LogCaptureFixture, telling: None
):
    server, list_files = listed
    server.faults.add(Fault("trickle"))
    assert list_files().files
    assert len(server.faults.struck) == 1
    assert "slower than 10,000 bytes/s" in caplog.text


@pytest.mark.parametrize("access", ["ranges", "download"])
def test_a_file_that_trickles_is_broken_off_and_goes_on_where_it_was(
    tmp_path: Path, access: Access, caplog: pytest.LogCaptureFixture, telling: None
):
    session = write_session(tmp_path / "session.nwb")
    with dandi_server() as server:
        serve_session(server, session)
        server.faults.add(Fault("trickle", path=BLOBS))
        found, cost = read_counts(archive_of(server, tmp_path, limits=IMPATIENT), access)
    np.testing.assert_array_equal(found, local_counts(session))
    assert cost.retries >= 1
    assert f"{PATH}: slower than 10,000 bytes/s" in caplog.text


def test_a_server_that_was_silent_for_long_is_told_of_though_it_is_asked_again_at_once(
    dandi: DandiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("neuralpile_dagster.progress.WARN_EVERY_S", 0.0)
    monkeypatch.setattr("neuralpile_dagster.progress.WARN_FROM_S", IMPATIENT.read_timeout_s)
    dandi.faults.add(Fault("hang"))
    assert archive_of(dandi, tmp_path, limits=IMPATIENT).list_files(SOURCE).files
    assert "ReadTimeout" in caplog.text
    assert "after 1 s; trying again in 0 s" in caplog.text


def test_an_answer_that_is_too_long_is_refused_before_it_is_in_memory(
    listed: tuple[DandiServer, Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
):
    server, list_files = listed
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1_000_000)
    server.faults.add(Fault("status", status=200, headers=JSON, body=b"[" + b" " * 50_000_000 + b"]", times=99))
    with pytest.raises(ArchiveError, match="too long") as caught:
        list_files()
    assert not isinstance(caught.value, ArchiveUnavailable)
    assert len(server.faults.struck) == 1
    assert server.http.bytes_sent < 25_000_000  # what the sockets hold besides


@pytest.mark.parametrize(
    "body",
    [NESTED, b"[]", b"null", b"7", b'"x"', b'{"results": 7, "version": null}'],
    ids=["nested", "list", "null", "number", "text", "object"],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
@pytest.mark.parametrize("skip", range(4))
def test_an_answer_of_another_form_is_a_clear_error_wherever_it_comes(
    listed: tuple[DandiServer, Callable[[], Any]], body: bytes, content_type: str, skip: int
):
    server, list_files = listed
    headers = (("Content-Type", content_type),)
    server.faults.add(Fault("status", status=200, headers=headers, body=body, skip=skip, times=99))
    try:
        list_files()
    except ArchiveError as error:
        assert "understood" in str(error)
        assert not isinstance(error, ArchiveUnavailable)
        assert len(server.faults.struck) <= 2  # not the eight of a busy server


def test_pages_without_end_are_not_asked_for_without_end(
    shares: FigshareServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http, "MAX_PAGES", 5)
    monkeypatch.setattr(figshare, "PAGE_SIZE", 1)
    api, numbers = shares.http.application, itertools.count()
    shares.http.application = lambda request: (
        json_response([{"name": "x", "id": next(numbers)}]) if request.path.endswith("/files") else api(request)
    )
    with pytest.raises(ArchiveError, match="more than 5 pages"):
        figshare_of(shares, tmp_path).list_files(ARTICLE)
    assert len(shares.http.requests("GET", "/files?")) == 5


@pytest.mark.parametrize("code", [401, 403])
def test_figshare_has_no_key_of_ours_to_set(shares: FigshareServer, tmp_path: Path, code: int):
    archive = figshare_of(shares, tmp_path)
    (file,) = archive.list_files(ARTICLE).files
    shares.faults.add(status(code, times=99))
    for use in (lambda: archive.list_files(ARTICLE), lambda: archive.open(ARTICLE, file).__enter__()):
        with pytest.raises(ArchiveError, match=str(code)) as caught:
            use()
        assert "KEY" not in str(caught.value)
