"""What all benches share: a fresh process measured from outside, tables, results as JSON.

Every figure is a ratio against a baseline measured in the same run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


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
    """What the figures were measured on."""
    return {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


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
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    return path
