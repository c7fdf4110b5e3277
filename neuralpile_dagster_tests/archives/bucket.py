"""One HDF5 file on a server, read by ranges and compared with what h5py reads from the local file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hdf5.ranged.file import RangedFile, open_ranged
from neuralpile_dagster.net.connections import Connections
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster_tests.archives.serving import QUICK
from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response

TIMES = np.sort(np.random.default_rng(1).uniform(0, 4000, 200_003)).round(5)
Write = Callable[[h5py.File], Any]


class Bucket:
    """Serves one file as S3 does, or with other manners where a test changes its attributes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.etag: str | None = "v1"
        self.obeys_if_match = True
        self.change: Callable[[Response], Response] = lambda response: response

    def __call__(self, request: Request) -> Response:
        if not self.obeys_if_match:
            request = replace(request, headers={k: v for k, v in request.headers.items() if k != "if-match"})
        return self.change(file_response(request, self.path, self.etag or "none"))


@contextmanager
def ranged(
    server: Server, size: int | None = None, connections: int = 4, limits: RetryPolicy = QUICK
) -> Iterator[RangedFile]:
    path = server.application.path  # type: ignore[attr-defined]
    size = path.stat().st_size if size is None else size
    remote = RemoteObject(
        "file.h5", size, f"{server.url}/file.h5", lambda: f"{server.url}/new", Connections(connections, limits)
    )
    with open_ranged(remote, lambda: path, connections=connections) as opened:
        yield opened


def write(path: Path, make: Write, **file: Any) -> None:
    with h5py.File(path, "w", **file) as target:
        make(target)


def read(server: Server, name: str = "x", **options: Any) -> tuple[np.ndarray, ReadCost]:
    with ranged(server, **options) as opened, opened.hdf5() as file:
        return opened.read(file[name]), opened.cost


def assert_same(server: Server, name: str = "x") -> ReadCost:
    """Read remotely and locally, compare bytes, shape and dtype."""
    found, cost = read(server, name)
    with h5py.File(server.application.path, "r") as file:  # type: ignore[attr-defined]
        expected = file[name][()]
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if isinstance(found, h5py.Empty):
        return cost
    if found.dtype.kind == "O":
        assert list(found) == list(expected)
    else:
        assert found.tobytes() == expected.tobytes()  # NaN is equal to itself here
    return cost


def dataset(**options: Any) -> Write:
    """Write dataset ``x`` with these options of h5py, by default with `TIMES`."""
    return lambda file: file.create_dataset("x", **({"data": TIMES} | options))
