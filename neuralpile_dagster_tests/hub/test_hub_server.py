"""The test hub cannot lie: what the real Hub could not have sent does not leave it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from neuralpile_dagster_tests.fixtures.huggingface import folder_of, hub_for, quiet
from neuralpile_dagster_tests.servers import hf_hub
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.hf_hub_card import card_errors
from neuralpile_dagster_tests.servers.hf_hub_checks import FORMS, Misfit, check_response, endpoint_of
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

Exchange = tuple[Request, Response]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> list[Exchange]:
    """Every kind of JSON response that the client gets while it publishes and reads."""
    seen: list[Exchange] = []
    folder = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_hub, "check_response", lambda url, *exchange: seen.append(exchange))
        patch.setenv("HF_XET_CACHE", str(folder / "xet"))
        for xet in (False, True):
            with HubServer(folder / f"server-{xet}", xet=xet, part_bytes=15_000, page=2) as server:
                hub_for(server, files_per_commit=3).publish("x", folder_of(folder / "x", shards=5), quiet)
                hub_for(server).files("x")
                with hub_for(server).open("x", "README.md") as file:
                    file.read()
    return [each for each in seen if each[1].headers.get("Content-Type") == "application/json"]


def one_of_each(exchanges: list[Exchange]) -> dict[str, Exchange]:
    """The longest exchange of every endpoint."""
    exchanges = sorted(exchanges, key=lambda exchange: exchange[1].length)
    return {endpoint_of(request): (request, response) for request, response in exchanges}


def fits(exchange: Exchange, document: object) -> bool:
    try:
        check_response("http://127.0.0.1:1", exchange[0], replace(exchange[1], body=json.dumps(document).encode()))
    except Misfit:
        return False
    return True


def test_everything_that_a_publication_is_sent_fits_and_every_form_is_used(exchanges: list[Exchange]):
    for exchange in exchanges:
        check_response("http://127.0.0.1:1", *exchange)
    assert one_of_each(exchanges).keys() == FORMS.keys() - {"GET /api/whoami-v2"}  # which only the doctor asks for


def test_an_invented_field_anywhere_does_not_fit(exchanges: list[Exchange]):
    tried = 0
    for exchange in one_of_each(exchanges).values():
        document = json.loads(_body(exchange))
        for path in _objects(document, ()):
            if path[-1:] == ("header",):  # parts of an upload are its fields
                continue
            copied = copy.deepcopy(document)
            _at(copied, path)["invented"] = "x"
            assert not fits(exchange, copied), path
            tried += 1
    assert tried > 25


def test_a_missing_field_does_not_fit_unless_the_hub_leaves_it_out_too(exchanges: list[Exchange]):
    optional = {"usedStorage", "lfs", "diff", "transfer", "actions", "upload", "verify", "header", "references"}
    left_out = set()
    for exchange in one_of_each(exchanges).values():
        document = json.loads(_body(exchange))
        for path in _objects(document, ()):
            for name in _at(document, path):
                copied = copy.deepcopy(document)
                del _at(copied, path)[name]
                if fits(exchange, copied):
                    left_out.add(name)
    assert left_out == optional


def _body(exchange: Exchange) -> bytes:
    body = exchange[1].body
    assert isinstance(body, bytes)
    return body


def _objects(document: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(document, dict):
        yield path
        for name, value in document.items():
            yield from _objects(value, (*path, name))
    elif isinstance(document, list) and document:
        yield from _objects(document[0], (*path, 0))


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@pytest.mark.parametrize(
    ("field", "value"),
    [("sha", "1234"), ("private", "no"), ("likes", "3"), ("gated", True), ("lastModified", "yesterday"), ("id", 7)],
)
def test_a_value_that_the_class_of_huggingface_hub_does_not_take_does_not_fit(
    exchanges: list[Exchange], field: str, value: object
):
    exchange = next(each for each in exchanges if each[0].path.endswith("/revision/main"))
    document = json.loads(_body(exchange))
    assert fits(exchange, document)
    assert not fits(exchange, {**document, field: value})


@pytest.mark.parametrize(
    ("status", "headers", "document"),
    [
        (404, {}, {"message": "of another form"}),
        (404, {"X-Error-Code": "NoSuchCode"}, {"error": "x"}),
        (404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "y"}, {"error": "x"}),
    ],
)
def test_an_error_that_huggingface_hub_does_not_know_does_not_fit(
    status: int, headers: dict[str, str], document: dict[str, str]
):
    request = Request("GET", "/api/datasets/lab/x", "/api/datasets/lab/x", {}, {}, b"")
    with pytest.raises(Misfit):
        check_response("http://127.0.0.1:1", request, json_response(document, status, headers))


def test_a_response_that_does_not_fit_is_status_500_and_fails_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hf_hub, "info", lambda repository, commit: {"id": repository.name, "invented": 1})
    with pytest.raises(Misfit, match="unknown fields"), HubServer(tmp_path) as server:
        server.store.create("lab/x", private=False)
        assert httpx2.get(f"{server.url}/api/datasets/lab/x").status_code == 500


def test_a_large_file_is_in_a_storage_with_another_name_which_takes_no_token(server: HubServer, tmp_path: Path):
    hub_for(server).publish("x", folder_of(tmp_path / "x", shards=1), quiet)
    (shard,) = [path for path in server.tree("lab/x") if path.endswith(".parquet")]
    found = httpx2.head(f"{server.url}/datasets/lab/x/resolve/main/{shard}")
    assert found.status_code == 302
    assert found.headers["X-Linked-Etag"] == f'"{server.tree("lab/x")[shard].lfs}"'
    assert found.headers["X-Linked-Size"] == "20000"
    assert found.headers["X-Repo-Commit"] == server.commits("lab/x")[0].oid
    url = httpx2.URL(found.headers["Location"])
    assert url.host != httpx2.URL(server.url).host
    assert httpx2.get(url).content == server.content("lab/x", shard)
    assert httpx2.get(url, headers={"Authorization": f"Bearer {server.token}"}).status_code == 400
    assert httpx2.get(url.copy_with(query=None)).status_code == 403


def test_a_small_file_is_in_the_hubs_own_cache(server: HubServer, tmp_path: Path):
    hub_for(server).publish("x", folder_of(tmp_path / "x", shards=1), quiet)
    found = httpx2.get(f"{server.url}/datasets/lab/x/resolve/main/README.md", follow_redirects=True)
    (redirect,) = found.history
    assert redirect.status_code == 307
    assert redirect.headers["Location"].startswith("/api/resolve-cache/datasets/lab/x/")
    assert found.content == server.content("lab/x", "README.md")


def test_a_pull_request_is_a_draft_that_cannot_be_merged_until_it_is_opened(server: HubServer):
    server.store.create("lab/x", private=False)
    api = HfApi(server.url, server.token)
    pull = api.create_pull_request("lab/x", "a title", repo_type="dataset")
    assert pull.status == "draft"
    with pytest.raises(HfHubHTTPError, match="pull request is draft"):
        api.merge_pull_request("lab/x", pull.num, repo_type="dataset")
    api.change_discussion_status("lab/x", pull.num, "open", repo_type="dataset")
    api.merge_pull_request("lab/x", pull.num, repo_type="dataset")
    assert api.get_discussion_details("lab/x", pull.num, repo_type="dataset").status == "merged"


def test_a_card_that_is_not_valid_is_not_committed_either(server: HubServer, monkeypatch: pytest.MonkeyPatch):
    server.store.create("lab/x", private=False)
    monkeypatch.setattr(HfApi, "_validate_yaml", lambda *_, **__: None)
    card = CommitOperationAdd("README.md", b"---\nlicense: mine\n---\n")
    with pytest.raises(HfHubHTTPError, match='"license" must be one of'):
        HfApi(server.url, server.token).create_commit("lab/x", [card], commit_message="card", repo_type="dataset")


@pytest.mark.parametrize(
    ("yaml", "error"),
    [
        ("license: cc-by-4.0", None),
        ("license: [cc-by-4.0, cc0-1.0]", None),
        ("license: CC-BY-4.0", '"license" must be one of'),
        ("license: [mit, mine]", '"license" must be one of'),
        ("license: other", "license_name"),
        ("license: other\nlicense_name: mine", None),
        ("tags: one", '"tags" must be an array'),
        ("tags: [1]", '"tags.0." must be a string'),
        ("pretty_name: 7", '"pretty_name" must be a string'),
        ("size_categories: [n<1K]", None),
        ("size_categories: [few]", '"size_categories" must be'),
        ("[", "Invalid YAML"),
        ("- a", "must be an object"),
    ],
)
def test_cards_are_validated(yaml: str, error: str | None):
    found = "\n".join(card_errors(f"---\n{yaml}\n---\nwords"))
    assert found == "" if error is None else error.replace(".", "") in found.replace("[", "").replace("]", "")
