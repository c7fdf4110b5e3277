"""Fixtures that any test may use."""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy machine", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")  # no test fails because of the time that something took

if TYPE_CHECKING:
    from neuralpile_dagster.store.s3 import S3Store
    from neuralpile_dagster_tests.fixtures.cases import Case
    from neuralpile_dagster_tests.servers.s3 import S3Server


def pytest_configure(config: pytest.Config) -> None:
    """Start what all processes of the run share, in the one from which the others are started."""
    if not hasattr(config, "workerinput"):
        from neuralpile_dagster_tests.fixtures.commands import fork_servers
        from neuralpile_dagster_tests.fixtures.once import shared_folder

        shared = ExitStack()
        shared.enter_context(shared_folder())
        shared.enter_context(fork_servers())
        if set(getattr(config.option, "tx", None) or ()) == {"popen"}:
            python = shlex.join([sys.executable, str(Path(__file__).parent / "fixtures" / "worker.py")])
            config.option.tx = [f"popen//python={python}"] * len(config.option.tx)
        config.add_cleanup(shared.close)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which commands were no forks: once all of the doctor's were none, and tests took minutes longer."""
    from neuralpile_dagster_tests.fixtures.commands import declined

    for reason, times in declined().most_common(5):
        terminalreporter.write_line(f"{times} commands were started anew instead of forked ({reason} differs)")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Distribute by test (``--dist loadgroup``), but keep together the tests of a file that share what it builds."""
    if isinstance(item, pytest.Function) and _shared_fixtures(item):
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _shared_fixtures(item: pytest.Function) -> set[str]:
    """The fixtures of a test that live as long as its file, and those of a session that cost more than a moment."""
    known = item._fixtureinfo.name2fixturedefs
    return {name for name, found in known.items() if found[-1].scope == "module" or name in COSTLY}


COSTLY = ("s3", "places")
"""Fixtures of a session that start a server or build a home: each worker that runs a test of theirs makes its own."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files marked ``slow_first`` begin first, then those that one worker runs whole, and single tests last.

    Begun last, a file would keep one worker busy after all others ended.
    """
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("slow_first", "xdist_group")])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out the tests marked ``asked_for``, unless somebody asks."""
    if item.get_closest_marker("asked_for") and not os.environ.get("NEURALPILE_TEST_ALL"):
        pytest.skip("these tests take minutes: set NEURALPILE_TEST_ALL=1 to run them too")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without the garbage collector: it walks through all that the imports make, again and again."""
    gc.disable()
    try:
        _import_in_turn(session.config)
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)  # searched as often as by default, the tests took 7% more


def _import_in_turn(config: pytest.Config) -> None:
    """Import all test files, each worker beginning at another one.

    In a clean checkout pytest rewrites and caches each file that it imports: in step, all workers would do all of it.
    """
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None or config.args != config.getini("testpaths"):
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    begin = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for file in (*files[begin:], *files[:begin]):
        with suppress(Exception, pytest.skip.Exception):  # pytest itself reports what cannot be imported
            importlib.import_module(".".join(file.relative_to(config.rootpath).with_suffix("").parts))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where groups are marked and not kept, as by pytest-xdist 3.8 with pytest 9.2: twice the time, silently."""
    marked = [item for item in session.items if item.get_closest_marker("xdist_group") and _shared_fixtures(item)]
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in marked):
        raise pytest.UsageError("this pytest-xdist does not group tests with this pytest: install constraints.txt")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and archive listings; skips where it is absent."""
    folder = Path(os.environ.get("NEURALPILE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"shared data are not at {folder} (set NEURALPILE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 API over HTTP; each test makes a bucket of its own and calls ``s3.use``."""
    from neuralpile_dagster_tests.servers.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3_store(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty store on ``s3``, which is less patient with it than with Amazon's."""
    from neuralpile_dagster.net.retry import RetryPolicy
    from neuralpile_dagster.store.s3 import S3Store

    s3.use(monkeypatch)
    return S3Store(s3.new_bucket(), "pre/fix", RetryPolicy(connect_timeout_s=10, read_timeout_s=30, attempts=3))


@pytest.fixture
def case(tmp_path: Path, shared_data: Path) -> Case:
    """Makes a recording of a public bug report by its name."""
    from neuralpile_dagster_tests.fixtures.cases import cases_in

    return cases_in(tmp_path, shared_data)
