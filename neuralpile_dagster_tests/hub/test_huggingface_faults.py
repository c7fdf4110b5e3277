"""Every kind of trouble at every call of a publication: one complete commit, or an error and an untouched main."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuralpile_dagster.errors import HubError, HubUnavailable
from neuralpile_dagster_tests.fixtures.huggingface import QUICK, contents, folder_of, hub_for, published, quiet
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.hf_hub import HubServer

CALLS = {
    "create": ("POST", r"/api/repos/create"),
    "validate": ("POST", r"/api/validate-yaml"),
    "info": ("GET", r"/revision/main$"),
    "preupload": ("POST", r"/preupload/main"),
    "xet": ("GET", r"/xet-write-token/main"),
    "batch": ("POST", r"/objects/batch"),
    "put": ("PUT", r"/lfs/put/"),
    "part": ("PUT", r"/lfs/part/"),
    "complete": ("POST", r"/api/complete_multipart"),
    "verify": ("POST", r"/objects/verify"),
    "commit": ("POST", r"/commit/main"),
    "tree": ("GET", r"/tree/"),
    "refs": ("GET", r"/refs$"),
    "tag": ("POST", r"/tag/"),
}
STAGES = {  # what one publication suffers: each trouble once at every call of a stage
    "opening": ("create", "validate", "info", "preupload", "xet"),
    "sending": ("batch", "put", "part", "complete", "verify"),
    "committing": ("commit", "tree", "refs", "tag"),
}
assert {call for stage in STAGES.values() for call in stage} == set(CALLS)
TROUBLES = {
    "500": status(500),
    "503": status(503, retry_after=0),
    "429": Fault("status", status=429, headers=(("RateLimit", '"api";r=0;t=0'),)),
    "reset before": Fault("reset"),
    "reset after the server acted": Fault("reset", after_serving=True),
    "500 after the server acted": Fault("status", status=500, after_serving=True),
    "reset mid-body": Fault("reset_mid_body"),
    "reply cut short": Fault("short_body"),
    "reply cut short, unmarked": Fault("short_unmarked"),
    "hang": Fault("hang"),
    "hang after the server acted": Fault("hang", after_serving=True),
}
HASTY = replace(QUICK, attempts=2, read_timeout_s=0.1)
SENT_BY_PUT = ("put", "part")  # huggingface_hub waits for seconds between attempts of these


def trouble(kind: str, call: str, times: int = 1, skip: int = 0) -> Fault:
    fault = TROUBLES[kind]
    method, path = CALLS[call]
    return Fault(
        fault.kind,
        method,
        path,
        times,
        skip,
        status=fault.status,
        headers=fault.headers,
        after_serving=fault.after_serving,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server", part_bytes=30_000) as server:
        yield server


def mixed_folder(path: Path, seed: int = 0) -> Path:
    folder = folder_of(path, shards=2, seed=seed, size=20_000)
    return folder_of(folder, shards=1, seed=seed + 100, size=50_000)  # this one is sent in parts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return mixed_folder(tmp_path / "x")


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("stage", STAGES)
def test_trouble_that_passes_ends_in_exactly_one_complete_commit(
    server: HubServer, folder: Path, stage: str, kind: str
):
    server.faults.add(*(trouble(kind, call) for call in STAGES[stage]))
    publication = hub_for(server).publish("x", folder, quiet)
    assert len(server.faults.struck) == len(STAGES[stage])
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder) == published(server, revision=publication.version)


@pytest.mark.parametrize("call", [call for call in CALLS if call not in (*SENT_BY_PUT, "commit", "refs", "tag")])
def test_trouble_that_stays_is_a_clear_error_and_an_untouched_main(server: HubServer, tmp_path: Path, call: str):
    for number, kind in enumerate(("500", "503", "429", "reset before")):
        folder = mixed_folder(tmp_path / kind, seed=number)  # nothing of it was sent before
        server.faults.add(trouble(kind, call, times=10_000))
        with pytest.raises(HubUnavailable, match=r"what to do: try again") as caught:
            hub_for(server, plans=2).publish("x", folder, quiet)
        assert server.url in str(caught.value) or "lab/x" in str(caught.value)
        assert server.commits("lab/x") == []
        server.faults.clear()
    hub_for(server).publish("x", folder, quiet)
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)


@pytest.mark.parametrize("call", ["info", "preupload", "batch", "tree"])
def test_a_hub_that_never_answers_is_a_clear_error_and_an_untouched_main(server: HubServer, folder: Path, call: str):
    server.faults.add(trouble("hang", call, times=10_000))
    with pytest.raises(HubUnavailable, match=r"what to do: try again"):
        hub_for(server, plans=1, policy=HASTY).publish("x", folder, quiet)
    assert server.commits("lab/x") == []


@pytest.mark.parametrize("kind", ["503", "reset before", "hang"])
@pytest.mark.parametrize("call", SENT_BY_PUT)
def test_storage_that_stays_away_is_a_clear_error_and_an_untouched_main(
    server: HubServer, folder: Path, call: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    # the library itself makes six attempts, and would wait for 23 s between them
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    server.faults.add(trouble(kind, call, times=10_000))
    with pytest.raises(HubUnavailable, match=r"what to do: try again"):
        hub_for(server, plans=1, policy=HASTY).publish("x", folder, quiet)
    assert server.commits("lab/x") == []
    assert published(server) == {}


@pytest.mark.parametrize("kind", ["reply cut short", "reply cut short, unmarked", "reset mid-body"])
@pytest.mark.parametrize("call", ["validate", "info", "preupload", "batch", "tree"])
def test_replies_that_are_never_whole_are_a_clear_error_and_an_untouched_main(
    server: HubServer, folder: Path, call: str, kind: str
):
    server.faults.add(trouble(kind, call, times=10_000))
    with pytest.raises(HubUnavailable, match=r"what to do: try again"):
        hub_for(server, plans=2).publish("x", folder, quiet)
    assert server.commits("lab/x") == []


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset before", "hang"])
def test_a_hub_that_takes_no_commit_is_asked_once_per_plan(server: HubServer, folder: Path, kind: str):
    server.faults.add(trouble(kind, "commit", times=10_000))
    with pytest.raises(HubUnavailable, match="committing"):
        hub_for(server, plans=3).publish("x", folder, quiet)
    assert len(server.requests("POST", "/commit/main")) == 3
    assert server.commits("lab/x") == []


@pytest.mark.parametrize("kind", [kind for kind in TROUBLES if "after" in kind or "cut" in kind or "mid" in kind])
def test_a_commit_whose_reply_is_lost_is_found_and_not_made_again(server: HubServer, folder: Path, kind: str):
    server.faults.add(trouble(kind, "commit", times=10_000))
    publication = hub_for(server).publish("x", folder, quiet)
    assert publication.changed
    assert len(server.requests("POST", "/commit/main")) == 1
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)


@pytest.mark.parametrize("call", ["refs", "tag"])
def test_a_version_that_cannot_be_tagged_is_an_error_after_a_complete_commit(
    server: HubServer, folder: Path, call: str
):
    server.faults.add(trouble("500", call, times=10_000))
    with pytest.raises(HubUnavailable):
        hub_for(server, plans=2).publish("x", folder, quiet)
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)
    server.faults.clear()
    again = hub_for(server).publish("x", folder, quiet)
    assert published(server, revision=again.version) == contents(folder)


def test_after_trouble_only_what_is_missing_is_sent_again(server: HubServer, folder: Path):
    server.faults.add(trouble("500", "commit"), trouble("reset before", "commit"))
    publication = hub_for(server).publish("x", folder, quiet)
    large = sum(len(content) for path, content in contents(folder).items() if path != "README.md")
    assert server.received["lfs"] == large
    assert publication.bytes_sent >= large


@pytest.mark.parametrize("calls", [("list", "pull", "part of it"), ("details", "open", "merge")], ids="-".join)
@pytest.mark.parametrize("kind", ["500", "reset before", "reset after the server acted", "reply cut short"])
def test_trouble_with_a_pull_request_leaves_main_untouched_or_complete(
    server: HubServer, tmp_path: Path, calls: tuple[str, ...], kind: str
):
    folder = folder_of(tmp_path / "many", shards=7)
    paths = {
        "list": ("GET", r"/discussions\?"),
        "pull": ("POST", r"/discussions$"),
        "details": ("GET", r"/discussions/1\?"),
        "part of it": ("POST", r"/commit/refs"),
        "open": ("POST", r"/status$"),
        "merge": ("POST", r"/merge$"),
    }
    fault = TROUBLES[kind]
    for method, path in (paths[call] for call in calls):
        server.faults.add(Fault(fault.kind, method, path, 1, status=fault.status, after_serving=fault.after_serving))
    seen = []

    def watch(line: str) -> None:
        if server.commits("lab/x"):
            seen.append(published(server))

    hub_for(server, files_per_commit=3).publish("x", folder, watch)
    assert len(server.faults.struck) == len(calls)
    assert all(version == contents(folder) for version in seen)
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)
    assert {pull.status for pull in server.store.repository("lab/x").pulls.values()} <= {"closed", "merged"}


@pytest.mark.parametrize("call", ["/v1/xorbs/", "/v1/shards", "/xet-write-token/"])
@pytest.mark.parametrize("kind", ["500", "reset before", "reset after the server acted", "short_body", "hang"])
def test_trouble_with_a_xet_store_ends_in_one_complete_commit(
    tmp_path: Path, folder: Path, call: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    fault = TROUBLES.get(kind, Fault("short_body"))
    with HubServer(tmp_path / "xet_server", xet=True) as server:
        server.faults.add(Fault(fault.kind, ".*", call, 1, status=fault.status, after_serving=fault.after_serving))
        hub_for(server).publish("x", folder, quiet)
        assert len(server.faults.struck) == 1
        assert len(server.commits("lab/x")) == 1
        assert published(server) == contents(folder)


def test_a_xet_store_that_stays_away_is_an_error_and_an_untouched_main(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    with HubServer(tmp_path / "xet_server", xet=True) as server:
        server.faults.add(status(503, path="/v1/xorbs/", times=10_000))
        with pytest.raises(HubError, match="lab/x"):
            hub_for(server, plans=2).publish("x", folder, quiet)
        assert server.commits("lab/x") == []
