from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("bench", ["session", "spike_trains"])
def test_a_tiny_run_of_the_bench_works(bench: str):
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{bench}", "--tiny"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "of raw" in done.stdout if bench == "spike_trains" else "bit for bit: True" in done.stdout
