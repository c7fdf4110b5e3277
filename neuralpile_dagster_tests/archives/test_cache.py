"""The cache of downloads: verified, bounded, shared, resumed."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path

import pytest
from dandischema.digests.dandietag import DandiETag

from neuralpile_dagster.archives.downloads import DownloadCache, digest_of, listed_digest
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DigestMismatch, DiskFull
from neuralpile_dagster_tests.fixtures.archives import listed


def content_of(number: int, size: int = 100) -> bytes:
    return bytes([number]) * size


class Fetcher:
    """Appends to the file what it lacks of the content; counts its calls and what it found there."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.found: list[int] = []

    def __call__(self, path: Path) -> None:
        there = path.stat().st_size if path.exists() else 0
        self.found.append(there)
        with path.open("ab") as target:
            target.write(self.content[there:])


@pytest.fixture
def cache(tmp_path: Path) -> DownloadCache:
    return DownloadCache(tmp_path / "cache", 350)


def put(cache: DownloadCache, number: int, size: int = 100) -> Fetcher:
    fetch = Fetcher(content_of(number, size))
    with cache.hold(listed(fetch.content), fetch) as path:
        assert path.read_bytes() == fetch.content
        assert path.name == "a.nwb"
    return fetch


def kept(cache: DownloadCache) -> set[int]:
    return {path.read_bytes()[0] for path in cache.folder.glob("*/a.nwb")}


def test_a_file_is_fetched_once_and_then_found_also_by_other_processes(cache: DownloadCache):
    assert put(cache, 1).found == [0]
    assert put(cache, 1).found == []
    assert put(DownloadCache(cache.folder, 350), 1).found == []


def test_what_was_used_longest_ago_goes_first(cache: DownloadCache):
    for number in (1, 2, 3, 1, 4):
        put(cache, number)
    assert kept(cache) == {1, 3, 4}
    put(cache, 5, 200)
    assert kept(cache) == {4, 5}


def test_what_is_open_is_never_removed(cache: DownloadCache):
    first = Fetcher(content_of(1))
    with cache.hold(listed(first.content), first) as path:
        for number in (2, 3, 4, 5):
            put(cache, number)
        assert path.read_bytes() == first.content
        with pytest.raises(ArchiveUnavailable, match="has no room"):
            put(cache, 6, 300)
    assert put(cache, 6, 300).found == [0]
    assert kept(cache) == {6}


def test_a_file_larger_than_the_cache_is_refused_before_it_is_fetched(cache: DownloadCache):
    fetch = Fetcher(content_of(1, 351))
    with pytest.raises(ArchiveError, match="larger than the download cache") as caught:
        cache.hold(listed(fetch.content), fetch).__enter__()
    assert not isinstance(caught.value, ArchiveUnavailable)
    assert fetch.found == []


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(tmp_path: Path):
    cache = DownloadCache(tmp_path / "cache", 1 << 62)
    file = listed(b"x").model_copy(update={"size": 1 << 60})
    fetch = Fetcher(b"x")
    with pytest.raises(DiskFull), cache.hold(file, fetch):
        pass
    assert fetch.found == []


def test_a_wrong_file_is_fetched_again_and_then_given_up_leaving_nothing(cache: DownloadCache):
    fetch = Fetcher(b"not what is listed")
    for size in (len(fetch.content), 5):  # wrong bytes, wrong size
        fetch.found.clear()
        file = listed(b"the right content!"[:size] if size == 5 else b"the right content!")
        found = "18 bytes" if size == 5 else f"sha256 {hashlib.sha256(fetch.content).hexdigest()}"
        for _ in range(2):
            with pytest.raises(DigestMismatch, match=rf"a\.nwb.*found: {found};.*what to do"), cache.hold(file, fetch):
                pass
        assert fetch.found == [0, 0, 0, 0]
        assert not list(cache.folder.glob("sha256-*"))


def test_a_copy_damaged_on_disk_is_not_accepted_by_the_next_run(cache: DownloadCache):
    put(cache, 1)
    (path,) = cache.folder.glob("*/a.nwb")
    for damage in (content_of(1, 99), content_of(2)):
        path.write_bytes(damage)
        assert put(DownloadCache(cache.folder, 350), 1).found == [0]


def test_a_download_that_broke_off_is_resumed(cache: DownloadCache):
    fetch = Fetcher(content_of(1))

    def break_off(path: Path) -> None:
        path.write_bytes(fetch.content[:60])
        raise ArchiveUnavailable("the network is down")

    with pytest.raises(ArchiveUnavailable), cache.hold(listed(fetch.content), break_off):
        pass
    with cache.hold(listed(fetch.content), fetch) as path:
        assert path.read_bytes() == fetch.content
    assert fetch.found == [60]


def test_a_wrong_beginning_is_not_resumed_twice(cache: DownloadCache):
    fetch = Fetcher(content_of(1))

    def break_off(path: Path) -> None:
        path.write_bytes(b"wrong")
        raise ArchiveUnavailable("the network is down")

    with pytest.raises(ArchiveUnavailable), cache.hold(listed(fetch.content), break_off):
        pass
    with cache.hold(listed(fetch.content), fetch) as path:
        assert path.read_bytes() == fetch.content
    assert fetch.found == [5, 0]


def test_two_threads_that_want_the_same_file_fetch_it_once(cache: DownloadCache):
    fetch, got = Fetcher(content_of(1)), []

    def hold() -> None:
        with DownloadCache(cache.folder, 350).hold(listed(fetch.content), fetch) as path:
            got.append(path.read_bytes())

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [fetch.content] * 8
    assert fetch.found == [0]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a/b c+d.nwb", ".partial", "x" * 300 + ".nwb", "ü/Ü.mat"])
def test_no_name_of_an_archive_leaves_the_cache(tmp_path: Path, name: str):
    cache, fetch = DownloadCache(tmp_path / "cache"), Fetcher(content_of(1))
    with cache.hold(listed(fetch.content, name), fetch) as path:
        assert path.resolve().parent.parent == cache.folder.resolve()
        assert path.read_bytes() == fetch.content
        assert path.suffix in (Path(name).suffix, "")
        assert re.fullmatch(r"[A-Za-z0-9_=+-][A-Za-z0-9_.=+-]*", path.name)


@pytest.mark.parametrize("digest", ["", "../../x", "zz" * 32, "/etc/passwd"])
def test_a_file_without_a_proper_digest_is_not_downloaded(cache: DownloadCache, digest: str):
    file = ArchiveFile(path="a.nwb", size=1, file_id="1", digests={"sha256": digest} if digest else {})
    with pytest.raises(ArchiveError, match="cannot be verified"), cache.hold(file, Fetcher(b"x")):
        pass


def test_the_digest_that_is_verified_is_the_strongest_listed(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"spikes" * 1000)
    digests = {
        "md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "dandi-etag": DandiETag.from_file(path).as_str(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert digests["dandi-etag"] == hashlib.md5(bytes.fromhex(digests["md5"])).hexdigest() + "-1"
    for algorithm in ("sha256", "dandi-etag", "md5"):
        file = ArchiveFile(path="x", size=6000, file_id="1", digests=digests)
        assert listed_digest(file) == (algorithm, digests[algorithm])
        assert digest_of(path, algorithm) == digests.pop(algorithm)
