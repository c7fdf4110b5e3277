"""``make bench``: all benches one after the other, then one table of their ratios.

``python -m bench [--tiny] [NAME...]``. Each also runs alone as ``python -m bench.NAME``; results are JSON files in
``bench/results``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import RESULTS, show

_HELPERS = {"__init__", "__main__", "common", "published_procedure", "recordings"}


def benches() -> list[str]:
    """Names of the modules that are benches: those with a ``main``."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [f.stem for f in files if f.stem not in _HELPERS and "\ndef main(" in f.read_text()]


def ratios(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number under a key ``ratios``, at whatever depth, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            path = f"{where}, {key}" if where else str(key)
            if key == "ratios" and isinstance(inner, dict):
                yield from ((f"{where}: {name}", found) for name, found in inner.items())
            else:
                yield from ratios(inner, path)


def _result(name: str, tiny: bool) -> Path:
    return RESULTS / f"{name}{'-tiny' if tiny else ''}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of: {', '.join(benches())} (default all)")
    parser.add_argument("--tiny", action="store_true", help="smoke runs")
    options = parser.parse_args()
    failed = []
    for name in options.names or benches():
        print(f"\n# bench.{name}", flush=True)
        # neither a bench that fails nor one that is skipped may leave older figures for the table
        _result(name, options.tiny).unlink(missing_ok=True)
        command = [sys.executable, "-m", f"bench.{name}", *(["--tiny"] if options.tiny else [])]
        if subprocess.call(command):
            failed.append(name)
    rows = []
    for name in options.names or benches():
        path = _result(name, options.tiny)
        if name not in failed and path.exists():
            rows += [[name, where, found] for where, found in ratios(json.loads(path.read_text()))]
    show("All ratios", ["bench", "what", "found"], rows)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
