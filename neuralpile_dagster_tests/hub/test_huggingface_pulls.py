"""Publications of more files than one commit may change: a pull request, merged once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster.errors import HubConflict
from neuralpile_dagster_tests.fixtures.huggingface import CARD, contents, folder_of, hub_for, published, quiet
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.hf_hub_store import Commit, Repository


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server") as server:
        yield server


def test_more_files_than_one_commit_holds_appear_at_once(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=11)
    publication = hub_for(server, files_per_commit=4).publish("x", folder, quiet)
    assert published(server) == contents(folder) == published(server, revision=publication.version)
    assert len(server.commits("lab/x")) == 1
    assert [pull.status for pull in server.store.repository("lab/x").pulls.values()] == ["merged"]


def test_a_pull_request_merged_by_the_last_plan_is_looked_at_and_tagged(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=5)
    publication = hub_for(server, plans=1, files_per_commit=3).publish("x", folder, quiet)
    assert published(server, revision=publication.version) == contents(folder)


def test_a_commit_that_slips_in_before_a_merge_is_seen_after_it_and_planned_for(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=5)
    merge = server.store.merge
    slipped = []

    def slip_in_once(repository: Repository, number: int) -> Commit:
        if not slipped:
            slipped.append(number)
            server.store.commit(repository, "main", "theirs", None, {"notes.txt": server.store.add_blob(b"theirs")})
        return merge(repository, number)

    server.store.merge = slip_in_once  # type: ignore[method-assign]
    with pytest.raises(HubConflict, match=r"changed while it was published.*not deleted: \['notes.txt'\]"):
        hub_for(server, plans=1, files_per_commit=3).publish("x", folder, quiet)
    publication = hub_for(server, files_per_commit=3).publish("x", folder, quiet)
    assert published(server, revision=publication.version) == contents(folder)


def test_a_pull_request_is_not_merged_into_a_main_that_moved(server: HubServer, tmp_path: Path):
    folder, other = folder_of(tmp_path / "x", shards=5), folder_of(tmp_path / "other", shards=1, seed=9)
    hub_for(server).publish("x", other, quiet)
    moved = []

    def move_main_once(line: str) -> None:
        if "then merging" in line and not moved:
            moved.append(line)
            (other / "README.md").write_text(CARD + "Meanwhile.\n")
            hub_for(server).publish("x", other, quiet)

    hub_for(server, files_per_commit=3).publish("x", folder, move_main_once)
    assert moved
    (late,) = server.requests("POST", "/commit/refs%2Fpr%2F1")
    assert late[2] == 412  # nothing is put on top of a main that was not planned for
    assert published(server) == contents(folder)
    assert sorted(pull.status for pull in server.store.repository("lab/x").pulls.values()) == ["closed", "merged"]
