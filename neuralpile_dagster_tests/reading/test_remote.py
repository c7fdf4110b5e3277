"""The same reading from the Hugging Face Hub, at one commit, and from S3: by ranges, several at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.errors import DocumentError, HubError, HubUnavailable, StoreError
from neuralpile_dagster.hub.huggingface.client import HUB_POLICY
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.motifs.records import MotifShape
from neuralpile_dagster.progress import _Warner
from neuralpile_dagster.reading import Pile, Windows, open_tokenizer
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster_tests.fixtures.huggingface import CARD, hub_for, quiet
from neuralpile_dagster_tests.fixtures.published import publish
from neuralpile_dagster_tests.fixtures.tokens import bursty_counts, counted, put_vocabulary
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.s3 import S3Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pile") / "neural-pile"
    publish(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return list(Pile.open(folder).rows())


@pytest.fixture(scope="module")
def shared_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("server")) as server:
        hub_for(server).publish("neural-pile", folder, quiet)
        yield server


@pytest.fixture
def server(shared_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setenv("HF_ENDPOINT", shared_server.url)
    monkeypatch.setenv("HF_TOKEN", shared_server.token)
    shared_server.log.clear()
    return shared_server


@pytest.fixture
def in_bucket(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    s3.use(monkeypatch)
    bucket = s3.new_bucket()
    for path in folder.rglob("*.*"):
        s3.client.upload_file(str(path), bucket, f"lab/neural-pile/{path.relative_to(folder)}")
    return f"s3://{bucket}/lab/neural-pile"


def assert_same_windows(remote: Pile, folder: Path) -> None:
    local = Pile.open(folder)
    assert remote.segments.equals(local.segments)
    assert remote.units.equals(local.units)
    for found, expected in zip(
        *(Windows(pile, 25, batch_by="padded", split=None) for pile in (remote, local)), strict=True
    ):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_repository_of_the_hub_gives_the_same_batches(server: HubServer, folder: Path):
    with Pile.open("lab/neural-pile") as pile:
        assert (pile.name, pile.revision) == ("neural-pile", server.commits("lab/neural-pile")[0].oid)
        assert_same_windows(pickle.loads(pickle.dumps(pile)), folder)


def test_reading_keeps_to_the_commit_that_was_opened(server: HubServer, folder: Path, rows: list[Row], tmp_path: Path):
    pile = Pile.open("hf://datasets/lab/neural-pile")
    publish(tmp_path / "next", n_test=3)
    (tmp_path / "next/README.md").write_text(CARD)
    hub_for(server).publish("neural-pile", tmp_path / "next", quiet)
    np.testing.assert_array_equal(pile.counts(1), rows[1].counts)
    assert Pile.open("lab/neural-pile").segments["split"].to_pylist().count("test") == 3
    for old in (Pile.open("lab/neural-pile", pile.revision), Pile.open(f"lab/neural-pile@{pile.revision}")):
        assert old.segments.equals(pile.segments)
    hub_for(server).publish("neural-pile", folder, quiet)


def test_a_window_costs_its_row_and_not_its_file(server: HubServer, rows: list[Row]):
    pile = Pile.open("lab/neural-pile")
    packed = [k for k, row in enumerate(rows) if row.source_dataset == "mice"]
    largest = max(packed, key=lambda k: pile.segments["bytes"][k].as_py())
    server.log.clear()
    np.testing.assert_array_equal(pile.window(largest, 3, 20), rows[largest].counts[:, 3:23])
    ((*_, size),) = server.requests("GET", "/lfs/get/")
    assert size == pile.segments["bytes"][largest].as_py()


def test_the_rows_of_a_round_are_fetched_together(server: HubServer, monkeypatch: pytest.MonkeyPatch):
    fetched: list[list[int]] = []

    def noted(self: Pile, rows: list[int], packed: Any = Pile.packed_rows) -> Any:
        fetched.append(rows)
        return packed(self, rows)

    monkeypatch.setattr(Pile, "packed_rows", noted)
    for _ in Windows(Pile.open("lab/neural-pile"), 25, buffer_rows=8, lanes=2):
        pass
    assert max(map(len, fetched)) == 4


def test_a_cache_holds_the_files_that_were_read(
    server: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    first = Pile.open("lab/neural-pile", cache=True)
    assert_same_windows(first, folder)
    server.log.clear()
    again = Pile.open("lab/neural-pile", first.revision, cache=True)
    before = len(server.requests("GET", "/lfs/get/"))
    np.testing.assert_array_equal(again.counts(1), first.counts(1))
    assert len(server.requests("GET", "/lfs/get/")) == before


@pytest.mark.usefixtures("server")
def test_a_repository_or_revision_that_is_not_there_is_refused():
    for name, revision in (("lab/nothing", None), ("lab/neural-pile", "v9")):
        with pytest.raises(HubError, match=r"looking up revision (main|v9).*404"):
            Pile.open(name, revision)


def test_a_hub_that_is_away_is_named_at_once_and_in_the_end_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("neuralpile_dagster.progress._WARNER", _Warner())
    monkeypatch.setattr("neuralpile_dagster.hub.huggingface.HUB_POLICY", replace(HUB_POLICY, attempts=2))
    with pytest.raises(HubUnavailable, match="check this machine's network") as caught:
        Pile.open("lab/neural-pile")
    (line,) = [record.message for record in caplog.records if "trying again" in record.message]
    for text in (line, str(caught.value)):
        assert "GET http://127.0.0.1:9/api/datasets/lab/neural-pile/revision/main" in text
        assert "Connection refused" in text
    assert "(attempt 2 of 2)" in line


def test_a_folder_on_s3_gives_the_same_batches(in_bucket: str, folder: Path):
    with Pile.open(in_bucket + "/") as pile:
        assert (pile.name, pile.place, pile.revision) == ("neural-pile", in_bucket, None)
        assert_same_windows(pickle.loads(pickle.dumps(pile)), folder)


def test_what_s3_lacks_is_refused(in_bucket: str):
    with pytest.raises(HubError, match="has no revisions"):
        Pile.open(in_bucket, "main")
    with pytest.raises(StoreError, match=r"^s3://x!/y is not a location on S3"):
        Pile.open("s3://x!/y")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of published tokens, without its rows."""
    store, shape = LocalStore(tmp_path_factory.mktemp("tokens")), MotifShape(1, 5)
    put_vocabulary(store, counted([bursty_counts(9, 400)], shape), shape, 40)
    folder = store.root / "1x5/vocabulary"
    (folder / "README.md").write_text(CARD)
    return folder


def test_a_tokenizer_is_opened_wherever_it_is_published(
    tokens: Path, server: HubServer, s3: S3Server, monkeypatch: pytest.MonkeyPatch
):
    hub_for(server).publish("neural-pile-1x5", tokens, quiet)
    s3.use(monkeypatch)
    bucket = s3.new_bucket()
    for path in tokens.iterdir():
        s3.client.upload_file(str(path), bucket, f"tokens/{path.name}")
    local = open_tokenizer(tokens)
    assert local.size == 40
    for place in ("lab/neural-pile-1x5", f"s3://{bucket}/tokens"):
        opened = open_tokenizer(place)
        assert opened.vocabulary.document == local.vocabulary.document
        np.testing.assert_array_equal(opened.motifs, local.motifs)


def test_a_damaged_tokenizer_of_a_local_hub_is_noticed(tokens: Path, tmp_path: Path) -> None:
    hub = LocalHub(tmp_path, "local")
    hub.publish("tokens", tokens, quiet)
    assert open_tokenizer(hub.path("tokens")).size == 40
    document = hub.path("tokens").resolve() / "tokenizer.json"
    text = document.read_text()
    document.write_text(text.replace('"plan_id":"', '"plan_id":"x').replace('"plan_id": "', '"plan_id": "x'))
    assert document.read_text() != text
    with pytest.raises(DocumentError, match=r"tokenizer\.json is damaged; found: sha256 .*; expected: "):
        open_tokenizer(hub.path("tokens"))
    (document.parent.with_name(f"{document.parent.name}.json")).unlink()
    assert open_tokenizer(hub.path("tokens")).size == 40, "where the hub lost its list, nothing is known"


def test_a_dataset_without_a_tokenizer_says_so(folder: Path, server: HubServer, in_bucket: str):
    for place in (folder, "lab/neural-pile", in_bucket):
        with pytest.raises(
            HubError, match=r"neural-pile.* is no tokenized pile; found: no tokenizer\.json; .*-1x15-32k"
        ):
            open_tokenizer(place)
    with pytest.raises(HubError, match=r"README\.md is no tokenized pile; found: a file"):
        open_tokenizer(folder / "README.md")
