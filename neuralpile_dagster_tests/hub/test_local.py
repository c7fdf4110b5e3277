from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import DiskFull, HubConflict, HubError, StoreError
from neuralpile_dagster.hub import Publication, local, open_hub
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.publish.configs import config_path, published_sessions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.hub_folders import FIRST, SECOND, contents, make_folder, silent


@pytest.fixture
def hub(tmp_path: Path) -> LocalHub:
    return LocalHub(tmp_path / "home" / "hub", "local")


def publish(hub: LocalHub, folder: Path, files: dict[str, bytes], name: str = "mice") -> Publication:
    return hub.publish(name, make_folder(folder, files), silent)


def test_a_repository_holds_exactly_the_files_of_the_published_folder(hub: LocalHub, tmp_path: Path):
    done = publish(hub, tmp_path / "staging", FIRST)
    assert contents(hub.path("mice")) == FIRST
    assert done.changed and done.repository == "local/mice" and done.url == str(hub.path("mice"))
    assert {f.path: f.sha256 for f in done.files} == {p: hashlib.sha256(c).hexdigest() for p, c in FIRST.items()}
    assert hub.files("mice") == done.files
    assert list(hub.repositories()) == ["mice"]


@pytest.mark.parametrize("private", ["1", "0"])
def test_that_a_folder_is_as_private_as_it_is_anyway_is_said(
    hub: LocalHub, tmp_path: Path, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALPILE_PRIVATE", private)
    lines: list[str] = []
    hub.publish("mice", make_folder(tmp_path / "staging", FIRST), lines.append)
    assert [line for line in lines if "NEURALPILE_PRIVATE has no effect" in line] == lines[: int(private)]


def test_publishing_again_unchanged_is_not_a_new_version(hub: LocalHub, tmp_path: Path):
    first = publish(hub, tmp_path / "staging", FIRST)
    before = hub.path("mice").resolve()
    again = publish(hub, tmp_path / "another", FIRST)
    assert (again.changed, again.bytes_sent, again.version) == (False, 0, first.version)
    assert hub.path("mice").resolve() == before


def test_a_new_version_replaces_all_files_of_the_old_one(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    publish(hub, tmp_path / "staging", SECOND)
    assert contents(hub.path("mice")) == SECOND
    versions = hub.path("mice").parent / ".versions" / "mice"
    assert len([p for p in versions.iterdir() if p.is_dir()]) == 1


def test_large_files_are_links_and_small_ones_are_copies(hub: LocalHub, tmp_path: Path):
    done = publish(hub, tmp_path / "staging", FIRST)
    shard, card = "data/train-00000-aaaaaaaa.parquet", "README.md"
    assert (hub.path("mice") / shard).stat().st_ino == (tmp_path / "staging" / shard).stat().st_ino
    assert (hub.path("mice") / card).stat().st_ino != (tmp_path / "staging" / card).stat().st_ino
    assert done.bytes_sent == len(FIRST[card]) + len(FIRST["units/units.parquet"])


def test_where_links_are_impossible_unchanged_shards_come_from_the_last_version(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish(hub, tmp_path / "staging", FIRST)
    shard = "data/train-00000-aaaaaaaa.parquet"
    inode = (hub.path("mice") / shard).stat().st_ino
    staging = tmp_path / "other-disk"
    real_link = os.link

    def link(source: Any, target: Any) -> None:
        if Path(source).is_relative_to(staging):
            raise OSError(18, "Invalid cross-device link")
        real_link(source, target)

    monkeypatch.setattr(local.os, "link", link)
    done = publish(hub, staging, {**FIRST, "README.md": b"# new card"})
    assert done.bytes_sent == len(b"# new card")
    assert (hub.path("mice") / shard).stat().st_ino == inode
    publish(hub, staging, SECOND)
    assert contents(hub.path("mice")) == SECOND


def test_the_home_can_be_moved(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    (tmp_path / "home").rename(tmp_path / "moved")
    moved = LocalHub(tmp_path / "moved" / "hub", "local")
    assert contents(moved.path("mice")) == FIRST
    assert not publish(moved, tmp_path / "staging", FIRST).changed


def test_a_damaged_version_is_published_again(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    (hub.path("mice") / "data/train-00000-aaaaaaaa.parquet").unlink()
    again = publish(hub, tmp_path / "staging", FIRST)
    assert again.changed and contents(hub.path("mice")) == FIRST


def test_files_are_opened_inside_the_repository_only(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    with hub.open("local/mice", "README.md") as file:
        assert file.read() == b"# one"
        assert file.seek(0) == 0
    secret = hub.root.parent / "secret"
    secret.write_text("no")
    for path in ("../../../secret", str(secret), "data", "absent.parquet"):
        with pytest.raises(HubError, match="has no file"), hub.open("mice", path):
            pass
    with pytest.raises(HubError, match="no such repository"), hub.open("rats", "README.md"):
        pass
    assert hub.files("rats") == ()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".versions", "a--b", "x" * 97, "a b", "-a", "a.git"])
def test_names_that_a_hub_would_refuse_are_refused(hub: LocalHub, tmp_path: Path, name: str):
    with pytest.raises(HubError, match="is not a valid repository name"):
        publish(hub, tmp_path / "staging", FIRST, name)


def test_an_empty_or_absent_folder_is_not_published(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    with pytest.raises(HubError, match="nothing to publish"):
        hub.publish("mice", tmp_path / "absent", silent)
    assert contents(hub.path("mice")) == FIRST


def test_a_folder_somebody_else_put_there_is_read_and_never_replaced(hub: LocalHub, tmp_path: Path):
    make_folder(hub.path("mice"), SECOND)
    assert {f.path for f in hub.files("mice")} == set(SECOND)
    with pytest.raises(HubError, match="was not created by this hub"):
        publish(hub, tmp_path / "staging", FIRST)
    assert contents(hub.path("mice")) == SECOND


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_copied(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish(hub, tmp_path / "staging", FIRST)

    def full_disk(path: Path) -> Any:
        return shutil._ntuple_diskusage(100, 100, 0)  # type: ignore[attr-defined]

    monkeypatch.setattr("neuralpile_dagster.files.shutil.disk_usage", full_disk)
    with pytest.raises(DiskFull, match="0 bytes available"):
        publish(hub, tmp_path / "staging", SECOND)
    assert contents(hub.path("mice")) == FIRST


def test_a_hub_under_a_file_is_a_clear_error(tmp_path: Path):
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        publish(LocalHub(tmp_path / "home" / "hub", "local"), tmp_path / "staging", FIRST)


def test_a_folder_that_changes_while_it_is_published_is_not_published(hub: LocalHub, tmp_path: Path):
    publish(hub, tmp_path / "staging", FIRST)
    for change in (
        lambda: (tmp_path / "staging/README.md").write_bytes(b"# changed"),
        lambda: (tmp_path / "staging/data/train-00000-bbbbbbbb.parquet").unlink(),
    ):
        folder = make_folder(tmp_path / "staging", SECOND)
        real = local.require_free

        def require_free(*arguments: Any, change: Callable[[], Any] = change, real: Any = real) -> None:
            change()
            real(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local, "require_free", require_free)
            with pytest.raises(HubConflict, match="changed while it was published"):
                hub.publish("mice", folder, silent)
        assert contents(hub.path("mice")) == FIRST


def test_the_local_hub_is_in_the_home(tmp_path: Path):
    hub = open_hub(Settings(home=tmp_path, store=str(tmp_path / "store"), namespace="lab"))
    assert isinstance(hub, LocalHub)
    assert hub.path("mice") == tmp_path / "hub" / "lab" / "mice"


def test_counting_published_sessions_closes_what_it_opened(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, opened = tmp_path / "made", []
    path = folder / config_path("sessions")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"session_id": ["a", "b"]}), path)
    hub.publish("mice", folder, silent)
    read = hub.open
    monkeypatch.setattr(hub, "open", lambda *names: opened.append(read(*names)) or opened[-1])
    assert published_sessions(hub, "mice") == 2
    assert [file.closed for file in opened] == [True]
