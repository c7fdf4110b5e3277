"""Every bench runs and prints its ratios; how large they are is nobody's business here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import benches

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", benches())
def test_a_tiny_run_of_the_bench_ends_well_and_prints_a_table(name: str):
    command = [sys.executable, "-m", f"bench.{name}", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, rule, first, *_ = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert set(rule) == {"|", "-"}
    assert first.count("|") == header.count("|")
    assert any(character.isdigit() for character in first)
