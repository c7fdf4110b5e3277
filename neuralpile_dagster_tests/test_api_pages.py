"""`make docs` writes a page for every public room from its docstrings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from neuralpile_dagster_tests.fixtures.documented import ROOT


def test_every_room_has_a_page_with_signatures_shapes_and_errors(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "api" / "make.py", "--target", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert set(pages) - {"index"} == {line[3:].split("]")[0] for line in pages["index"].splitlines() if line[:1] == "-"}
    assert "counts(start: int, stop: int) -> np.ndarray" in pages["binning"]
    assert "*numpy.ndarray, uint8, shape (n_units, stop - start)*" in pages["binning"]
    assert "*numpy.ndarray, float64, shape (n_spikes,)*" in pages["binning"]
    assert "**Raises**" in pages["session"]
    assert ">>> partition_key(" in pages["recordings"]
    assert "_digest" not in pages["session"], "private functions are not shown"
