"""``neuralpile ui``: Dagster's code server, web server and daemon, started and stopped as a whole.

Here belong the one UI of a home, its port, and the end of every process that it started. What runs do does not:
`resources.fail_abandoned` marks the run whose process was killed.

The rules, and what happened without them:

- Stopping the command stops everything. SIGTERM to ``neuralpile ui`` left web server, code servers and daemon behind
  with the old environment, and the next ``neuralpile ui`` ran a second daemon on the same instance.
- The servers heed signals even if their parent ignores them. A shell script starts ``neuralpile ui &`` with SIGINT
  ignored; Dagster handles SIGTERM as it handles SIGINT, so nothing could stop them.
- Runs in progress are interrupted, which records them as failed. Dagster stops its servers but lets runs go on, for
  hours, and a next daemon starts others beside them.
- The servers are the three of a deployment (deploy/celery), not `dagster dev`: that is a process more, which imports
  Dagster for two seconds before it starts them.
- Processes are recognized by a variable in their environment, not by their parent or process group: orphans lose
  the one, a process may leave the other, and the system gives both numbers to other programs later.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
from filelock import FileLock, Timeout

from neuralpile_dagster.catalog.load import load_catalog, load_piles
from neuralpile_dagster.errors import ConfigurationError, NeuralPileError
from neuralpile_dagster.files import explained, write_bytes
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration.overview import PATH as OVERVIEW_PAGE
from neuralpile_dagster.orchestration.overview import try_to_refresh
from neuralpile_dagster.orchestration.resources import fail_abandoned, open_instance
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.settings import Settings

DEFINITIONS = "neuralpile_dagster.definitions"
"""Module of the code location, which Dagster names after it."""
STARTED_BY = "NEURALPILE_STARTED_BY"
"""Environment variable of every process that a UI started: the id of that UI."""
SERVERS_GRACE_S = 20.0
"""Time for web server and daemon to stop before they are killed; they take 2 s."""
RUNS_GRACE_S = 20.0
"""Time for interrupted runs to record that they failed before they are killed."""
LAST_GRACE_S = 5.0
"""Time for code servers to record which runs were killed before they are killed too; then for all to be gone."""
_IN_PROGRESS = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_DIED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_ASK_AGAIN_S = 5.0
"""Time until a run is interrupted again: one that arrives while it imports a module, Python may only print."""
_TICK_S = 0.1
_FOLDER = "neuralpile-ui-"
"""Beginning of the name of the temporary folder with the code server's socket."""
LONGEST_TEMPORARY = 70
"""Bytes of the path of temporary files: a socket's has 103 with ours and Dagster's folders in it."""
_RUN_WORKER = "--multiprocessing-fork"
"""Argument of the processes in which code servers execute runs."""


def require_available(home: Path, host: str, port: int, say: Progress) -> None:
    """Raise `ConfigurationError` if `serve` would fail now; for commands that do long work first."""
    with _only_ui(home, say):
        _require_short_temporary_path()
        _require_free_port(host, port)


def serve(settings: Settings, host: str, port: int, say: Progress) -> None:
    """Serve the UI of a home until SIGTERM, SIGINT or SIGHUP, and leave no process behind.

    A second SIGINT kills what has not stopped yet. If this process is killed,
    the servers stop by themselves after the runs in progress; the next UI of the
    home stops what is left.

    Parameters
    ----------
    settings : Settings
    host : str
        Address to listen on. There is no login.
    port : int
        1 to 65535.
    say : Progress
        Receives what the operator should know.

    Raises
    ------
    ConfigurationError
        The home is served already, or the port is in use or not permitted.
    NeuralPileError
        Dagster stopped by itself, or a process cannot be ended.
    """
    with _only_ui(settings.home, say) as note:
        _require_short_temporary_path()
        _require_free_port(host, port)
        with open_instance(settings) as instance:
            fail_abandoned(settings.home, instance)
            datasets = list(load_catalog(settings).values())
            try_to_refresh(instance, settings, datasets, load_piles(settings, datasets), say)
        ui = uuid.uuid4().hex
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        running: Sequence[str] = ()
        ended: dict[str, int] = {}
        with _signals() as received, tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
            place = {"id": ui, "address": address, "pid": os.getpid(), "machine": socket.gethostname()}
            write_bytes(note, json.dumps({**place, "folder": folder}).encode())
            environment = {**os.environ, "NEURALPILE_HOME": str(settings.home), STARTED_BY: ui}
            servers = {"code server": _start_code_server(environment, Path(folder))}
            try:
                say(f"Dagster UI on {address} (home {settings.home}); stop with Ctrl-C")
                say(f"all datasets at a glance: {address}{OVERVIEW_PAGE}")
                while not (ended := _ended(servers)) and not received:
                    if len(servers) == 1 and _socket(Path(folder)).exists():
                        servers |= _start_clients(environment, Path(folder), host, port)
                    time.sleep(_TICK_S)
                if received:
                    say("stopping the UI and runs in progress (Ctrl-C again to kill them)")
                    with open_instance(settings) as instance:
                        running = _runs(instance, _IN_PROGRESS)
            finally:
                _end_all(ui, received, say, servers_signaled=_end_servers(servers, received))
                servers["code server"].wait()
        note.unlink()
        with open_instance(settings) as instance:
            fail_abandoned(settings.home, instance)
            for run_id in _runs(instance, _DIED, running):
                say(f"run {run_id} was stopped; completed sessions are kept: launch it again to resume")
    if not received:
        name, code = ended.popitem()
        raise NeuralPileError(
            f"Dagster's {name} stopped by itself",
            found=f"exit code {code} and the messages above",
            expected="all servers to run until they are asked to stop",
            remedy="fix the cause and start neuralpile ui again; runs in progress were stopped",
        )


def _runs(
    instance: dg.DagsterInstance, statuses: Sequence[dg.DagsterRunStatus], among: Sequence[str] | None = None
) -> list[str]:
    """Ids of runs with one of these statuses."""
    runs = instance.get_runs(dg.RunsFilter(statuses=statuses))
    return [run.run_id for run in runs if among is None or run.run_id in among]


@contextmanager
def _only_ui(home: Path, say: Progress) -> Iterator[Path]:
    """Hold the lock of a home's only UI; yield the path of the note with its address.

    The operating system releases the lock when this process ends, however it
    ends (on a network file system too, if that has locks: NFS does). What a UI
    that was killed has left is ended first. Raises `ConfigurationError` if
    another process serves the home.
    """
    note, path = home / "ui.json", home / "ui.lock"
    lock = FileLock(path)
    try:
        with explained(path):
            home.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        place = _read(note)
        found = "{address} (process {pid} on {machine})".format(**place) if place else "a UI that is starting"
        raise ConfigurationError(
            f"{home} is served already",
            found=found,
            expected="one UI for each home",
            remedy="open that address, or stop that process first; another home is chosen with NEURALPILE_HOME",
        ) from None
    try:
        if killed := _read(note):
            if left := _started_by(killed["id"]):
                say(f"stopping {plural(len(left), 'process', 'processes')} that a killed neuralpile ui has left")
                _end_all(killed["id"], [], say, servers_signaled=False)
            folder = Path(killed.get("folder", ""))  # notes of before have none
            if folder.name.startswith(_FOLDER):
                shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)
        yield note
    finally:
        lock.release()


def _read(note: Path) -> dict[str, str]:
    """Id, address, process, machine and folder of the UI that wrote the note; empty without one, or a damaged one."""
    with suppress(FileNotFoundError, ValueError):
        return dict(json.loads(note.read_text()))
    return {}


def address_of(home: Path) -> str | None:
    """Address at which the UI of a home is served, or was when it was killed; None where there is none."""
    return _read(home / "ui.json").get("address")


def _require_short_temporary_path() -> None:
    """Raise `ConfigurationError` where the code server, and Dagster's own, could not make their sockets."""
    folder = tempfile.gettempdir()
    if (length := len(os.fsencode(folder))) > LONGEST_TEMPORARY:
        raise ConfigurationError(
            "Dagster's servers cannot make sockets in the folder of temporary files",
            found=f"{folder}, {length} bytes",
            expected=f"a path of at most {LONGEST_TEMPORARY} bytes",
            remedy="name a shorter one with TMPDIR",
        )


def _require_free_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` unless a server can listen there; Dagster shows a traceback, 15 s later."""
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as web servers do
                probe.bind(where)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigurationError(
            f"port {port} of {host} cannot be used",
            found="another program listens on it" if in_use else str(error),
            expected="a free port of this machine that this user may listen on",
            remedy="stop that program, or choose another port with --port" if in_use else "change --port or --host",
        ) from error


def _socket(folder: Path) -> Path:
    """Where the code server listens once it has loaded the definitions, or found that it cannot."""
    return folder / "code"


def _start_code_server(environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the server that loads the definitions (anew when the UI asks for it) and executes runs."""
    options = ["--socket", str(_socket(folder)), "-m", DEFINITIONS, "--location-name", DEFINITIONS]
    options += ["--inject-env-vars-from-instance", "--log-level", "warning"]
    return _start(environment, ["dagster", "code-server", "start", *options])


def _start_clients(
    environment: Mapping[str, str], folder: Path, host: str, port: int
) -> dict[str, subprocess.Popen[bytes]]:
    """Start web server and daemon, which both ask the code server."""
    workspace = folder / "workspace.yaml"
    server = {"socket": str(_socket(folder)), "location_name": DEFINITIONS}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))  # JSON is YAML
    options = ["--workspace", str(workspace)]
    return {
        "web server": _start(environment, ["dagster_webserver", *options, "--host", host, "--port", str(port)]),
        "daemon": _start(environment, ["dagster._daemon", "run", *options]),
    }


def _start(environment: Mapping[str, str], command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start one of Dagster's servers in a session of its own, so that Ctrl-C reaches only this process.

    It stops when the pipe to its standard input closes: the system closes it
    when this process is killed.
    """
    run = [sys.executable, "-m", "neuralpile_dagster.orchestration.servers", *command]
    return subprocess.Popen(run, env=environment, stdin=subprocess.PIPE, start_new_session=True)


def _ended(servers: Mapping[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    """Exit codes of the servers that have ended."""
    return {name: code for name, process in servers.items() if (code := process.poll()) is not None}


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield the list of signals to stop that have arrived; ``nohup`` and ``&`` in a script have some ignored."""
    received: list[int] = []
    kinds = [signal.SIGTERM]
    kinds += [kind for kind in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(kind) != signal.SIG_IGN]
    before = {kind: signal.signal(kind, lambda number, _frame: received.append(number)) for kind in kinds}
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _interrupted_twice(received: Sequence[int]) -> bool:
    """Whether Ctrl-C came twice; other signals are repeated by terminals and service managers."""
    return received.count(signal.SIGINT) > 1


def _end_servers(servers: Mapping[str, subprocess.Popen[bytes]], received: Sequence[int]) -> bool:
    """Stop web server and daemon, then signal the code server to stop after its runs; return whether it will.

    One that is loading the definitions leaves behind the process that loads them.
    """
    code_server, *clients = servers.values()
    for process in clients:
        process.terminate()
    due = time.monotonic() + SERVERS_GRACE_S
    while any(process.poll() is None for process in clients):
        if time.monotonic() > due or _interrupted_twice(received):
            break
        time.sleep(_TICK_S)
    for process in clients:
        process.kill()
        process.wait()
    code_server.terminate()
    return bool(clients) and code_server.poll() is None


def _end_all(ui: str, received: Sequence[int], say: Progress, *, servers_signaled: bool) -> None:
    """Interrupt the runs of a UI, and its servers unless already signaled; kill processes that do not end in time."""
    asked: dict[psutil.Process, float] = {}
    killed: set[psutil.Process] = set()
    begin = time.monotonic()
    while remaining := _started_by(ui):
        waited = time.monotonic() - begin + (RUNS_GRACE_S + LAST_GRACE_S if _interrupted_twice(received) else 0.0)
        if waited > RUNS_GRACE_S + 2 * LAST_GRACE_S:
            raise NeuralPileError(
                "some processes of the UI do not end",
                found=f"processes {', '.join(str(process.pid) for process in remaining)} were killed and still exist",
                remedy="look for a disk or network file system that does not respond: they end with it",
            )
        due = {True: RUNS_GRACE_S, False: RUNS_GRACE_S + LAST_GRACE_S}
        late = {process for process, is_run in remaining.items() if waited > due[is_run]}
        if late - killed:
            say(f"killing {plural(len(late - killed), 'process', 'processes')} that have not stopped")
            killed |= late
        for process, is_run in remaining.items():
            with suppress(psutil.NoSuchProcess):  # ended just now
                if process in late:
                    process.kill()
                elif waited >= asked.get(process, 0.0) and (is_run or not servers_signaled):
                    process.terminate()
                    asked[process] = waited + _ASK_AGAIN_S if is_run else math.inf
        time.sleep(_TICK_S)


def _started_by(ui: str) -> dict[psutil.Process, bool]:
    """Live processes started by a UI, directly or not, and whether each executes a run."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # ended just now; another user's
            if process.environ().get(STARTED_BY) == ui:
                found[process] = _RUN_WORKER in process.cmdline()
    return found
