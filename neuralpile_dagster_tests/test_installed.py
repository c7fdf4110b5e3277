"""The wheel, installed into an empty environment and used from an empty folder, as people use it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster_tests.fixtures.once import put_sample, quick_folder
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

pytestmark = pytest.mark.slow_first
ROOT = Path(__file__).parents[1]
PACKAGE = "neuralpile_dagster"
PATIENCE_S = 240


@pytest.fixture(scope="module")
def source_files() -> list[str]:
    """What a commit of this checkout would hold, uncommitted files included."""
    if shutil.which("git") is None:
        pytest.skip("git, which lists the files of the source, is not installed")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git does not list the files of the source: {listed.stderr.strip()}")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(source_files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the source, so that nothing is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in source_files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    (built,) = target.glob("*.whl")
    return built


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    variables = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # holds no installed package
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class User:
    """Somebody with a fresh environment, an empty home and an empty working folder; and nothing else set."""

    environment: Path
    home: Path
    work: Path

    @property
    def variables(self) -> dict[str, str]:
        path = f"{self.environment / 'bin'}{os.pathsep}{os.defpath}"
        return {"PATH": path, "HOME": str(self.home), "TMPDIR": str(self.home)}  # a killed UI leaves a file there

    def run(self, *command: str, **variables: str) -> str:
        """Run a command that must succeed, in a process of its own; give its standard output."""
        program = self.environment / "bin" / command[0]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=self.work,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """The wheel is installed by pip; a path file lends it the dependencies of the interpreter that runs the tests.

    The folder in a path file comes after the environment's own, and path files *in* that folder are not read, so an
    editable installation there is out of reach.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = str(environment / "bin" / "python")
    pip("--python", python, "install", "--no-deps", "--no-index", str(wheel))
    where = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", vars=where))
    lent = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("".join(f"{folder}\n" for folder in lent))
    with quick_folder() as folder:
        made = User(environment, folder / "home", folder / "work")
        made.home.mkdir()
        made.work.mkdir()
        yield made


@dataclass(frozen=True)
class Demo:
    """A running `neuralpile demo` and the settings of its home."""

    process: subprocess.Popen[bytes]
    settings: dict[str, str]


@pytest.fixture(scope="module")
def demo(user: User) -> Iterator[Demo]:
    """`neuralpile demo`, the README's first command, has built its pile and serves its UI."""
    marker = str(uuid.uuid4())  # children inherit it, whatever group or session they begin
    port = free_port()
    home = user.home / ".neuralpile-demo"
    put_sample(home)
    log = user.home / "demo.log"
    with log.open("w") as output:
        command = [user.environment / "bin" / "neuralpile", "demo", "--port", str(port)]
        variables = {**user.variables, "MARKER": marker}
        process = subprocess.Popen(
            command, cwd=user.work, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        assert answers(port), log.read_text()
        assert "local/neural-pile: " in log.read_text()
        yield Demo(process, {"NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": "sample", "MARKER": marker})
    finally:
        for left in marked(marker):
            left.kill()
        process.wait()


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(source_files: list[str], wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in source_files if name.startswith(f"{PACKAGE}/")}
    assert f"{PACKAGE}/orchestration/dagster.yaml" in packed


def test_the_package_that_runs_is_the_installed_one(user: User) -> None:
    program = f"import {PACKAGE}, importlib.util as u; print({PACKAGE}.__file__, u.find_spec('{PACKAGE}_tests'))"
    file, tests = user.run("python", "-c", program).split()
    assert Path(file).is_relative_to(user.environment)
    assert tests == "None"


def test_help_lists_the_commands(user: User) -> None:
    told = user.run("neuralpile", "--help")
    assert told.startswith("Usage: neuralpile ")
    assert all(f"\n  {command} " in told for command in ("demo", "build", "status", "bin", "ui"))


def test_the_demo_builds_the_pile_which_status_then_shows(user: User, demo: Demo) -> None:
    lines = user.run("neuralpile", "status", **demo.settings).splitlines()
    (pile,) = [line for line in lines if line.startswith("neural-pile: ")]
    assert pile.endswith("; up to date")


def test_bin_writes_the_rows_of_a_recording(user: User) -> None:
    recording = write_units_nwb(user.home / "my.nwb", poisson_trains(5, 10.0))
    told = user.run("neuralpile", "bin", str(recording), "-o", str(user.home / "my.parquet"))
    assert "5 units x " in told
    rows = pq.read_table(user.home / "my.parquet")["spike_counts"].to_pylist()
    assert [len(row) for row in rows] == [5]


def test_the_ui_serves_until_it_is_killed_and_then_its_servers_stop_too(demo: Demo) -> None:
    marker = demo.settings["MARKER"]
    assert len(marked(marker)) > 1
    demo.process.kill()
    demo.process.wait()
    wait_until(lambda: not marked(marker))


def test_no_command_leaves_anything_in_the_working_folder(user: User) -> None:
    assert list(user.work.iterdir()) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=10) as response:
            return b"dagster_version" in response.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def marked(marker: str) -> list[psutil.Process]:
    """The living processes that have ``marker`` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MARKER") == marker:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S} s"
        time.sleep(0.5)
