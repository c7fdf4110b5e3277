"""The arithmetic of the pile: which rows are train and which test, in which order, and where shards are cut.

Pure functions of numbers; the rule is that of ``datasets``'
``Dataset.train_test_split`` (docs/merge.md).
"""

from __future__ import annotations

import math

import numpy as np

from neuralpile_dagster.errors import MergeError


def split_rows(n_rows: int, seed: int, test_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle and split rows as ``datasets.Dataset.train_test_split(test_size, seed=seed)`` does.

    Parameters
    ----------
    n_rows : int
    seed : int
        At least 0.
    test_size : float
        Share of the rows, above 0 and below 1; ``ceil(test_size * n_rows)`` rows become test.

    Returns
    -------
    train, test : numpy.ndarray, int64, shape (n_train,), shape (n_test,)
        Numbers of the rows, in the order of the pile.

    Raises
    ------
    MergeError
        A setting is invalid; names it.
    """
    n_test = _n_test(n_rows, test_size, "rows", "rows")
    order = _permutation(n_rows, seed)
    return order[n_test:], order[:n_test]


def split_sessions(row_sessions: np.ndarray, seed: int, test_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Put whole sessions into train or test; the rows of both are in the order of one shuffle of all rows.

    Parameters
    ----------
    row_sessions : numpy.ndarray, integer, shape (n_rows,)
        Number of each row's session, from 0, none left out.
    seed, test_size
        As in `split_rows`; ``ceil(test_size * n_sessions)`` sessions become test:
        the first ones of a permutation of the sessions.

    Returns
    -------
    train, test : numpy.ndarray, int64

    Raises
    ------
    MergeError
    """
    n_sessions = int(row_sessions.max()) + 1 if len(row_sessions) else 0
    n_test = _n_test(n_sessions, test_size, "sessions", "sessions")
    is_test = np.zeros(n_sessions, dtype=bool)
    is_test[_permutation(n_sessions, seed)[:n_test]] = True
    order = _permutation(len(row_sessions), seed)
    in_test = is_test[row_sessions[order]]
    return order[~in_test], order[in_test]


def cut(row_bytes: np.ndarray, limit: int, overhead: int, max_rows: int) -> list[tuple[int, int]]:
    """Cut rows, in order, into runs as long as ``limit`` bytes and ``max_rows`` allow.

    Parameters
    ----------
    row_bytes : numpy.ndarray, integer, shape (n_rows,)
        Bytes of each encoded row.
    limit : int
        Bytes of a run; a row that is larger is a run of its own.
    overhead : int
        Bytes added to every row.
    max_rows : int
        Rows of a run.

    Returns
    -------
    list of (start, stop)
        Together they cover all rows.
    """
    ends = np.cumsum(np.asarray(row_bytes, dtype=np.int64) + overhead)
    cuts = []
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        stop = min(stop, start + max_rows)
        cuts.append((start, stop))
        start = stop
    return cuts


def _permutation(n: int, seed: int) -> np.ndarray:
    if seed < 0:
        raise MergeError("seed is invalid", found=str(seed), expected="an integer of at least 0")
    return np.random.default_rng(seed).permutation(n)


def _n_test(n: int, test_size: float, split_by: str, things: str) -> int:
    if not 0 < test_size < 1:  # also refuses NaN
        raise MergeError("test_size is invalid", found=f"{test_size}", expected="a share above 0 and below 1")
    if n < 2:
        raise MergeError(
            f"split_by: {split_by} needs at least two {things}, one to train and one to test",
            found=f"{n} {things}",
            remedy="merge more components or sessions" + ("" if split_by == "rows" else ", or set split_by: rows"),
        )
    n_test = math.ceil(test_size * n)
    if n_test == n:
        raise MergeError(
            f"test_size {test_size} leaves nothing to train on",
            found=f"all {n} {things} would be test",
            remedy="lower test_size",
        )
    return n_test
