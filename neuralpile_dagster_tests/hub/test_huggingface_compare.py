"""What a publication to a Hugging Face Hub compares before it changes anything: contents, and the head of main."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.errors import HubConflict
from neuralpile_dagster_tests.fixtures.huggingface import CARD, contents, folder_of, hub_for, published, quiet
from neuralpile_dagster_tests.servers.hf_hub import HubServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server") as server:
        yield server


@pytest.mark.parametrize("path", ["README.md", "data/train-00001-00000000.parquet"])
def test_a_file_of_the_same_name_and_size_with_other_content_is_sent(server: HubServer, tmp_path: Path, path: str):
    folder = folder_of(tmp_path / "x", shards=2)
    hub_for(server).publish("x", folder, quiet)
    content = bytearray((folder / path).read_bytes())
    content[-2] ^= 1
    (folder / path).write_bytes(content)
    publication = hub_for(server).publish("x", folder, quiet)
    assert publication.changed
    assert published(server) == contents(folder)


def test_a_commit_names_the_head_that_it_was_planned_for(server: HubServer, tmp_path: Path):
    """Else the Hub would put it on top of whatever somebody committed meanwhile, and nobody would know."""
    folder = folder_of(tmp_path / "x", shards=1)
    hub_for(server).publish("x", folder, quiet)
    moved = []

    def move_main_once(line: str) -> None:
        if "committing" in line and not moved:
            moved.append(line)
            theirs = {"README.md": server.store.add_blob(b"theirs")}
            server.store.commit(server.store.repository("lab/x"), "main", "theirs", None, theirs)

    (folder / "README.md").write_text(CARD + "Ours.\n")
    hub_for(server).publish("x", folder, move_main_once)
    commits = server.requests("POST", "/commit/main")[1:]
    assert [status for _, _, status, _ in commits] == [412, 200]
    assert published(server) == contents(folder)


def test_every_part_of_a_pull_request_names_the_commit_that_it_follows(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=5)
    commit, followed = server.store.commit, []

    def noted(repository: Any, branch: str, title: str, parent: str | None, changes: Any) -> Any:
        followed.append(parent)
        made = commit(repository, branch, title, parent, changes)
        followed.append(made.oid)
        return made

    server.store.commit = noted  # type: ignore[method-assign]
    hub_for(server, files_per_commit=3).publish("x", folder, quiet)
    assert len(followed) == 4
    assert followed[0] is not None
    assert followed[2] == followed[1]


def test_a_complete_pull_request_is_not_merged_into_a_main_that_moved_meanwhile(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=5)
    commit, parts = server.store.commit, []

    def move_main_after_the_last_part(repository: Any, branch: str, *rest: Any) -> Any:
        made = commit(repository, branch, *rest)
        if branch.startswith("refs/pr/"):
            parts.append(branch)
            if len(parts) == 2:
                commit(repository, "main", "theirs", None, {"notes.txt": server.store.add_blob(b"theirs")})
        return made

    server.store.commit = move_main_after_the_last_part  # type: ignore[method-assign]
    with pytest.raises(HubConflict, match=r"lab/x changed while it was published; found: main is at "):
        hub_for(server, plans=1, files_per_commit=3).publish("x", folder, quiet)
    assert server.requests("POST", "/merge") == []
    assert published(server) == {"notes.txt": b"theirs"}
    assert [pull.status for pull in server.store.repository("lab/x").pulls.values()] == ["closed"]
