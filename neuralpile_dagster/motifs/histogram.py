"""Histogram of motifs: how often each occurs in some rows, as a file with a row group for each bucket, and its numbers.

What rows are counted together (a session's, or those of a plan that are no whole session) is decided in `ledger`.

    write_histogram(path, rows, shape) -> HistogramNumbers
    count_silent(counts, shape) -> int, by another way than the histogram
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from neuralpile_dagster.files import temporary_name
from neuralpile_dagster.motifs.counter import MotifCounter
from neuralpile_dagster.motifs.counts import MotifCounts, total_of
from neuralpile_dagster.motifs.files import MotifReader, MotifWriter
from neuralpile_dagster.motifs.records import HistogramNumbers
from neuralpile_dagster.motifs.shape import N_BUCKETS, MotifShape

MAX_MOTIFS = 4_000_000
"""Different motifs that are held in memory: half a gigabyte. More are written in order, and merged at the end."""


def write_histogram(
    path: Path, rows: Iterable[np.ndarray], shape: MotifShape, max_motifs: int = MAX_MOTIFS
) -> HistogramNumbers:
    """Count the motifs of rows, each padded for itself, and write them to a new file.

    The file depends on the rows only, not on their order or on ``max_motifs``. Row group ``b`` holds bucket ``b``.
    Memory: one row, and about 120 bytes for each of ``max_motifs`` while they are sorted.

    Parameters
    ----------
    path : Path
        File to write: use it inside `files.atomic_write` or `store.put_file`. Runs of motifs beside it are removed.
    rows : iterable of numpy.ndarray, uint8, shape (n_units, n_bins)
        Taken one by one.
    shape : MotifShape
    max_motifs : int
        Different motifs after which a row is the last of a run.
    """
    counter = MotifCounter(shape)
    with ExitStack() as stack:
        runs: list[Path] = []
        for counts in rows:
            counter.add(counts)
            if len(counter) >= max_motifs:
                runs.append(_run(stack, path, counter))
        if runs:
            runs.append(_run(stack, path, counter))
            readers = [MotifReader(run, str(run), shape) for run in runs]
            buckets: Iterable[MotifCounts] = (
                total_of((reader.group(bucket) for reader in readers), shape) for bucket in range(N_BUCKETS)
            )
        else:
            buckets = counter.take()
        spikes = motifs = without_key = 0
        with MotifWriter(path) as writer:
            for bucket, found in enumerate(buckets):
                writer.write(bucket, found)
                spikes += found.spikes
                motifs += len(found)
                without_key += len(found.patches)
    return HistogramNumbers(
        shape=(shape.n_units, shape.n_bins),
        rows=counter.rows,
        tokens=counter.tokens,
        patches=counter.patches,
        silent=counter.silent,
        spikes=spikes,
        motifs=motifs,
        without_key=without_key,
    )


def _run(stack: ExitStack, path: Path, counter: MotifCounter) -> Path:
    """Write what was counted so far beside ``path``; removed when the stack is left."""
    run = path.with_name(temporary_name("run"))
    stack.callback(run.unlink, missing_ok=True)
    with MotifWriter(run) as writer:
        for bucket, motifs in enumerate(counter.take()):
            writer.write(bucket, motifs)
    return run


def count_silent(counts: np.ndarray, shape: MotifShape) -> int:
    """Number of patches of a row without a spike, found without packing them.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    shape : MotifShape
    """
    if not counts.size:
        return 0
    by_bins = np.logical_or.reduceat(counts, np.arange(0, counts.shape[1], shape.n_bins), axis=1)
    spikes = np.logical_or.reduceat(by_bins, np.arange(0, counts.shape[0], shape.n_units), axis=0)
    return int(spikes.size - np.count_nonzero(spikes))
