"""The garbage collector of our own processes: searched less often, and not at exit."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from neuralpile_dagster import process
from neuralpile_dagster.cli import main

PYTHONS = (700, 10, 10)


@pytest.fixture(autouse=True)
def _as_python_has_it() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*PYTHONS)
    yield
    gc.set_threshold(*before)


def test_less_is_searched_and_nothing_at_exit() -> None:
    before = atexit._ncallbacks()
    process.relax_collector()
    assert gc.get_threshold() == (process.YOUNG_OBJECTS, *PYTHONS[1:])
    assert atexit._ncallbacks() == before + 1


def test_every_command_relaxes_the_collector(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["bin", str(tmp_path / "missing.nwb"), "-o", str(tmp_path / "out.parquet")])
    assert gc.get_threshold()[0] == process.YOUNG_OBJECTS
    assert gc.isenabled()
