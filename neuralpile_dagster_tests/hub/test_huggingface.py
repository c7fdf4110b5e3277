"""Publishing to a Hugging Face Hub, over HTTP, with the real client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster.errors import ConfigurationError, HubConflict, HubError
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster_tests.fixtures.huggingface import CARD, contents, folder_of, hub_for, published, quiet
from neuralpile_dagster_tests.servers.hf_hub import HubServer


@pytest.fixture(params=["lfs", "xet"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    with HubServer(tmp_path / "server", xet=request.param == "xet") as server:
        yield server


def test_a_folder_is_published_byte_for_byte_in_one_commit_with_a_tag(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=3)
    lines: list[str] = []
    publication = hub_for(server).publish("x", folder, lines.append)
    assert published(server) == contents(folder) == published(server, revision=publication.version)
    assert len(server.commits("lab/x")) == 1
    assert publication.changed
    assert publication.repository == "lab/x"
    assert publication.url == f"{server.url}/datasets/lab/x"
    assert publication.bytes_sent == sum(map(len, contents(folder).values()))
    assert any("4 of 4 files done" in line for line in lines)


def test_progress_tells_batches_files_bytes_and_seconds(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=3, size=1_000)
    lines: list[str] = []
    hub_for(server, batch_bytes=2_100, xet_batch_bytes=1_100).publish("x", folder, lines.append)
    told = [line.removeprefix("lab/x: ").rpartition(", ")[0] for line in lines if line.endswith(" s so far")]
    total = sum(map(len, contents(folder).values()))
    batches = 3 if server.xet else 2
    assert [line.split(",")[0] for line in told] == [f"batch {k} of {batches}" for k in range(1, batches + 1)]
    assert told[-1] == f"batch {batches} of {batches}, 4 of 4 files done, {total:,} of {total:,} bytes sent"


def test_both_hubs_hold_the_same_files(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=2)
    ours, local = hub_for(server), LocalHub(tmp_path / "hub", "lab")
    ours.publish("x", folder, quiet)
    local.publish("x", folder, quiet)
    assert ours.files("x") == local.files("x")


def test_publishing_the_same_again_sends_nothing(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=3)
    first = hub_for(server).publish("x", folder, quiet)
    server.log.clear()
    server.received.clear()
    again = hub_for(server).publish("x", folder, quiet)
    assert not again.changed
    assert (again.bytes_sent, again.version, again.files) == (0, first.version, first.files)
    assert not server.received
    assert {method for method, *_ in server.log} == {"GET"}


def test_only_what_changed_is_sent(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=3)
    hub_for(server).publish("x", folder, quiet)
    server.received.clear()
    (folder / "README.md").write_text(CARD + "More.\n")
    publication = hub_for(server).publish("x", folder, quiet)
    assert set(server.received) == {"commit"}
    assert publication.changed
    assert published(server) == contents(folder)


def test_shards_that_only_got_another_number_are_not_sent(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=4)
    hub_for(server).publish("x", folder, quiet)
    server.received.clear()
    shards = sorted((folder / "data").iterdir())
    for number, shard in reversed(list(enumerate(shards))):
        shard.rename(folder / "data" / f"train-{number + 1:05d}-00000000.parquet")
    publication = hub_for(server, files_per_commit=3).publish("x", folder, quiet)
    assert publication.bytes_sent == 0
    assert set(server.received) == {"commit"}
    assert published(server) == contents(folder)


def test_a_smaller_dataset_leaves_no_stale_shards_and_the_old_version_stays_readable(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=4)
    before = contents(folder)
    first = hub_for(server).publish("x", folder, quiet)
    for shard in sorted((folder / "data").iterdir())[1:]:
        shard.unlink()
    hub_for(server).publish("x", folder, quiet)
    assert published(server) == contents(folder)
    assert len(published(server)) == 2
    assert published(server, revision=first.version) == before


def test_a_publisher_that_was_overtaken_plans_anew(server: HubServer, tmp_path: Path):
    ours, theirs = folder_of(tmp_path / "ours", shards=3), folder_of(tmp_path / "theirs", shards=2, seed=5)
    overtaken = []

    def overtake_once(line: str) -> None:
        if "committing" in line and not overtaken:
            overtaken.append(line)
            hub_for(server).publish("x", theirs, quiet)

    hub_for(server).publish("x", ours, overtake_once)
    assert overtaken
    assert published(server) == contents(ours)
    assert len(server.commits("lab/x")) == 2


def test_two_publishers_at_once_leave_one_complete_version_each(server: HubServer, tmp_path: Path):
    folders = [folder_of(tmp_path / str(k), shards=4, seed=k) for k in range(2)]
    start = threading.Barrier(2)

    def publish(folder: Path) -> None:
        start.wait()
        hub_for(server, plans=10).publish("x", folder, quiet)

    threads = [threading.Thread(target=publish, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [contents(folder) for folder in folders]
    versions = [published(server, revision=commit.oid) for commit in server.commits("lab/x")]
    assert sorted(versions, key=str) == sorted(wanted, key=str)


def test_a_repository_that_never_stays_still_is_a_conflict(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=1)
    others = iter(range(1, 100))

    def always_overtake(line: str) -> None:
        if "committing" in line:
            hub_for(server).publish("x", folder_of(tmp_path / "o", shards=1, seed=next(others)), quiet)

    with pytest.raises(HubConflict, match="lab/x changed while it was published"):
        hub_for(server, plans=3).publish("x", folder, always_overtake)
    assert next(others) == 4


def test_a_lost_tag_is_made_by_the_next_publication(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=1)
    first = hub_for(server).publish("x", folder, quiet)
    server.store.repository("lab/x").tags.clear()
    again = hub_for(server).publish("x", folder, quiet)
    assert not again.changed
    assert published(server, revision=again.version) == contents(folder)
    assert again.version == first.version


def test_large_files_are_sent_in_parts(tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=2, size=50_000)
    with HubServer(tmp_path / "server", part_bytes=20_000) as server:
        publication = hub_for(server).publish("x", folder, quiet)
        assert len(server.requests("PUT", "/lfs/part/")) == 6
        assert published(server) == contents(folder)
        assert publication.bytes_sent == server.received["lfs"] + len(CARD)


def test_xet_is_used_exactly_where_the_server_has_it(server: HubServer, tmp_path: Path):
    hub_for(server).publish("x", folder_of(tmp_path / "x", shards=1), quiet)
    xet = server.requests("GET", "xet-write-token")[0][2] == 200
    assert bool(server.requests("POST", "/v1/xorbs/")) == xet
    assert bool(server.requests("PUT", "/lfs/put/")) != xet


def test_a_private_hub_creates_private_repositories_and_sends_nothing_to_public_ones(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=1)
    hub_for(server, private=True).publish("closed", folder, quiet)
    assert server.store.repository("lab/closed").private
    server.store.create("lab/open", private=False)
    server.received.clear()
    with pytest.raises(HubError, match="lab/open is public, and NEURALPILE_PRIVATE is set"):
        hub_for(server, private=True).publish("open", folder, quiet)
    assert not server.received


def test_a_token_that_may_not_write_is_named_as_the_reason(server: HubServer, tmp_path: Path):
    with pytest.raises(HubError, match=r"status 401.*HF_TOKEN"):
        hub_for(server, token="hf_of_somebody_else").publish("x", folder_of(tmp_path / "x", shards=1), quiet)
    assert "lab/x" not in server.store.repositories


@pytest.mark.parametrize(
    ("license", "reason"),
    [
        ("[", "Invalid YAML"),
        ("CC-BY-4.0", '"license" must be one of'),
        ("[mit, mine]", '"license" must be one of'),
        ("other", "license_name"),
    ],
)
def test_a_card_that_the_hub_refuses_is_an_error_before_anything_is_visible(
    server: HubServer, tmp_path: Path, license: str, reason: str
):
    folder = folder_of(tmp_path / "x", shards=1, card=f"---\nlicense: {license}\n---\n")
    with pytest.raises(HubError, match=rf"(?s)lab/x: the Hub refused while.*{reason}"):
        hub_for(server).publish("x", folder, quiet)
    assert server.commits("lab/x") == []


def test_files_that_the_hub_leaves_out_of_a_commit_are_noticed(server: HubServer, tmp_path: Path):
    repository = server.store.create("lab/x", private=False)
    rules = server.store.add_blob(b"data/train-00000-00000000.parquet")
    server.store.commit(repository, "main", "ignore", None, {".gitignore": rules})
    with pytest.raises(HubError, match=r"differs from the files sent.*train-00000-00000000\.parquet"):
        hub_for(server).publish("x", folder_of(tmp_path / "x", shards=2), quiet)


def test_configuration_comes_from_the_environment():
    hub = HuggingFaceHub.from_environment("lab", {"HF_ENDPOINT": "http://127.0.0.1:9/", "HF_TOKEN": "hf_a"})
    assert repr(hub) == "HuggingFaceHub('lab', 'http://127.0.0.1:9', private=False)"
    assert "private=True" in repr(HuggingFaceHub.from_environment("lab", {"NEURALPILE_PRIVATE": "1"}))
    with pytest.raises(ConfigurationError, match="NEURALPILE_PRIVATE"):
        HuggingFaceHub.from_environment("lab", {"NEURALPILE_PRIVATE": "perhaps"})
