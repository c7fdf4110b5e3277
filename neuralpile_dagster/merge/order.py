"""The arithmetic of the pile as published: the permutation that splits and orders rows, and where shards are cut.

Pure functions of numbers; the rule is that of ``datasets``'
``Dataset.train_test_split`` (docs/merge.md). Shards by hash are cut here as well; splits by hash belong in `splits`.
"""

from __future__ import annotations

import math

import numpy as np

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import SPLITS

TRAIN, VALID, TEST = (SPLITS.index(name) for name in ("train", "valid", "test"))
LEFT_OUT = -1


def draw_splits(
    n: int,
    seed: int,
    test_size: float,
    valid_size: float = 0.0,
    free: np.ndarray | None = None,
    *,
    units: str = "rows",
) -> np.ndarray:
    """Draw the split of each row (session) from one permutation of all.

    Without ``valid_size`` and ``free``, rows are drawn as `datasets.Dataset.train_test_split(test_size, seed=seed)`
    draws them.

    Parameters
    ----------
    n : int
        Rows (sessions).
    seed : int
        At least 0.
    test_size, valid_size : float
        Shares, together below 1; ``ceil(test_size * n)`` become test, and as many more ``valid``.
    free : numpy.ndarray, bool, shape (n,), optional
        False for what is held out: it is not drawn, and counts in no share.
    units : str
        ``rows`` or ``sessions``, for errors.

    Returns
    -------
    numpy.ndarray, int8, shape (n,)
        `TRAIN`, `VALID` or `TEST`; what is held out is `TRAIN`.

    Raises
    ------
    MergeError
        A setting is invalid; names it.
    """
    order = permutation(n, seed)
    if free is not None:
        order = order[free[order]]
    n_test, n_valid = _sizes(len(order), test_size, valid_size, units)
    splits = np.full(n, TRAIN, np.int8)
    splits[order[:n_test]] = TEST
    splits[order[n_test : n_test + n_valid]] = VALID
    return splits


def arrange(row_splits: np.ndarray, order: np.ndarray) -> dict[str, np.ndarray]:
    """Split rows that are in order.

    Parameters
    ----------
    row_splits : numpy.ndarray, int8, shape (n_rows,)
        `TRAIN`, `VALID`, `TEST` or `LEFT_OUT`.
    order : numpy.ndarray, int64, shape (n_rows,)
        Numbers of all rows.

    Returns
    -------
    dict of str to numpy.ndarray, int64, shape (n_rows_of_split,)
        Numbers of the rows of each split that has any.
    """
    ordered = row_splits[order]
    parts = {name: order[ordered == number] for number, name in enumerate(SPLITS)}
    return {name: part for name, part in parts.items() if len(part)}


def permutation(n: int, seed: int) -> np.ndarray:
    """Seeded permutation of ``range(n)``, int64, shape (n,); raises `MergeError` when the seed is negative."""
    if seed < 0:
        raise MergeError("seed is invalid", found=str(seed), expected="an integer of at least 0")
    return np.random.default_rng(seed).permutation(n)


def check_sizes(test_size: float, valid_size: float) -> None:
    """Raise `MergeError` unless the shares leave something to train on."""
    if not 0 < test_size < 1:  # also refuses NaN
        raise MergeError("test_size is invalid", found=f"{test_size}", expected="a share above 0 and below 1")
    if not 0 <= valid_size < 1:
        raise MergeError("valid_size is invalid", found=f"{valid_size}", expected="a share of at least 0 and below 1")
    if test_size + valid_size >= 1:
        raise MergeError(
            "test_size and valid_size leave nothing to train on",
            found=f"{test_size:g} + {valid_size:g}",
            expected="together less than 1",
        )


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


def count_shards(row_bytes: np.ndarray, limit: int, overhead: int, max_rows: int, at_least: int = 1) -> int:
    """Number of shards of a split whose rows are placed by hash: the power of two that keeps their mean in the limits.

    ``row_bytes`` are integers, shape (n_rows,); others as in `cut`. ``at_least`` is what is published: while it is
    enough, it stays, so that no row moves.
    """
    size = int(np.asarray(row_bytes, dtype=np.int64).sum()) + overhead * len(row_bytes)
    needed = max(-(-size // limit), -(-len(row_bytes) // max_rows), 1)
    return max(1 << (needed - 1).bit_length(), at_least)


def cut_by_hash(row_hash: np.ndarray, n_shards: int) -> list[tuple[int, int, int]]:
    """Cut rows at fixed hashes, so that a row's shard does not depend on other rows.

    Parameters
    ----------
    row_hash : numpy.ndarray, float64, shape (n_rows,)
        Ascending, from 0 to below 1.
    n_shards : int
        Row r is in shard ``floor(row_hash[r] * n_shards)``.

    Returns
    -------
    list of (number, start, stop)
        Of the shards that have rows.
    """
    numbers = np.floor(row_hash * n_shards).astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    stops = [*starts[1:].tolist(), len(numbers)]
    return [(int(numbers[start]), start, stop) for start, stop in zip(starts.tolist(), stops, strict=True)]


def _sizes(n: int, test_size: float, valid_size: float, units: str) -> tuple[int, int]:
    check_sizes(test_size, valid_size)
    _require_enough(n, valid_size, units)
    n_test, n_valid = math.ceil(test_size * n), math.ceil(valid_size * n)
    if n_test + n_valid >= n:
        raise MergeError(
            f"test_size {test_size:g}{f' and valid_size {valid_size:g}' if valid_size else ''} leaves nothing to train "
            "on",
            found=f"all {n} {units} would be test{' or valid' if valid_size else ''}",
            remedy="lower test_size",
        )
    return n_test, n_valid


def _require_enough(n: int, valid_size: float, units: str) -> None:
    needed, words = (3, "three") if valid_size else (2, "two")
    if n < needed:
        parts = "one to train, one to validate and one to test" if valid_size else "one to train and one to test"
        raise MergeError(
            f"split_by: {units} needs at least {words} {units}, {parts}",
            found=f"{n} {units if n != 1 else units.removesuffix('s')}",
            remedy="merge more components or sessions" + ("" if units == "rows" else ", or set split_by: rows"),
        )
