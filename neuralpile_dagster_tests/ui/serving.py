"""The real ``neuralpile ui`` in processes of its own, until the end of a ``with``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

READY_S = 120
STOP_S = 4
_NEURALPILE = str(Path(sys.executable).with_name("neuralpile"))
_LOCATIONS = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"


@contextmanager
def served(home: Path, archive: str, log: Path) -> Iterator[str]:
    """Serve the UI of ``home`` and give its address once the code location is loaded.

    What it prints goes to ``log``. At the end it is stopped, and with it all that
    it started. Raises `RuntimeError` with the end of the log when it does not
    come up in `READY_S` seconds.
    """
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_NEURALPILE, "ui", "--port", str(port)],
            env=environment(home, archive),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_served(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def begin(home: Path, archive: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``neuralpile`` with these arguments, under way; it is ended at the end of the ``with`` if it still runs."""
    process = subprocess.Popen(
        [_NEURALPILE, *arguments],
        env=environment(home, archive),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            _end(process.pid)


def environment(home: Path, archive: str) -> dict[str, str]:
    """This process's environment with the instance's settings and without others that tests may have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NEURALPILE_", "DAGSTER_"))}
    return {**kept, "NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": archive}


def ask(address: str, query: str, **variables: Any) -> Any:
    """The ``data`` of a GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["data"]


def free_port() -> int:
    """A port on which nothing listens just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_served(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Return once the code location is loaded; raises `RuntimeError` if the process ends before, or takes too long."""
    due = time.monotonic() + READY_S
    while time.monotonic() < due and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):  # not listening yet
            if "RepositoryLocation" in json.dumps(ask(address, _LOCATIONS)):
                return
        time.sleep(0.5)
    raise RuntimeError(f"the UI did not come up at {address}; its log ends with:\n{log.read_text()[-3000:]}")


def _end(group: int) -> None:
    """End all processes of a group, politely first."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in _members(group):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
        due = time.monotonic() + STOP_S
        while _members(group) and time.monotonic() < due:
            time.sleep(0.1)


def _members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
