"""The published procedure, as docs/binning.md describes it: the baseline of `bench.session`.

``python -m bench.published_procedure FILE OUT``: the units table as a pandas
DataFrame, ``numpy.histogram`` per unit, the whole session dense, a `datasets`
Dataset, Parquet as `datasets` writes it.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
from pynwb import NWBHDF5IO

BIN_WIDTH_S = 0.02
MAX_TOKENS = 10_000_000


def spike_counts(path: str) -> np.ndarray:
    with NWBHDF5IO(path, "r") as io:
        units = io.read().units.to_dataframe()
    max_time = max(times.max() for times in units["spike_times"] if len(times))
    edges = np.arange(0, max_time + BIN_WIDTH_S, BIN_WIDTH_S)
    return np.array([np.histogram(times, bins=edges)[0] for times in units["spike_times"]]).astype(np.uint8)


def rows(counts: np.ndarray) -> Iterator[dict[str, Any]]:
    n_segments = math.ceil(counts.size / MAX_TOKENS)
    size = math.ceil(counts.shape[1] / n_segments)
    for i in range(n_segments):
        segment = counts[:, i * size : (i + 1) * size]
        if segment.size:
            yield {"spike_counts": segment, "subject_id": "sub", "session_id": "ses", "segment_id": f"segment_{i}"}


def main(path: str, out: str) -> None:
    text = datasets.Value("string")
    features = datasets.Features(
        {
            "spike_counts": datasets.List(datasets.List(datasets.Value("uint8"))),
            "subject_id": text,
            "session_id": text,
            "segment_id": text,
        }
    )
    counts = spike_counts(path)
    with tempfile.TemporaryDirectory() as cache:
        dataset = datasets.Dataset.from_generator(
            rows, features=features, cache_dir=cache, gen_kwargs={"counts": counts}
        )
        dataset.to_parquet(out)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(*sys.argv[1:])
