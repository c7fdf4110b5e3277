"""Lists of a Hub that never end, or have another form, are an error in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from neuralpile_dagster.errors import HubError, HubUnavailable
from neuralpile_dagster.hub.huggingface import HuggingFaceHub, read
from neuralpile_dagster_tests.fixtures.huggingface import QUICK, hub_for
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.http import Request, Response, Server, json_response

HEAD = "0" * 40


class Lists:
    """A hub that has one repository; ``page`` makes the list of its files."""

    def __init__(self) -> None:
        self.page: Callable[[Request], Response] = lambda request: json_response([])
        self.url = ""

    def __call__(self, request: Request) -> Response:
        """Answer what listing asks for."""
        if "/tree/" in request.path:
            return self.page(request)
        info = {"id": "lab/x", "sha": HEAD, "private": False, "tags": [], "siblings": [], "downloads": 0, "likes": 0}
        return json_response(info)


@pytest.fixture
def lists() -> Iterator[tuple[Lists, HuggingFaceHub, Server]]:
    application = Lists()
    with Server(application) as server:
        application.url = server.url
        yield application, HuggingFaceHub("lab", server.url, "hf_x", policy=QUICK), server


def entry(number: int) -> dict[str, Any]:
    """A file as ``/tree`` gives it."""
    return {"type": "file", "oid": "a" * 40, "size": 3, "path": f"{number}.txt", "id": f"lab/d{number}"}


def assert_ends(call: Callable[[], object], found: str) -> None:
    with pytest.raises(HubError, match=found) as caught:
        call()
    assert not isinstance(caught.value, HubUnavailable)
    assert "what to do:" in str(caught.value)


@pytest.mark.parametrize("rows", [[], [entry(1)]])
def test_a_next_link_to_the_same_page_is_a_loop(lists: tuple[Lists, HuggingFaceHub, Server], rows: list[Any]) -> None:
    application, hub, server = lists
    application.page = lambda request: json_response(
        rows, headers={"Link": f'<{application.url}{request.target}>; rel="next"'}
    )
    assert_ends(lambda: hub.files("x"), "does not end")
    assert len(server.log) < 5


def test_ever_new_pages_are_bounded(
    lists: tuple[Lists, HuggingFaceHub, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_PAGES", 5)
    application, hub, server = lists

    def page(request: Request) -> Response:
        number = int(request.query.get("cursor", 0)) + 1
        link = f'<{application.url}{request.path}?cursor={number}>; rel="next"'
        return json_response([entry(number)], headers={"Link": link})

    application.page = page
    assert_ends(lambda: hub.files("x"), "more than 5 pages")
    assert 5 <= len(server.log) <= 7


@pytest.mark.parametrize(
    "document",
    [
        {"error": "odd"},
        "text",
        None,
        [1],
        [None],
        [{}],
        [{"type": "file"}],
        [entry(1) | {"lfs": "no"}],
        [entry(1) | {"path": 7}],
        [entry(1) | {"size": "3"}],
        [entry(1) | {"oid": None}],
    ],
)
def test_a_tree_of_another_form_is_not_understood(
    lists: tuple[Lists, HuggingFaceHub, Server], document: object
) -> None:
    application, hub, _ = lists
    application.page = lambda request: json_response(document)
    assert_ends(lambda: hub.files("x"), "the list of the files of lab/x was not understood")


def test_folders_and_the_hubs_own_file_are_no_files_of_ours(lists: tuple[Lists, HuggingFaceHub, Server]) -> None:
    application, _hub, _ = lists
    folder = {"type": "directory", "oid": "b" * 40, "size": 0, "path": "data"}
    rows = [folder, entry(1), entry(2) | {"path": ".gitattributes"}]
    application.page = lambda request: json_response(rows)
    assert list(read.remote_files(HfApi(endpoint=application.url), "lab/x", "main")) == ["1.txt"]


def test_a_path_that_a_tree_has_twice_is_named(lists: tuple[Lists, HuggingFaceHub, Server]) -> None:
    application, hub, _ = lists
    application.page = lambda request: json_response([entry(1), entry(1)])
    assert_ends(lambda: hub.files("x"), "does not end; found: 1.txt twice")


def test_the_pages_of_a_real_tree_are_all_read(tmp_path: Path) -> None:
    with HubServer(tmp_path / "server", page=2) as server:
        hub = hub_for(server)
        folder = tmp_path / "x"
        folder.mkdir()
        (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
        for number in range(4):
            (folder / f"{number}.json").write_text(json.dumps(number))
        hub.publish("x", folder, lambda line: None)
        assert [file.path for file in hub.files("x")] == ["0.json", "1.json", "2.json", "3.json", "README.md"]
