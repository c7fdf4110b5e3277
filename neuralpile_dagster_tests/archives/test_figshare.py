"""The figshare archive against a server of its public API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.figshare import PAGE_SIZE, FigshareArchive
from neuralpile_dagster.archives.model import Access, listing_token, source_state
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DigestMismatch
from neuralpile_dagster.net.http import USER_AGENT
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster_tests.archives.test_faults import ALWAYS, PASSING
from neuralpile_dagster_tests.fixtures.archives import QUICK, limits_for
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.figshare_server import FigshareServer, figshare_server
from neuralpile_dagster_tests.servers.http import Request, Response, edit_json

ARTICLE = 7739750
SOURCE = Source(archive="figshare", id=str(ARTICLE))
STORE = r"^/(files|store)/"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FigshareServer]:
    files = {}
    for number, name in enumerate(
        ("spksWaksman_Feb18.mat", "spksKrebs_Feb18.mat", "README.txt", "spksRobbins_Feb18.mat")
    ):
        files[name] = tmp_path / name
        files[name].write_bytes(bytes([number]) * (1_000 if number else 2_500_000))
    with figshare_server() as server:
        server.store.add_article(ARTICLE, files)
        yield server


@pytest.fixture
def archive(server: FigshareServer, tmp_path: Path) -> FigshareArchive:
    return FigshareArchive(server.api_url, DownloadCache(tmp_path / "cache"), 2, QUICK)


def content(archive: FigshareArchive, access: Access = "ranges") -> bytes:
    file = archive.list_files(SOURCE).files[-1]
    with archive.open(SOURCE, file, access) as opened:
        return opened.local_path().read_bytes()


def test_an_article_lists_its_files_with_their_digests_and_who_made_them(archive: FigshareArchive):
    listing = archive.list_files(SOURCE)
    assert [file.path for file in listing.files] == sorted(file.path for file in listing.files)
    assert [file.size for file in listing.files] == [1_000, 1_000, 1_000, 2_500_000]
    assert all(set(file.digests) == {"md5"} for file in listing.files)
    assert (listing.archive, listing.source_id, listing.version, listing.frozen) == (
        "figshare",
        str(ARTICLE),
        "1",
        True,
    )
    assert listing.citation.authors == ("Ada Tester", "Bo Tester")
    assert listing.citation.license == "CC BY 4.0"
    assert listing.citation.doi == f"10.6084/m9.figshare.{ARTICLE}.v1"


def test_the_rule_chooses_the_three_mice(archive: FigshareArchive):
    (dataset,) = [dataset for dataset in RODENT if dataset.source.archive == "figshare"]
    sessions = choose_sessions(dataset, archive.list_files(dataset.source), None).sessions
    assert {session.subject_id for session in sessions} == {"Krebs", "Robbins", "Waksman"}


def test_files_beyond_the_first_page_are_listed(server: FigshareServer, archive: FigshareArchive, tmp_path: Path):
    (tmp_path / "x").write_bytes(b"x")
    server.store.add_article(5, {f"{number:05}.mat": tmp_path / "x" for number in range(PAGE_SIZE + 1)})
    assert len(archive.list_files(Source(archive="figshare", id="5")).files) == PAGE_SIZE + 1


@pytest.mark.parametrize(
    ("pinned", "used", "files", "note", "newer"),
    [
        ("1", "1", 4, None, "version 2 is published, 1 is pinned"),
        ("latest", "2", 1, None, None),
        ("9", "2", 1, "version 9 does not exist; the latest version 2 was read", None),
    ],
)
def test_the_version_read_is_the_pinned_one_or_the_manifest_says_which(
    server: FigshareServer,
    archive: FigshareArchive,
    tmp_path: Path,
    pinned: str,
    used: str,
    files: int,
    note: str | None,
    newer: str | None,
):
    source = SOURCE.model_copy(update={"version": pinned})
    before = source_state(archive, source).token
    server.store.add_article(ARTICLE, {"spksKrebs_Feb18.mat": tmp_path / "spksKrebs_Feb18.mat"})
    listing = archive.list_files(source)
    assert (listing.version, len(listing.files), listing.version_note) == (used, files, note)
    assert listing.newer_version == newer
    now = source_state(archive, source)
    assert now == (listing_token(listing), newer)
    assert (now.token != before) == (pinned != "1")


# "required" in https://docs.figshare.com/swagger.json, 2.0.0
ARTICLE_FIELDS = (
    "figshare_url resource_title resource_doi files authors custom_fields embargo_options citation confidential_reason "
    "embargo_type is_confidential size funding funding_list tags version is_active is_metadata_record metadata_reason "
    "status description is_embargoed embargo_date is_public modified_date created_date has_linked_file categories "
    "license embargo_title embargo_reason references id title doi handle group_id url url_public_html url_public_api "
    "url_private_html url_private_api published_date timeline thumb defined_type defined_type_name download_disabled"
)
FILE_FIELDS = "id name size is_link_only download_url supplied_md5 computed_md5"
AUTHOR_FIELDS = "id full_name first_name last_name is_active url_name orcid_id"


def test_the_server_sends_the_fields_that_figshare_describes(server: FigshareServer):
    article = httpx2.get(f"{server.api_url}/articles/{ARTICLE}").json()
    assert article.keys() == set(ARTICLE_FIELDS.split())
    assert article["authors"][0].keys() == set(AUTHOR_FIELDS.split())
    assert article["license"].keys() == {"value", "name", "url"}
    for path in (f"articles/{ARTICLE}/files", f"articles/{ARTICLE}/versions/1/files"):
        files = httpx2.get(f"{server.api_url}/{path}").json()
        assert all(file.keys() - {"mimetype"} == set(FILE_FIELDS.split()) for file in (*files, *article["files"]))


@pytest.mark.parametrize("access", ["ranges", "download"])
def test_a_file_is_downloaded_verified_once_and_kept(server: FigshareServer, archive: FigshareArchive, access: Access):
    assert content(archive, access) == b"\x00" * 2_500_000
    assert len(server.http.requests("GET", "/store/")) == 3  # pieces of 1 MiB
    assert content(archive, access) == b"\x00" * 2_500_000
    assert len(server.http.requests("GET", "/store/")) == 3


def test_signed_urls_that_expire_at_once_are_followed_anew(server: FigshareServer, archive: FigshareArchive):
    api = server.http.application

    def expire(request: Request) -> Response:
        assert request.headers["user-agent"].startswith(USER_AGENT)
        response = api(request)
        server.store.signature += request.path.startswith("/store/")
        return response

    server.http.application = expire
    assert content(archive) == b"\x00" * 2_500_000


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_ends_in_the_right_bytes_or_a_clear_error_and_a_re_run_works(
    server: FigshareServer, tmp_path: Path, name: str
):
    fields, kind = PASSING[name]
    archive = FigshareArchive(server.api_url, DownloadCache(tmp_path / "cache"), 2, limits_for(name))
    for path in ("/v2/articles/7739750$", "/files[?]page", STORE):
        server.faults.add(Fault(path=path, **fields))
    assert content(archive) == b"\x00" * 2_500_000
    assert len(server.faults.struck) == 3
    server.faults.add(Fault(path="/v2/", times=ALWAYS, **fields))
    with pytest.raises(kind, match=f"figshare {ARTICLE}.*what to do"):
        content(archive)
    server.faults.clear()
    assert content(archive) == b"\x00" * 2_500_000


def test_flipped_bytes_are_never_accepted(server: FigshareServer, archive: FigshareArchive):
    server.faults.add(Fault("flip", path=STORE, times=ALWAYS))
    for _ in range(2):
        with pytest.raises(DigestMismatch, match="md5"):
            content(archive)
    server.faults.clear()
    assert content(archive) == b"\x00" * 2_500_000


def test_an_article_that_is_not_there_is_a_clear_error(archive: FigshareArchive):
    with pytest.raises(ArchiveError, match="figshare 42 cannot be read") as caught:
        archive.list_files(Source(archive="figshare", id="42"))
    assert not isinstance(caught.value, ArchiveUnavailable)


def test_a_file_that_may_not_be_read_is_a_clear_error(server: FigshareServer, archive: FigshareArchive):
    server.faults.add(status(403, path=STORE, times=ALWAYS))
    with pytest.raises(ArchiveError, match=r"spksWaksman_Feb18\.mat .*403"):
        content(archive)


def test_an_answer_of_another_form_is_not_understood(server: FigshareServer, archive: FigshareArchive):
    server.store.articles[ARTICLE][0].fields["authors"] = [{"name": "no full_name"}]
    with pytest.raises(ArchiveError, match="not understood"):
        archive.list_files(SOURCE)


def test_a_version_without_its_number_is_not_understood(
    server: FigshareServer, archive: FigshareArchive, tmp_path: Path
):
    server.store.add_article(ARTICLE, {"spksKrebs_Feb18.mat": tmp_path / "spksKrebs_Feb18.mat"})
    edit_json(server.http, "/versions/1", lambda request, article: {"id": ARTICLE})
    with pytest.raises(ArchiveError, match="not understood"):
        archive.state(SOURCE.model_copy(update={"version": "1"}))


def test_a_file_that_is_only_a_link_is_listed_and_says_how_to_get_it(server: FigshareServer, archive: FigshareArchive):
    edit_json(server.http, "/files", lambda request, page: [entry | {"is_link_only": True} for entry in page])
    file = archive.list_files(SOURCE).files[-1]
    with pytest.raises(ArchiveError, match=r"is a link to another site, not a file; .*download it yourself"):
        archive.open(SOURCE, file).__enter__()
    assert server.http.requests("GET", "/store/") == []


@pytest.mark.parametrize(
    ("stated", "digests"), [({"computed_md5": ""}, {"md5": "0" * 32}), ({"computed_md5": "", "supplied_md5": ""}, {})]
)
def test_until_figshare_has_computed_a_digest_the_supplied_one_counts(
    server: FigshareServer, archive: FigshareArchive, stated: dict[str, str], digests: dict[str, str]
):
    entry = {"supplied_md5": "0" * 32, **stated}
    edit_json(server.http, "/files", lambda request, page: [each | entry for each in page])
    assert [file.digests for file in archive.list_files(SOURCE).files] == [digests] * 4
