"""The training example that needs no torch, run as its reader runs it: it trains, evaluates and ends."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neuralpile_dagster_tests.fixtures.documented import ROOT, run
from neuralpile_dagster_tests.fixtures.published import publish


def test_the_numpy_example_trains_and_evaluates_on_sessions_held_out(tmp_path: Path):
    publish(tmp_path / "neural-pile")
    path = str(ROOT / "examples" / "next_bin.py")
    arguments = [str(tmp_path / "neural-pile"), "--bins", "20", "--steps", "100", "--hold-out", "session:mice/s2"]
    done = run(
        f"import runpy, sys\nsys.argv[1:] = {arguments!r}\nrunpy.run_path({path!r}, run_name='__main__')",
        tmp_path / "reader",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "held out: session:mice/s2" in lines[0]
    losses = [float(found) for found in re.findall(r"step \d+: loss (-?[\d.]+)", done.stdout)]
    assert len(losses) == 2
    score = re.fullmatch(r"held-out sessions: (-?[\d.]+) bits per spike above the mean rate", lines[-1])
    assert score is not None
    assert np.isfinite(float(score[1]))
