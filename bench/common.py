"""What all benches share: a fresh process measured from outside, alternating rounds, tables, results as JSON.

Every figure is a ratio against a baseline of the same run: the median of the ratios of `ROUNDS` alternating rounds,
because others use the machine. For the same reason CPU seconds stand beside wall seconds.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
"""Rounds of a bench, each of which runs every way once."""
Round = dict[str, dict[str, float]]
"""Figures of every way in one round."""


@dataclass(frozen=True)
class Measured:
    """One process, imports included: wall and CPU seconds, peak resident bytes, what it printed."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str

    def json(self) -> Any:
        """What its last line says."""
        return json.loads(self.output.strip().splitlines()[-1])


def rounds(ways: Mapping[str, Callable[[], Mapping[str, float]]], count: int = ROUNDS) -> list[Round]:
    """Run every way once, then again, ``count`` times: what disturbs a round disturbs all of its ways."""
    return [{name: dict(run()) for name, run in ways.items()} for _ in range(count)]


def medians(every: Sequence[Round]) -> Round:
    """The median of each figure of each way."""
    return {
        way: {figure: median(one[way][figure] for one in every) for figure in figures}
        for way, figures in every[0].items()
    }


def median_ratio(every: Sequence[Round], figure: str, way: str, other: str) -> float:
    """The median over rounds of ``way`` by ``other``."""
    return median(one[way][figure] / one[other][figure] for one in every)


class Laps:
    """Wall and CPU seconds of this process since the lap before: ``<name>_s`` and ``<name>_cpu_s``."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """End a lap."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.found |= {f"{name}_s": wall - self._wall, f"{name}_cpu_s": cpu - self._cpu}
        self._wall, self._cpu = wall, cpu


def own_memory(field: str) -> int:
    """Bytes of this process that Linux counts as ``field`` (``VmRSS``: held now, ``VmHWM``: at most so far)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status; this bench needs Linux")


def measure(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run ``python <arguments>`` in a fresh process and wait for it; raises `RuntimeError` when it fails.

    Linux starts a child's peak memory at its parent's, so keep this process small: make big things in others.
    """
    env = {**os.environ, **(environment or {})}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed with {process.returncode}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def start(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start ``python <arguments>``, a server that runs beside this process; what it prints is added to ``log``."""
    env = {**os.environ, **(environment or {})}
    with log.open("ab") as output:
        return subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output, env=env)


@contextmanager
def code_server(log: Path, environment: Mapping[str, str] | None = None) -> Iterator[list[str]]:
    """Dagster's server of the code location; gives the options by which Dagster's other processes find it."""
    port = free_port()
    arguments = ["-m", "dagster", "api", "grpc", "--port", str(port), "-m", "neuralpile_dagster.definitions"]
    server = start(arguments, log, environment)
    try:
        while not _listens(port):
            if server.poll() is not None:
                raise RuntimeError(f"the code server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield ["--grpc-host", "127.0.0.1", "--grpc-port", str(port)]
    finally:
        server.kill()  # where SIGINT is ignored, as under nohup, Dagster ignores SIGTERM too
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def synthetic_row(name: str, source_id: str, sessions: int, tokens: int) -> dict[str, Any]:
    """A catalog row of a dataset made for a bench.

    What it holds is said in the row, as in those of real datasets: it decides how many sessions share a run.
    """
    return {
        "name": name,
        "title": "Synthetic",
        "source": {"id": source_id, "version": "draft"},
        "tokens_published": tokens,
        "sessions_published": sessions,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on, when, and how much others used it: load averages of 1 and 15 minutes."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    load = os.getloadavg()
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "load": load[0],
        "load_15_minutes": load[2],
    }


def machine_line() -> str:
    """`machine` as a line for the reader of a table."""
    found = machine()
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gb']} GB, Python {found['python']}, "
        f"{found['date']}, load {found['load']:.1f} (15 minutes: {found['load_15_minutes']:.1f})"
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(_text(cell) for cell in row) + " |", flush=True)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def save(name: str, results: Mapping[str, Any]) -> Path:
    """Write the results as JSON to ``bench/results/<name>.json``."""
    print(f"\nOn: {machine_line()}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    return path
