"""What torch's own DataLoader gives: each window once, in the same order for any number of workers, and resumable.

Skipped where torch is not installed: ``make test-train``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'neuralpile-dagster[train]'")

from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

from neuralpile_dagster.errors import ConfigurationError  # noqa: E402
from neuralpile_dagster.reading import Pile, Windows  # noqa: E402
from neuralpile_dagster_tests.fixtures.documented import ROOT  # noqa: E402
from neuralpile_dagster_tests.fixtures.published import publish  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pile") / "neural-pile"
    publish(folder)
    return folder


def windows(folder: Path, epochs: int | None = 1) -> Windows:
    return Windows(Pile.open(folder), 25, batch_size=4, buffer_rows=4, lanes=2, epochs=epochs)


def test_windows_are_an_iterable_dataset(folder: Path):
    assert isinstance(windows(folder), IterableDataset)


@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (4, "fork"), (2, "spawn")])
def test_workers_change_neither_batches_nor_their_order(folder: Path, workers: int, start: str | None):
    expected = list(windows(folder))
    loader = DataLoader(windows(folder), batch_size=None, num_workers=workers, multiprocessing_context=start)
    for found, batch in zip(loader, expected, strict=True):
        assert found.keys() == batch.keys()
        assert found["counts"].dtype == torch.uint8
        assert all(np.array_equal(np.asarray(found[name]), batch[name]) for name in batch)


def test_a_job_that_resumes_after_a_batch_sees_the_next_one_whatever_workers_read_ahead(folder: Path):
    expected = [batch["index"] for batch in windows(folder)]
    job = windows(folder)
    for batch, _ in zip(DataLoader(job, batch_size=None, num_workers=2), range(5), strict=False):
        state = job.state_dict(batch)
    resumed = windows(folder)
    resumed.load_state_dict(state)
    loader = DataLoader(resumed, batch_size=None, num_workers=3)
    assert [batch["index"] for batch in loader] == expected[5:]


class AskedInAWorker(Windows):
    """Asks for the state where it is not known."""

    def __iter__(self):  # noqa: ANN204
        self.state_dict()
        return super().__iter__()


def test_the_state_is_not_known_in_a_worker(folder: Path):
    job = AskedInAWorker(Pile.open(folder), 25)
    with pytest.raises(ConfigurationError, match="in the training process"):
        next(iter(DataLoader(job, batch_size=None, num_workers=1)))


def test_the_example_trains_evaluates_and_resumes(folder: Path, tmp_path: Path):
    command = [sys.executable, str(ROOT / "examples" / "next_bin_torch.py"), str(folder), "--bins", "20"]
    command += ["--steps", "20", "--hold-out", "session:mice/s2", "--checkpoint", str(tmp_path / "model.pt")]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout for _ in range(2)
    ]
    for output in outputs:
        assert re.search(r"held-out sessions: -?[\d.]+ bits per spike", output)
    assert "batch 19: loss" in outputs[0]
    assert "'samples': 20" in outputs[1]
    assert re.search(r"epoch \d, batch \d+: loss", outputs[1])
