"""A smoke run of a bench, as its tests want it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from bench.__main__ import ratios
from bench.common import RESULTS

ROOT = Path(__file__).parents[1]
WITH_DAEMON = ("workers", "backfill")
"""Benches that wait for Dagster's daemon most of the time."""


def require_a_table_and_ratios(name: str) -> None:
    """Run the bench with ``--tiny``; raises `AssertionError` where it fails or leaves no table or no ratios."""
    result = RESULTS / f"{name}-tiny.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"bench.{name}", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, rule, first, *_ = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert set(rule) == {"|", "-"}
    assert first.count("|") == header.count("|")
    assert any(character.isdigit() for character in first)
    found = dict(ratios(json.loads(result.read_text())))
    assert found
    assert all(math.isfinite(ratio) for ratio in found.values()), found
