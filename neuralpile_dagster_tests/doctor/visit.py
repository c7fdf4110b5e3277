"""`neuralpile doctor` in a process of its own, which must end, in an environment of the test's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOREIGN = ("NEURALPILE_", "HF_", "AWS_", "DAGSTER_", "DANDI_", "FIGSHARE_")
MUST_END_S = 120  # far more than it takes: a process that does not end is killed then, and the test fails
NETWORK = {"archive listing", "archive reading", "archive digests", "figshare"}
"""The lines that need the network with the settings that a new user has."""


@dataclass(frozen=True)
class Visit:
    """What the command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> dict[str, dict[str, Any]]:
        """The lines of the JSON report by name."""
        return {line["name"]: line for line in json.loads(self.out)["lines"]}

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each line."""
        return {name: line["status"] for name, line in self.lines.items()}


def doctor(home: Path, *arguments: str, environment: Mapping[str, str | Path] | None = None) -> Visit:
    """Run the installed command with these variables instead of the machine's own settings."""
    machine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    given = {name: str(value) for name, value in (environment or {}).items()}
    settings = {
        "NEURALPILE_HOME": str(home),
        "HF_HOME": str(home.parent / "huggingface"),
        "PYTHONPATH": str(ROOT),
        "no_proxy": "127.0.0.1",
    }
    command = [Path(sys.executable).with_name("neuralpile"), "doctor", *arguments]
    done = subprocess.run(
        command, env={**machine, **settings, **given}, capture_output=True, text=True, timeout=MUST_END_S, check=False
    )
    return Visit(done.returncode, done.stdout, done.stderr)


@contextmanager
def refusing() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


@contextmanager
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def dripping() -> Iterator[int]:
    """A port that answers with a header that never ends, a byte now and then: no timeout of a client sees that."""
    stopping = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not stopping.wait(0.5):
                    connection.sendall(b"a")
            except OSError:
                return  # the client has hung up

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed below
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)
