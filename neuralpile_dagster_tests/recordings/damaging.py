"""What the tests of damaged and hostile recordings share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import Recording
from neuralpile_dagster.recordings.readers import read_session
from neuralpile_dagster_tests.nwb import poisson_trains

TRAINS = poisson_trains(4, 20)


def read(*paths: Path) -> Recording:
    return read_session("units", [LocalFile(path.name, path) for path in paths])


def create(path: Path, make: Callable[[h5py.Group], object]) -> Path:
    """Change the units table of a file with h5py."""
    with h5py.File(path, "r+") as file:
        make(file["units"])
    return path


@contextmanager
def within(n_bytes: int) -> Iterator[None]:
    """Fail when more memory is taken inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()
