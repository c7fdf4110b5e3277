"""The DANDI server of the tests sends what the real one sends: the real client and dandischema are the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
import requests
from dandi.consts import DandiInstance
from dandi.dandiapi import DandiAPIClient, RemoteZarrAsset
from dandi.utils import ServerInfo
from dandischema.models import Asset, Dandiset

from neuralpile_dagster_tests.fixtures.archives import PATH, SOURCE, serve_session
from neuralpile_dagster_tests.servers.dandi_documents import organization
from neuralpile_dagster_tests.servers.dandi_server import DandiServer
from neuralpile_dagster_tests.servers.dandi_store import raw_documents, raw_ids
from neuralpile_dagster_tests.servers.http import Request

DRAFT = "/dandisets/000001/versions/draft/"


def client_of(server: DandiServer) -> DandiAPIClient:
    return DandiAPIClient(dandi_instance=DandiInstance("dandi", None, server.api_url))


def get(server: DandiServer, path: str, **options: Any) -> requests.Response:
    return requests.get(f"{server.api_url}{path}", timeout=30, allow_redirects=False, **options)


def test_real_documents_leave_unchanged(server: DandiServer, shared_data: Path):
    for dandiset_id in raw_ids(shared_data):
        entries, metadata = raw_documents(shared_data, dandiset_id)
        server.store.add_raw(dandiset_id, entries, metadata)
        path, found = f"/dandisets/{dandiset_id}/versions/draft/", []
        url = f"{server.api_url}{path}assets/?metadata=true&order=path&page_size=1000"
        while url:
            page = requests.get(url, timeout=30).json()
            found += page["results"]
            url = page["next"]
        assert found == sorted(entries, key=lambda entry: entry["path"])
        assert get(server, path).json() == metadata


def test_pages_are_linked_as_the_real_server_links_them(server: DandiServer):
    server.store.add_paths("000001", "draft", *(f"sub-1/{number:04}.nwb" for number in range(2500)))
    first = get(server, f"{DRAFT}assets/?page_size=5000&order=path").json()
    assert (first["count"], len(first["results"]), first["previous"]) == (2500, 1000, None)
    assert first["next"] == f"{server.api_url}{DRAFT}assets/?order=path&page=2&page_size=5000"
    second = requests.get(first["next"], timeout=30).json()
    assert (second["count"], len(second["results"])) == (None, 1000)
    assert second["previous"] == f"{server.api_url}{DRAFT}assets/?order=path&page_size=5000"
    last = requests.get(second["next"], timeout=30).json()
    assert (len(last["results"]), last["next"]) == (500, None)
    assert "metadata" not in last["results"][0]
    assert len(get(server, f"{DRAFT}assets/").json()["results"]) == 100


def test_the_real_client_reads_all_that_is_made_here_into_its_own_classes(
    server: DandiServer, session: Path, tmp_path: Path
):
    serve_session(server, session)
    ServerInfo.model_validate(get(server, "/info/").json())
    published = client_of(server).get_dandiset(SOURCE.id, SOURCE.version, lazy=False)
    assert published.most_recent_published_version is not None
    assert published.version.identifier == SOURCE.version
    metadata = published.get_metadata()
    assert isinstance(metadata, Dandiset)
    assert metadata.datePublished and metadata.doi == f"10.48324/dandi.{SOURCE.id}/{SOURCE.version}"
    assert metadata.assetsSummary.numberOfFiles == 1
    (asset,) = published.get_assets()
    details = asset.get_metadata()
    assert isinstance(details, Asset)
    assert [variable.value for variable in details.variableMeasured or ()] == ["Units"]
    assert details.datePublished
    asset.download(tmp_path / "copy.nwb")
    assert (tmp_path / "copy.nwb").read_bytes() == session.read_bytes()
    assert published.get_version(SOURCE.version).asset_validation_errors == []
    assert client_of(server).get_asset(asset.identifier).path == PATH


def test_a_zarr_folder_has_its_own_checksum_and_no_download(server: DandiServer):
    server.store.add_paths("000001", "draft", "sub-1/a.nwb.zarr", zarr=True)
    (asset,) = client_of(server).get_dandiset("000001", "draft").get_assets()
    assert isinstance(asset, RemoteZarrAsset)
    assert asset.get_metadata().encodingFormat == "application/x-zarr"
    answer = get(server, f"/assets/{asset.identifier}/download/")
    assert (answer.status_code, answer.json()) == (
        400,
        "Unable to provide download link for zarr assets. Please browse the zarr files directly to do so.",
    )


@pytest.mark.parametrize(
    ("key", "status", "detail"),
    [
        (None, 401, "Authentication credentials were not provided."),
        ("nobody's", 401, "Invalid token."),
        ("stranger's", 403, "You do not have permission to perform this action."),
        ("owner's", 200, None),
    ],
)
def test_an_embargoed_dandiset_is_refused_as_the_real_server_refuses_it(
    server: DandiServer, key: str | None, status: int, detail: str | None
):
    server.store.add_paths("000001", "draft", "sub-1/a.nwb")
    server.store.dandisets["000001"].api_key = "owner's"
    server.store.strangers.add("stranger's")
    (asset_id,) = server.store.assets
    headers = {"Authorization": f"token {key}"} if key else {}
    for path in ("/dandisets/000001/", DRAFT, f"{DRAFT}info/", f"{DRAFT}assets/", f"/assets/{asset_id}/"):
        answer = get(server, path, headers=headers)
        assert (answer.status_code, answer.json().get("detail") if detail else None) == (status, detail)
    if key == "owner's":
        document = get(server, f"/assets/{asset_id}/", headers=headers).json()
        assert document["access"][0]["status"] == "dandi:EmbargoedAccess"
        assert get(server, f"/assets/{asset_id}/download/", headers=headers).status_code == 302


def test_what_is_not_there_is_not_found(server: DandiServer):
    server.store.add_version("000001")
    missing = "0.240101.0000"
    for path in ("/dandisets/000002/", f"/dandisets/000001/versions/{missing}/info/"):
        answer = get(server, path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})
    assert get(server, f"{DRAFT}assets/?page=0").json() == {"detail": "Invalid page."}
    html = get(server, "/dandisets/000001/versions/0.1.0/")  # not the form of a version: no such URL
    assert (html.status_code, html.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "stated",
    [
        {"license": "CC-BY-4.0"},
        {"license": []},
        {"contributor": [organization("A funder", "Funder")]},
        {"contributor": [{"schemaKey": "Person", "name": "Ada Tester"}]},
        {"name": "x" * 200},
    ],
)
def test_a_made_up_version_that_the_schema_rejects_does_not_leave(server: DandiServer, stated: dict[str, Any]):
    server.store.add_version("000001", **stated)
    with pytest.raises(pydantic.ValidationError):
        server.http.application(request(f"/api{DRAFT}"))


def test_a_made_up_file_that_the_schema_rejects_does_not_leave(server: DandiServer):
    server.store.add_paths("000001", "draft", "sub-1/a.nwb")
    (asset,) = server.store.dandisets["000001"].versions["draft"].assets.values()
    for change in ({"digest": {"dandi:sha2-256": "0" * 64}}, {"variables": ("",)}, {"asset_id": "1"}):
        before = {name: getattr(asset, name) for name in change}
        vars(asset).update(change)
        with pytest.raises(pydantic.ValidationError):
            server.http.application(request(f"/api{DRAFT}assets/", {"metadata": "true"}))
        vars(asset).update(before)


def test_an_empty_version_cannot_be_published(server: DandiServer):
    server.store.add_version("000001", "0.240101.0000")
    with pytest.raises(pydantic.ValidationError, match="no files"):
        server.http.application(request("/api/dandisets/000001/versions/0.240101.0000/"))


def request(path: str, query: dict[str, str] | None = None) -> Request:
    return Request("GET", path, path, query or {}, {"host": "127.0.0.1:9"}, b"")
