"""What has its final name is on the disk: written, synced, renamed, and the folder synced, in this order.

A power cut cannot be had in a test; the order in which the operating system is asked can. The work is done in a child
process, whose calls an audit hook records (and a wrapper around `os.fsync`, which is not audited).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.files import write_bytes
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.archives import listed
from neuralpile_dagster_tests.fixtures.hub_folders import FIRST, SECOND, contents, make_folder, silent
from neuralpile_dagster_tests.fixtures.stores import put

Event = tuple[str, str, int]
"""What was done to which path; of a sync the bytes that the file had then, else 0."""


def disk_events(folder: Path, work: Callable[[], Any]) -> list[Event]:
    """Do ``work`` in a child process; its writes, syncs and renames below ``folder``, in order."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code, events, sync = 1, [], os.fsync

        def note(kind: str, path: object, size: int = 0) -> None:
            if str(path).startswith(str(folder)):
                events.append((kind, str(path), size))

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                note("write", arguments[0])
            elif event in ("os.rename", "os.link"):
                note("write" if event == "os.link" else "rename", arguments[1])

        def noted_sync(descriptor: int) -> None:
            sync(descriptor)
            size = os.fstat(descriptor).st_size
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            note("sync", path, 0 if path.is_dir() else size)

        os.fsync = noted_sync
        sys.addaudithook(hook)
        try:
            work()
            os.write(writing, json.dumps(events).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return [tuple(event) for event in json.loads(told)]


def last(events: list[Event], kind: str, path: Path) -> int:
    """When something was done to a path for the last time."""
    return max(at for at, event in enumerate(events) if event[:2] == (kind, str(path)))


def the_way_of(events: list[Event], final: Path) -> list[str]:
    """What was done to a file beside its final name, then to its name, then to its folder."""
    asides = {path for kind, path, _ in events if kind == "write" and Path(path).parent == final.parent}
    assert len(asides) == 1
    (aside,) = asides
    assert aside != str(final)
    meant = {aside: "aside", str(final): "final", str(final.parent): "folder"}
    return [f"{kind} {meant[path]}" for kind, path, _ in events if path in meant]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_writer_goes_on(tmp_path: Path):
    expected = ["write aside", "sync aside", "rename final", "sync folder"]
    file = tmp_path / "some" / "rows.json"
    events = disk_events(tmp_path, lambda: write_bytes(file, b"x" * 1000))
    assert the_way_of(events, file) == expected
    assert [size for kind, _, size in events if kind == "sync"] == [1000, 0]
    assert file.read_bytes() == b"x" * 1000

    store = LocalStore(tmp_path / "store")
    events = disk_events(tmp_path, lambda: put(store, "a/b.parquet", b"y" * 500))
    assert the_way_of(events, store.root / "a" / "b.parquet") == expected
    assert [size for kind, _, size in events if kind == "sync"] == [500, 0]


def test_who_has_a_file_open_while_it_is_replaced_reads_the_old_one_to_its_end(tmp_path: Path):
    path = tmp_path / "rows.json"
    write_bytes(path, b"old" * 100)
    with path.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        write_bytes(path, b"new")
        assert reader.read() == b"old" * 99
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("files", [FIRST, SECOND], ids=["the first version", "another version"])
def test_a_version_on_the_local_hub_is_on_the_disk_before_readers_see_it(tmp_path: Path, files: dict[str, bytes]):
    hub = LocalHub(tmp_path / "hub", "local")
    if files is SECOND:
        hub.publish("mice", make_folder(tmp_path / "first", FIRST), silent)
    folder = make_folder(tmp_path / "folder", files)
    events = disk_events(hub.root, lambda: hub.publish("mice", folder, silent))
    assert contents(hub.path("mice")) == files

    versions, link = hub.root / "local" / ".versions" / "mice", hub.root / "local" / "mice"
    renamed = [Path(path) for kind, path, _ in events if kind == "rename"]
    (final,) = [path for path in renamed if path.parent == versions and path.suffix != ".json"]
    named, shown = last(events, "rename", final), last(events, "rename", link)
    synced = {(path, size) for kind, path, size in events[:named] if kind == "sync"}
    (aside,) = {Path(path).parent for path, _ in synced if path.endswith("/README.md")}
    assert {(str(aside / path), len(content)) for path, content in files.items()} <= synced
    assert {(str((aside / path).parent), 0) for path in files} <= synced
    assert last(events, "rename", Path(f"{final}.json")) < named
    assert named < last(events[:shown], "sync", versions)
    assert shown < last(events, "sync", link.parent)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_download_is_on_the_disk_before_it_counts_as_complete(tmp_path: Path):
    content = bytes(range(256)) * 40
    cache = DownloadCache(tmp_path / "cache")

    def fetch(path: Path) -> None:
        path.write_bytes(content)

    def download() -> None:
        with cache.hold(listed(content), fetch) as held:
            assert held.read_bytes() == content

    events = disk_events(tmp_path, download)
    (final,) = [Path(path) for kind, path, _ in events if kind == "rename"]
    (synced,) = [(path, size) for kind, path, size in events if kind == "sync"]
    assert synced == (str(final.parent / ".partial"), len(content))
    assert events.index(("sync", *synced)) < last(events, "rename", final)
