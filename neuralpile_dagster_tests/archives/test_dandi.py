"""The DANDI archive: the real client against a server with real listings and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.archives.dandi import DEFAULT_API_URL, DandiArchive
from neuralpile_dagster.archives.model import Access, listing_token, source_state
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveUnavailable, ConfigurationError
from neuralpile_dagster_tests.fixtures.archives import SOURCE, archive_of, local_counts, only_file, read_counts
from neuralpile_dagster_tests.servers.dandi_documents import organization, person
from neuralpile_dagster_tests.servers.dandi_server import DandiServer
from neuralpile_dagster_tests.servers.http import Request, Response

GONE = "version 0.990909.0000 does not exist"


@pytest.mark.parametrize(("files", "pages"), [(1, 1), (1000, 1), (1001, 2), (2001, 3)])
def test_metadata_cost_one_request_per_thousand_files(server: DandiServer, tmp_path: Path, files: int, pages: int):
    paths = [f"sub-{number:04}/sub-{number:04}.nwb" for number in range(files)]
    server.store.add_paths(SOURCE.id, SOURCE.version, *paths)
    listing = archive_of(server, tmp_path).list_files(SOURCE)
    assert [file.path for file in listing.files] == paths
    assert len(server.http.requests("GET", "/assets/")) == pages
    assert len(server.http.log) == pages + 2  # the dandiset, the version's metadata


@pytest.mark.parametrize(
    ("published", "pinned", "used", "note"),
    [
        (["0.240101.0000", "0.240202.0000"], "0.240101.0000", "0.240101.0000", None),
        (["0.240101.0000", "0.240202.0000"], "0.240202.0000", "0.240202.0000", None),
        (["0.240101.0000", "0.240202.0000"], "latest", "0.240202.0000", None),
        (["0.240101.0000"], "draft", "draft", None),
        (
            ["0.240101.0000"],
            "0.990909.0000",
            "0.240101.0000",
            f"{GONE}; the latest published version 0.240101.0000 was read",
        ),
        (
            [],
            "0.990909.0000",
            "draft",
            f"{GONE}; nothing is published; the draft was read",
        ),
        ([], "latest", "draft", "nothing is published; the draft was read"),
        ([], "draft", "draft", None),
    ],
)
def test_the_version_read_is_the_pinned_one_or_the_manifest_says_which(
    server: DandiServer, tmp_path: Path, published: list[str], pinned: str, used: str, note: str | None
):
    for version in (*published, "draft"):
        server.store.add_paths("000001", version, f"sub-1/{version}.nwb")
    listing = archive_of(server, tmp_path).list_files(Source(id="000001", version=pinned))
    assert (listing.version, listing.version_note, listing.frozen) == (used, note, used != "draft")
    assert [file.path for file in listing.files] == [f"sub-1/{used}.nwb"]


def test_who_made_it_and_how_it_may_be_used_come_from_the_versions_metadata(server: DandiServer, tmp_path: Path):
    server.store.add_version(
        SOURCE.id,
        SOURCE.version,
        name="A synthetic dandiset",
        license=["spdx:CC-BY-4.0"],
        contributor=[person("Tester, Ada", "Author", "ContactPerson"), organization("A funder", "Funder")],
    )
    server.store.add_paths(SOURCE.id, SOURCE.version, "sub-1/a.nwb")
    citation = archive_of(server, tmp_path).list_files(SOURCE).citation
    assert citation.title == "A synthetic dandiset"
    assert citation.authors == ("Tester, Ada",)
    assert citation.license == "CC-BY-4.0"
    assert citation.doi == "10.48324/dandi.990002/0.240101.0000"
    assert citation.url == "https://dandiarchive.org/dandiset/990002/0.240101.0000"
    assert citation.citation == (
        "Tester, Ada (2024) A synthetic dandiset (Version 0.240101.0000) [Data set]. DANDI Archive. "
        "https://doi.org/10.48324/dandi.990002/0.240101.0000"
    )


@pytest.mark.parametrize("path", ["sub-Ford Prefect/a b+c#d.nwb", "sub-1/ü%20.nwb"])
def test_paths_with_spaces_and_signs_are_kept_exactly_and_can_be_read(
    server: DandiServer, session: Path, tmp_path: Path, path: str
):
    server.store.add_file(SOURCE.id, SOURCE.version, path, session)
    archive = archive_of(server, tmp_path)
    file = only_file(archive)
    assert file.path == path
    accesses: tuple[Access, ...] = ("ranges", "download")
    for access in accesses:
        found, _ = read_counts(archive, access, file)
        np.testing.assert_array_equal(found, local_counts(session))


def test_a_draft_that_changes_while_it_is_listed_is_listed_again(server: DandiServer, tmp_path: Path):
    source = Source(id="000001", version="draft")
    server.store.add_paths("000001", "draft", "sub-1/a.nwb")
    draft, api = server.store.dandisets["000001"].versions["draft"], server.http.application

    def change(request: Request) -> Response:
        response = api(request)
        if "/assets/" in request.path and (always or len(draft.assets) == 1):
            draft.modified = f"2024-03-05T09:20:{len(draft.assets):02}Z"
            server.store.add_paths("000001", "draft", f"sub-1/b{len(draft.assets)}.nwb")
        return response

    always = False
    server.http.application = change
    archive = archive_of(server, tmp_path)
    assert [file.path for file in archive.list_files(source).files] == ["sub-1/a.nwb", "sub-1/b1.nwb"]
    always = True
    with pytest.raises(ArchiveUnavailable, match="changed during each attempt"):
        archive.list_files(source)


def test_the_environment_says_where_and_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("DANDI_API_URL", "DANDI_API_KEY", "NEURALPILE_CONNECTIONS", "NEURALPILE_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    archive = DandiArchive.from_environment(tmp_path)
    assert (archive.api_url, archive.connections) == (DEFAULT_API_URL, 8)
    monkeypatch.setenv("DANDI_API_URL", "http://127.0.0.1:9/api/")
    monkeypatch.setenv("NEURALPILE_CONNECTIONS", "3")
    archive = DandiArchive.from_environment(tmp_path)
    assert (archive.api_url, archive.connections) == ("http://127.0.0.1:9/api", 3)
    for name, wrong in (("NEURALPILE_CONNECTIONS", "0"), ("NEURALPILE_CACHE_BYTES", "50 GB")):
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            with pytest.raises(ConfigurationError, match=name):
                DandiArchive.from_environment(tmp_path)


@pytest.mark.parametrize("pinned", ["0.240101.0000", "latest", "draft", "0.990909.0000"])
def test_the_state_of_a_source_changes_when_a_new_listing_may_and_costs_few_requests(
    server: DandiServer, tmp_path: Path, pinned: str
):
    source, archive = Source(id="000001", version=pinned), archive_of(server, tmp_path)
    server.store.add_paths("000001", "0.240101.0000", "sub-1/a.nwb")

    def token() -> str:
        now = source_state(archive, source)
        assert now.token == listing_token(archive.list_files(source)), "so that a listing settles the matter"
        return now.token

    first = source_state(archive, source).token
    assert len(server.http.log) == (2 if pinned == "0.990909.0000" else 1)
    assert token() == first
    server.store.add_paths("000001", "draft", "sub-1/b.nwb")
    second = token()
    assert (second != first) == (pinned == "draft")
    server.store.dandisets["000001"].versions["draft"].modified = "2025-01-01T00:00:00Z"
    third = token()
    assert (third != second) == (pinned == "draft")
    server.store.add_paths("000001", "0.240202.0000", "sub-1/b.nwb")
    assert (token() != third) == (pinned in ("latest", "0.990909.0000"))


def test_a_newer_version_than_the_pinned_one_is_said_and_changes_nothing(server: DandiServer, tmp_path: Path):
    source, archive = Source(id="000001", version="0.240101.0000"), archive_of(server, tmp_path)
    server.store.add_paths("000001", "0.240101.0000", "sub-1/a.nwb")
    assert source_state(archive, source).newer_version is None
    server.store.add_paths("000001", "0.240202.0000", "sub-1/b.nwb")
    said = "version 0.240202.0000 is published, 0.240101.0000 is pinned"
    assert source_state(archive, source).newer_version == said
    listing = archive.list_files(source)
    assert (listing.version, listing.version_note, listing.newer_version) == ("0.240101.0000", None, said)
