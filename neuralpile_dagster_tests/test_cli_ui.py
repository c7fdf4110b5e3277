"""`neuralpile ui` and its processes: one for each home, and none is left however it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from neuralpile_dagster.orchestration import serving
from neuralpile_dagster_tests.fixtures import commands
from neuralpile_dagster_tests.fixtures.commands import Started
from neuralpile_dagster_tests.fixtures.house import FILES, instance_of, neuralpile, quick_folder, write_mice
from neuralpile_dagster_tests.fixtures.ui import ask, environment, free_port, processes, server, wait_until_served

pytestmark = [pytest.mark.slow_first, pytest.mark.timeout(400)]
CATALOG = """\
datasets:
  - name: tiny-mice
    title: Tiny synthetic mice, made for tests
    source: {archive: dandi, id: "990100", version: draft}
"""
SERVERS = ("dagster_webserver", "dagster._daemon", "code-server", "grpc")
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""
NOHUP = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
"""
"""What the command inherits where a script has `nohup neuralpile ui &`."""
TAKE_TERMINAL = """
import fcntl, os, signal, termios
os.setsid()
os.dup2(os.open(terminal, os.O_RDWR), 0)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
"""Make a terminal standard input and that of a new session."""
PATIENCE_S = 120.0


@dataclass
class Ui:
    """A `neuralpile ui` that was started."""

    home: Path
    port: int
    process: Started
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def server(self, name: str) -> psutil.Process:
        """The server with this word in its command line."""
        return server(self.home, name)

    def list_mice(self) -> str:
        """Launch a run that materializes the manifest of ``tiny-mice``; return its id when it is under way."""
        selector = {
            "repositoryLocationName": "neuralpile_dagster.definitions",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["tiny_mice", "manifest"]}],
            "assetCheckSelection": [],
        }
        launched = ask(self.address, LAUNCH, params={"selector": selector, "mode": "default"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]
        wait_for(lambda: (self.home / "runs" / f"{run_id}.lock").exists(), "the run to start")
        return str(run_id)


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that only waits to be collected by its parent has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.1)


@contextmanager
def new_home() -> Iterator[Path]:
    """A home, of which every process is killed at the end."""
    with quick_folder() as place:
        yield place
        for process in processes(place):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def handled(kind: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(kind, handler)
    try:
        yield
    finally:
        signal.signal(kind, before)


def start(home: Path, archive: str, before: str, **variables: str) -> Ui:
    """Fork ``neuralpile ui``, which runs some code ``before``, and wait until its code location is loaded."""
    log = home / "ui.log"
    port = free_port()
    code = f"{before}\nfrom neuralpile_dagster.cli import main\nmain(prog_name='neuralpile')"
    command = [sys.executable, "-c", code, "ui", "--port", str(port)]
    with log.open("wb") as output:
        process = commands.start(command, {**environment(home, archive), **variables}, ".", output, output)
    ui = Ui(home, port, process, log)
    wait_for(lambda: "Dagster UI on" in ui.said or process.poll() is not None, "its first line")
    wait_until_served(process, ui.address, log)
    return ui


def require_nothing_left(ui: Ui) -> None:
    assert [(process.pid, process.cmdline()) for process in processes(ui.home)] == []
    assert not (ui.home / "ui.json").exists()


@pytest.mark.parametrize("command", ["ui", "demo"])
@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "http"])
def test_a_port_that_does_not_exist_is_refused(command: str, port: str, tmp_path: Path) -> None:
    ran = neuralpile(command, "--port", port, NEURALPILE_HOME=tmp_path)
    assert ran.code == 2
    assert "Invalid value for '--port'" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("ui",), ("demo", "--home")])
def test_a_port_in_use_is_refused_before_anything_is_made(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        given = [*arguments, *([tmp_path] if "--home" in arguments else []), "--port", str(port)]
        ran = neuralpile(*given, NEURALPILE_HOME=tmp_path)
    assert ran.code == 1
    assert f"port {port} of 127.0.0.1 cannot be used; found: another program listens on it" in ran.err
    assert "choose another port with --port" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["ui.lock"]


def test_a_temporary_folder_with_a_path_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    ran = neuralpile("ui", "--port", str(free_port()), NEURALPILE_HOME=tmp_path / "home")
    assert ran.code == 1
    assert f"found: {temporary}, {len(str(temporary))} bytes; expected: a path of at most 70 bytes" in ran.err
    assert "name a shorter one with TMPDIR" in ran.err


def test_a_host_that_is_not_this_machine_is_refused(tmp_path: Path) -> None:
    ran = neuralpile("ui", "--host", "192.0.2.1", "--port", str(free_port()), NEURALPILE_HOME=tmp_path)
    assert ran.code == 1
    assert "of 192.0.2.1 cannot be used" in ran.err
    assert "change --port or --host" in ran.err


@contextmanager
def silent_archive() -> Iterator[socket.socket]:
    """A server that accepts connections and never responds: a run that asks it goes on and on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def start_with_run(home: Path, archive: socket.socket, before: str) -> tuple[Ui, str, psutil.Process]:
    """A UI with a run that waits for its archive, its id and its process."""
    (home / "catalog.yaml").write_text(CATALOG)
    ui = start(home, "dandi", before, DANDI_API_URL=f"http://127.0.0.1:{archive.getsockname()[1]}/api")
    run_id = ui.list_mice()
    asked, _ = archive.accept()
    asked.detach()  # stays open: one that is closed is a response
    return ui, run_id, ui.server("--multiprocessing-fork")


def require_failed(ui: Ui, run_id: str) -> None:
    """The run is over, and nothing waits for it."""
    assert f"run {run_id} was stopped; completed sessions are kept: launch it again to resume" in ui.said
    with instance_of(ui.home) as instance:
        assert [(run.run_id, run.status.value) for run in instance.get_runs()] == [(run_id, "FAILURE")]
    assert list((ui.home / "runs").iterdir()) == []


def servers(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if any(name in process.cmdline() for name in SERVERS)]


@dataclass
class Resumed:
    """A UI with a run in progress that was started by ``nohup`` in the home of one that was killed."""

    ui: Ui
    run_id: str
    worker: psutil.Process
    left: subprocess.Popen[bytes]
    folder: Path
    """The process and the temporary folder that the killed one had left."""


@pytest.fixture(scope="module")
def resumed() -> Iterator[Resumed]:
    with new_home() as home, silent_archive() as archive:
        folder = tempfile.mkdtemp(prefix="neuralpile-ui-")
        place = {"id": "killed", "address": "http://127.0.0.1:1", "pid": 1, "machine": "here", "folder": folder}
        (home / "ui.json").write_text(json.dumps(place))
        with subprocess.Popen(["sleep", "600"], env={**os.environ, serving.STARTED_BY: "killed"}) as left:
            ui, run_id, worker = start_with_run(home, archive, NOHUP)
            yield Resumed(ui, run_id, worker, left, Path(folder))
            left.kill()


def test_the_next_ui_ends_what_a_killed_one_has_left(resumed: Resumed) -> None:
    assert "stopping 1 process that a killed neuralpile ui has left" in resumed.ui.said
    assert resumed.left.poll() == -signal.SIGTERM
    assert not resumed.folder.exists()


def test_a_home_has_one_ui_which_only_sigterm_ends_when_started_by_nohup_and_with_it_its_runs(
    resumed: Resumed,
) -> None:
    ui = resumed.ui
    ui.process.send_signal(signal.SIGHUP)
    started = processes(ui.home)
    for name in SERVERS:
        assert ui.server(name) in started
    before = servers(ui.home)
    for arguments in (("ui", "--port", str(free_port())), ("demo", "--home", str(ui.home))):
        second = neuralpile(*arguments, NEURALPILE_HOME=ui.home)
        assert second.code == 1, second
        assert f"{ui.home} is served already; found: {ui.address} (process {ui.process.pid} on " in second.err
    assert servers(ui.home) == before
    assert "stopping the UI" not in ui.said
    ui.process.send_signal(signal.SIGTERM)
    assert ui.process.wait() == 0
    require_nothing_left(ui)
    assert not any(map(alive, started))
    assert not alive(resumed.worker)
    assert "Daemon threads shut down" in ui.said  # all were asked and did it: none had to be killed
    assert "killing" not in ui.said
    assert "Traceback" not in ui.said
    require_failed(ui, resumed.run_id)
    archive = ui.home / "archive"
    write_mice(archive)
    built = neuralpile("build", "tiny-mice", NEURALPILE_HOME=ui.home, NEURALPILE_ARCHIVE=archive)
    assert built.code == 0, built.err
    assert built.out.startswith(f"local/tiny-mice: {len(FILES)} sessions")


def test_ctrl_c_in_a_terminal_ends_it_once_and_quietly_and_a_second_kills_a_run_that_does_not_stop() -> None:
    with new_home() as home, silent_archive() as archive:
        master, slave = pty.openpty()
        ui, run_id, worker = start_with_run(home, archive, f"terminal = {os.ttyname(slave)!r}\n{TAKE_TERMINAL}")
        worker.suspend()  # as if it waited for a disk
        clients = [ui.server(name) for name in ("dagster_webserver", "dagster._daemon")]
        os.write(master, b"\x03")
        wait_for(lambda: not any(map(alive, clients)), "the servers to stop")
        os.write(master, b"\x03")
        assert ui.process.wait() == 0
        os.close(slave)
        os.close(master)
        require_nothing_left(ui)
        assert "processes that have not stopped" in ui.said
        assert ui.said.count("stopping the UI") == ui.said.count("Daemon threads shut down") == 1
        assert "Traceback" not in ui.said
        assert "Aborted" not in ui.said
        require_failed(ui, run_id)


def test_a_run_that_python_has_only_told_of_an_interrupt_is_interrupted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_ASK_AGAIN_S", 0.2)
    code = """
import signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1) or len(heard) < 2 or sys.exit(7))
print("ready", flush=True)
while True:
    time.sleep(600)
"""
    said: list[str] = []
    command = [sys.executable, "-c", code, serving._RUN_WORKER]
    given = {**os.environ, serving.STARTED_BY: "again"}
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        serving._end_all("again", [], said.append, servers_signaled=True)
        assert run.wait() == 7
    assert said == []


def test_a_closed_terminal_ends_it_as_sigterm_and_ctrl_c_do() -> None:
    kinds = handled(signal.SIGINT, signal.default_int_handler), handled(signal.SIGHUP, signal.SIG_DFL)
    with kinds[0], kinds[1], serving._signals() as received:
        expected = [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
        for kind in expected:
            os.kill(os.getpid(), kind)
        assert received == expected
