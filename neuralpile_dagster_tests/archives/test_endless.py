"""Listings that do not end, or have impossible sizes, are an error in words, after a limited number of requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.archives import figshare
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.figshare import FigshareArchive
from neuralpile_dagster.archives.model import Archive
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable
from neuralpile_dagster.net import http
from neuralpile_dagster_tests.fixtures.archives import QUICK, SOURCE, archive_of
from neuralpile_dagster_tests.servers.dandi_server import DandiServer
from neuralpile_dagster_tests.servers.figshare_server import FigshareServer, figshare_server
from neuralpile_dagster_tests.servers.http import Request, edit_json

ARTICLE = Source(archive="figshare", id="7739750", version="1")


@pytest.fixture
def dandiset(server: DandiServer, tmp_path: Path) -> DandiServer:
    file = tmp_path / "a.nwb"
    file.write_bytes(b"x")
    server.store.add_file(SOURCE.id, SOURCE.version, "sub-1/a.nwb", file)
    return server


def assert_ends(archive: Archive, source: Source, found: str) -> None:
    with pytest.raises(ArchiveError, match=found) as caught:
        archive.list_files(source)
    assert not isinstance(caught.value, ArchiveUnavailable)
    assert "what to do:" in str(caught.value)


def test_a_next_page_of_dandi_that_is_the_same_page_again_is_a_loop(dandiset: DandiServer, tmp_path: Path) -> None:
    edit_json(dandiset.http, "/assets/", lambda request, page: page | {"next": f"{dandiset.http.url}{request.target}"})
    assert_ends(archive_of(dandiset, tmp_path), SOURCE, "page 2 repeats earlier ones")
    assert len(dandiset.http.requests("GET", "/assets/")) == 2


def test_a_listing_of_dandi_with_ever_new_pages_is_bounded(
    dandiset: DandiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_PAGES", 5)

    def more(request: Request, page: Any) -> Any:
        number = int(request.query.get("after", 0)) + 1
        entry = page["results"][0] | {"path": f"sub-1/{number}.nwb"}
        return page | {"results": [entry], "next": f"{dandiset.http.url}{request.path}?after={number}"}

    edit_json(dandiset.http, "/assets/", more)
    assert_ends(archive_of(dandiset, tmp_path), SOURCE, "more than 5 pages")
    assert len(dandiset.http.requests("GET", "/assets/")) == 5


@pytest.fixture
def article(tmp_path: Path) -> Iterator[FigshareServer]:
    file = tmp_path / "a.mat"
    file.write_bytes(b"x")
    with figshare_server() as server:
        server.store.add_article(7739750, {"a.mat": file, "b.mat": file})
        yield server


def figshare_archive(server: FigshareServer, folder: Path) -> FigshareArchive:
    return FigshareArchive(server.api_url, DownloadCache(folder / "cache"), 2, replace(QUICK, attempts=1))


def test_a_figshare_that_ignores_the_page_number_is_a_loop(
    article: FigshareServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figshare, "PAGE_SIZE", 2)
    first: list[Any] = []

    def same(_request: Request, page: Any) -> Any:
        first.append(page)
        return first[0]

    edit_json(article.http, "/files", same)
    assert_ends(figshare_archive(article, tmp_path), ARTICLE, "page 2 repeats earlier ones")
    assert len(first) == 2


@pytest.mark.parametrize("size", [-5, 1e30, 2**63])
def test_an_impossible_size_in_a_listing_is_refused_where_it_is_listed(
    article: FigshareServer, dandiset: DandiServer, tmp_path: Path, size: float
) -> None:
    edit_json(article.http, "/files", lambda request, page: [entry | {"size": size} for entry in page])
    assert_ends(figshare_archive(article, tmp_path), ARTICLE, "size")

    def resize(_request: Request, page: Any) -> Any:
        entries = page["results"]
        for entry in entries:
            entry["size"] = entry["metadata"]["contentSize"] = size
        return page

    edit_json(dandiset.http, "/assets/", resize)
    listing = archive_of(dandiset, tmp_path).list_files(SOURCE)
    assert listing.files == ()
    assert any("size" in note for note in listing.notes)


def test_a_page_without_entries_is_no_loop() -> None:
    pages: dict[int, tuple[list[Any], int | None]] = {1: ([{"id": 1}], 2), 2: ([], 3), 3: ([{"id": 2}], None)}
    assert list(http.read_pages(1, pages.__getitem__)) == [{"id": 1}, {"id": 2}]


def test_a_draft_that_lists_a_path_twice_is_listed_again(server: DandiServer, tmp_path: Path) -> None:
    source = Source(id="000001", version="draft")
    server.store.add_paths(source.id, "draft", "sub-1/a.nwb")
    times = iter((2, 1))
    edit_json(server.http, "/assets/", lambda request, page: page | {"results": page["results"] * next(times)})
    assert [file.path for file in archive_of(server, tmp_path).list_files(source).files] == ["sub-1/a.nwb"]
    assert len(server.http.requests("GET", "/assets/")) == 2
