"""Reading files of a repository back, by ranges, through trouble."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import HubError, HubUnavailable
from neuralpile_dagster.hub import list_folder
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.hub.huggingface.read import HubFile
from neuralpile_dagster.tables.rows import RowWriter
from neuralpile_dagster_tests.fixtures.huggingface import CARD, contents, folder_of, hub_for, quiet
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.http import Application, Request, Response, Server

SHARD = "data/train-00000-00000000.parquet"
SIZE = 700_000  # more than the read-ahead
HOSTS = {"hub": "/resolve/", "storage": "/lfs/get/"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("x"), shards=1, size=SIZE)


@pytest.fixture(scope="module")
def shared_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("server"), page=1) as server:
        hub_for(server).publish("x", folder, quiet)
        yield server


@pytest.fixture
def server(shared_server: HubServer) -> HubServer:
    shared_server.faults.clear()
    shared_server.faults.struck.clear()
    shared_server.log.clear()
    return shared_server


def test_files_are_listed_with_their_digests_in_path_order(server: HubServer, folder: Path):
    assert hub_for(server).files("x") == list_folder(folder)


def test_a_repository_of_somebody_else_is_read_by_its_full_name(server: HubServer, folder: Path):
    reader = HuggingFaceHub("another-lab", server.url)
    assert reader.files("lab/x") == list_folder(folder)
    with reader.open("lab/x", "README.md") as file:
        assert file.read() == CARD.encode()
    assert reader.files("x") == ()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, SIZE + 10), st.integers(0, SIZE)), max_size=5))
def test_any_range_is_read_exactly(server: HubServer, folder: Path, ranges: list[tuple[int, int]]):
    wanted = contents(folder)[SHARD]
    with hub_for(server).open("x", SHARD) as file:
        for start, length in ranges:
            assert file.seek(start) == start
            assert file.read(length) == wanted[start : start + length]


def test_a_footer_costs_a_few_small_requests(server: HubServer):
    with hub_for(server).open("x", SHARD) as file:
        file.seek(-8, 2)
        file.read(8)
        file.seek(-5_000, 2)
        file.read(4_992)
    reads = server.requests("GET", "/lfs/get/")
    assert 1 <= len(reads) <= 2
    assert sum(size for *_, size in reads) <= 10_000


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503, retry_after=0),
        status(429, retry_after=0),
        Fault("reset"),
        Fault("hang"),
        Fault("reset_mid_body"),
        Fault("hang_mid_body"),
        Fault("short_body"),
        Fault("short_unmarked"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
@pytest.mark.parametrize("host", HOSTS)
def test_reading_survives_trouble(server: HubServer, folder: Path, host: str, fault: Fault):
    server.faults.add(Fault(fault.kind, "GET", HOSTS[host], status=fault.status, headers=fault.headers))
    with hub_for(server).open("x", SHARD) as file:
        assert file.read() == contents(folder)[SHARD]
    assert len(server.faults.struck) == 1


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        *[("hub", kind) for kind in ("status", "reset", "short_body", "reset_mid_body")],
        *[("storage", kind) for kind in ("status", "reset", "short_body", "short_unmarked", "reset_mid_body")],
    ],
)
def test_trouble_that_stays_is_a_clear_error(server: HubServer, host: str, kind: str):
    server.faults.add(Fault(kind, "GET", HOSTS[host], times=1000))  # type: ignore[arg-type]
    with hub_for(server).open("x", SHARD) as file, pytest.raises(HubUnavailable, match="again later"):
        file.read()


@pytest.mark.parametrize("path", [SHARD, "README.md"])
def test_the_token_goes_to_the_hub_and_not_to_its_storage(server: HubServer, folder: Path, path: str):
    seen: list[tuple[str, str | None]] = []
    for host in (server, server.storage):
        answer = host.application

        def watch(request: Request, host: Server = host, answer: Application = answer) -> Response:
            seen.append((host.url, request.headers.get("authorization")))
            return answer(request)

        host.application = watch
    with hub_for(server).open("x", path) as file:
        assert file.read() == contents(folder)[path]
    tokens = {url: {token for at, token in seen if at == url} for url, _ in seen}
    assert tokens.pop(server.url) == {f"Bearer {server.token}"}
    assert tokens == ({server.storage.url: {None}} if path == SHARD else {})


def test_a_file_that_is_not_there_is_an_error(server: HubServer):
    with (
        pytest.raises(HubError, match=r"lab/x has no file data/other.parquet"),
        hub_for(server).open("x", "data/other.parquet"),
    ):
        pass
    with pytest.raises(HubError, match="lab/nothing"), hub_for(server).open("nothing", "README.md"):
        pass


def test_a_private_repository_is_not_read_without_its_token(tmp_path: Path, folder: Path):
    with HubServer(tmp_path / "server") as server:
        hub_for(server, private=True).publish("x", folder, quiet)
        assert hub_for(server).files("x") == list_folder(folder)
        assert hub_for(server, token="hf_other").files("x") == ()


def test_a_file_is_read_whole_by_one_request(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[tuple[int, int]] = []

    def noted(self: HubFile, start: int, target: memoryview, fill: Any = HubFile.fill) -> int:
        ranges.append((start, len(target)))
        return int(fill(self, start, target))

    monkeypatch.setattr(HubFile, "fill", noted)
    with hub_for(server).open("x", SHARD) as file:
        file.seek(10)
        assert file.read() == contents(folder)[SHARD][10:]
    assert ranges == [(10, SIZE - 10)]


def test_what_is_open_stays_the_version_that_was_opened(tmp_path: Path):
    folder = folder_of(tmp_path / "x", shards=1, size=SIZE)
    before = contents(folder)[SHARD]
    with HubServer(tmp_path / "server") as server:
        hub_for(server).publish("x", folder, quiet)
        with hub_for(server).open("x", SHARD) as file:
            head = file.read(1000)
            (folder / SHARD).write_bytes(random.Random(5).randbytes(SIZE))
            hub_for(server).publish("x", folder, quiet)
            assert head + file.read() == before


def test_parquet_is_read_through_it_row_by_row(tmp_path: Path):
    counts = [np.random.default_rng(k).poisson(0.2, (20, 3000)).astype(np.uint8) for k in range(3)]
    (tmp_path / "x" / "data").mkdir(parents=True)
    with RowWriter(tmp_path / "x" / "data" / "train-0.parquet") as writer:
        for k, matrix in enumerate(counts):
            writer.write(matrix, "sub-1", "ses-1", f"segment_{k}")
    with HubServer(tmp_path / "server") as server:
        hub_for(server).publish("x", tmp_path / "x", quiet)
        with hub_for(server).open("x", "data/train-0.parquet") as file:
            parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"))
            row = parquet.read_row_group(1)["spike_counts"][0].as_py()
    assert np.array_equal(np.array(row, np.uint8), counts[1])
