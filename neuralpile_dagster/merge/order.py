"""Splits drawn from a permutation, as those of the published pile are, and the permutation that orders its rows.

Pure functions of numbers; the rule is that of ``datasets``' ``Dataset.train_test_split`` (docs/merge.md). Splits by
hash belong in `splits`.
"""

from __future__ import annotations

import math

import numpy as np

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import TEST, TRAIN, VALID


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


def _sizes(n: int, test_size: float, valid_size: float, units: str) -> tuple[int, int]:
    """How many of ``n`` rows (sessions) become test and valid."""
    check_sizes(test_size, valid_size)
    needed, words = (3, "three") if valid_size else (2, "two")
    if n < needed:
        parts = "one to train, one to validate and one to test" if valid_size else "one to train and one to test"
        raise MergeError(
            f"split_by: {units} needs at least {words} {units}, {parts}",
            found=f"{n} {units if n != 1 else units.removesuffix('s')}",
            remedy="merge more components or sessions" + ("" if units == "rows" else ", or set split_by: rows"),
        )
    n_test, n_valid = math.ceil(test_size * n), math.ceil(valid_size * n)
    if n_test + n_valid >= n:
        raise MergeError(
            f"test_size {test_size:g}{f' and valid_size {valid_size:g}' if valid_size else ''} leaves nothing to train "
            "on",
            found=f"all {n} {units} would be test{' or valid' if valid_size else ''}",
            remedy="lower test_size",
        )
    return n_test, n_valid
