"""The cache of downloads when other processes use it at the same time."""

from __future__ import annotations

import fcntl
import shutil
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.archives import downloads
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster_tests.archives.test_cache import Fetcher, content_of, kept, listed, put


@pytest.fixture
def cache(tmp_path: Path) -> DownloadCache:
    return DownloadCache(tmp_path / "cache", 350)


def test_a_file_that_another_one_made_meanwhile_and_has_open_is_used_at_once(
    cache: DownloadCache, monkeypatch: pytest.MonkeyPatch
):
    fetch, other, locked = Fetcher(content_of(1)), ExitStack(), downloads._locked
    overtaken = []

    def overtake(path: Path, kind: int) -> AbstractContextManager[None]:
        if kind & fcntl.LOCK_EX and not overtaken:
            overtaken.append(path)
            other.enter_context(DownloadCache(cache.folder, 350).hold(listed(fetch.content), fetch))
        return locked(path, kind)

    monkeypatch.setattr(downloads, "_locked", overtake)
    with other, cache.hold(listed(fetch.content), fetch) as path:
        assert path.read_bytes() == fetch.content
    assert fetch.found == [0]


def test_a_file_that_another_one_made_meanwhile_and_closed_is_not_fetched_again(
    cache: DownloadCache, monkeypatch: pytest.MonkeyPatch
):
    fetch, locked, overtaken = Fetcher(content_of(1)), downloads._locked, []

    def overtake(path: Path, kind: int) -> AbstractContextManager[None]:
        if kind & fcntl.LOCK_EX and not overtaken:
            overtaken.append(path)
            put(DownloadCache(cache.folder, 350), 1)
        return locked(path, kind)

    monkeypatch.setattr(downloads, "_locked", overtake)
    with cache.hold(listed(fetch.content), fetch) as path:
        assert path.read_bytes() == fetch.content
    assert overtaken
    assert fetch.found == []


def test_room_is_reserved_by_one_process_at_a_time(cache: DownloadCache):
    making = threading.Thread(target=put, args=(cache, 1))
    with downloads._locked(cache.folder / ".locks" / "all", fcntl.LOCK_EX):
        making.start()
        making.join(0.3)  # it would be done by now
        assert making.is_alive()
    making.join()
    assert kept(cache) == {1}


def test_an_entry_that_another_process_removes_while_sizes_are_added_up_does_no_harm(
    cache: DownloadCache, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2, 3):
        put(cache, number)
    read_text, removed = Path.read_text, []

    def vanishing(path: Path, *arguments: Any) -> str:
        if path.name == ".size" and not removed:
            removed.append(path.parent)
            shutil.rmtree(path.parent)
        return read_text(path, *arguments)

    monkeypatch.setattr(Path, "read_text", vanishing)
    put(cache, 4)
    assert len(removed) == 1
    assert 4 in kept(cache)


def test_an_entry_that_another_process_removed_need_not_be_removed(
    cache: DownloadCache, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2, 3):
        put(cache, number)
    evict = cache._evict

    def too_late(lock: Path) -> None:
        shutil.rmtree(cache.folder / lock.name)
        evict(lock)

    monkeypatch.setattr(cache, "_evict", too_late)
    put(cache, 4, 300)
    assert kept(cache) == {4}
