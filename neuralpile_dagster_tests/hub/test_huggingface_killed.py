"""A publisher is killed (-9) at a bad moment; the next one finishes, and sends only what is missing."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster_tests.fixtures.commands import Started, start
from neuralpile_dagster_tests.fixtures.huggingface import contents, folder_of, hub_for, published, quiet
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.hf_hub import HubServer

PUBLISHER = """
import sys
from pathlib import Path
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
HuggingFaceHub("lab", batch_bytes=130_000, xet_batch_bytes=130_000).publish("x", Path(sys.argv[1]))
"""


@pytest.fixture(params=["lfs", "xet"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    with HubServer(tmp_path / "server", xet=request.param == "xet") as server:
        yield server


def publisher(server: HubServer, folder: Path) -> Started:
    """Start a publisher in a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": server.token}
    with Path(os.devnull).open("wb") as nothing:
        return start([sys.executable, "-c", PUBLISHER, str(folder)], environment, folder, nothing, nothing)


def publish_and_kill(server: HubServer, folder: Path, moment: Fault) -> None:
    """Start a publisher in a process of its own and kill it while it waits for the answer to ``moment``."""
    server.faults.add(moment)
    process = publisher(server, folder)
    try:
        while not server.faults.struck:
            assert process.poll() is None, "the publisher ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    server.faults.clear()


def test_a_publisher_killed_while_sending_is_finished_by_the_next(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=6, size=60_000)
    # after three files of Git LFS; after the first batch, of two files, of Xet
    publish_and_kill(server, folder, Fault("hang", path=r"/objects/verify|/v1/shards", skip=1 if server.xet else 3))
    assert server.commits("lab/x") == []
    before = Counter(server.received)
    publisher(server, folder).wait()
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)
    sent_again = server.received - before
    assert sent_again["lfs"] <= 3 * 60_000
    assert sent_again["xorb"] < 4.1 * 60_000


@pytest.mark.parametrize("landed", [False, True])
def test_a_publisher_killed_while_committing_is_finished_without_sending_again(
    server: HubServer, tmp_path: Path, landed: bool
):
    folder = folder_of(tmp_path / "x", shards=3, size=60_000)
    publish_and_kill(server, folder, Fault("hang", path="/commit/main", after_serving=landed))
    assert len(server.commits("lab/x")) == landed
    server.received.clear()
    publication = hub_for(server).publish("x", folder, quiet)
    assert publication.changed != landed
    assert server.received["lfs"] == server.received["xorb"] == 0
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder) == published(server, revision=publication.version)


def test_what_a_killed_publisher_left_open_is_closed(server: HubServer, tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=120, size=100)
    publish_and_kill(server, folder, Fault("hang", path="/commit/refs"))
    assert server.commits("lab/x") == []
    hub_for(server).publish("x", folder, quiet)
    assert len(server.commits("lab/x")) == 1
    assert published(server) == contents(folder)
    assert sorted(pull.status for pull in server.store.repository("lab/x").pulls.values()) == ["closed", "merged"]
