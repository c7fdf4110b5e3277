"""Fixtures of the tests of archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster import progress
from neuralpile_dagster_tests.fixtures.archives import local_counts, serve_session, write_session
from neuralpile_dagster_tests.fixtures.bucket import Bucket
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.http import Server


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "file.h5")


@pytest.fixture
def bucket_server(bucket: Bucket) -> Iterator[Server]:
    with Server(bucket) as bucket_server:
        yield bucket_server


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait for a server is told, however short."""
    monkeypatch.setattr(progress, "WARN_FROM_S", 0.0)
    monkeypatch.setattr(progress, "WARN_EVERY_S", 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "archive" / "000017").mkdir(parents=True)
    return tmp_path / "archive"


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "000017"


@pytest.fixture
def server() -> Iterator[DandiServer]:
    with dandi_server() as server:
        yield server


@pytest.fixture
def served(session: Path) -> Iterator[DandiServer]:
    """A server with `session` as the only file of `SOURCE`."""
    with dandi_server() as server:
        serve_session(server, session)
        yield server


@pytest.fixture(scope="module")
def right(session: Path) -> np.ndarray:
    """Counts of `session`, read from the local file."""
    return local_counts(session)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_session(tmp_path_factory.mktemp("session") / "session.nwb")
