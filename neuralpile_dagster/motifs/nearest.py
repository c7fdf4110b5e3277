"""The reference that a patch is most similar to: cosine similarity, decided in whole numbers.

For a patch m the reference r with the largest (m.r)^2 / |r|^2 among those with m.r > 0, of equals the first. Products
m.r are exact in float32, so their quotients by the rounded |r| preselect candidates, block after block of references;
candidates are compared exactly. So the result depends neither on a BLAS nor on threads, batches or the processor.

Bounds, for counts up to 255 and `MAX_NEAREST_CELLS` = 32 cells: m.r and |r|^2 are at most 32 * 255^2 = 2,080,800,
below 2^24 (float32 is exact there, in any order of adding); (m.r)^2 |s|^2 is at most 2,080,800^3 = 9.01e18, below
2^63. With 33 cells it would not be.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

MAX_NEAREST_CELLS = 32
"""Cells of a patch with which exact comparison fits int64."""

_BLOCK = 256
"""References compared at a time: their counts stay in the processor's first cache."""
_BATCH = 64
"""Patches compared with a block before the next; they leave the block in that cache."""
_NOT_WORSE, _BETTER = np.float32(1 - 2**-20), np.float32(1 + 2**-20)
"""The rounding of two quotients is below 2^-21 of them: below the first share of the best one, a reference is worse."""
_DISTINCT = 1 << 18
"""While b^2 |s|^2 is at most this, b being the best one's product, a better s is better by 2^-18 of the square or more:
its quotient is above the second share, and those that are as good, which are many, need no comparison."""
_LEAST = np.float32(1e-5)
"""Below the similarity of any overlap: 1 / sqrt(2,080,800) = 7e-4."""


class References:
    """Patches to compare others with.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n_references, n_cells)
        At most `MAX_NEAREST_CELLS` cells.
    """

    def __init__(self, patches: np.ndarray) -> None:
        n_references, n_cells = patches.shape
        if n_cells > MAX_NEAREST_CELLS:
            raise ValueError(f"{n_cells} cells, at most {MAX_NEAREST_CELLS} can be compared exactly")
        n_blocks = -(-n_references // _BLOCK)
        padded = np.zeros((n_blocks * _BLOCK, n_cells), np.float32)
        padded[:n_references] = patches
        self._counts = np.ascontiguousarray(padded.reshape(n_blocks, _BLOCK, n_cells).transpose(0, 2, 1))
        self._squares = np.zeros((n_blocks, _BLOCK), np.int64)
        self._squares.reshape(-1)[:n_references] = np.square(patches, dtype=np.int64).sum(axis=1)
        self._largest = self._squares.max(axis=1)
        with np.errstate(divide="ignore"):
            self._inverse = np.where(self._squares > 0, 1 / np.sqrt(self._squares), 0).astype(np.float32)

    def nearest(self, patches: np.ndarray, threads: int = 1) -> np.ndarray:
        """Number of the most similar reference of each patch.

        Parameters
        ----------
        patches : numpy.ndarray, uint8, shape (n, n_cells)
        threads : int
            How many parts of the patches are compared at a time; the result does not depend on it.

        Returns
        -------
        numpy.ndarray, int64, shape (n,)
            -1 for a patch that overlaps with no reference.
        """
        found = np.empty(len(patches), np.int64)
        known = (self._counts, self._inverse, self._squares, self._largest)
        if threads == 1 or len(patches) < 2 * _BATCH:
            _nearest(np.ascontiguousarray(patches), *known, found)
            return found
        with ThreadPoolExecutor(threads, "nearest") as pool:
            parts = zip(np.array_split(patches, threads), np.array_split(found, threads), strict=True)
            for done in [pool.submit(_nearest, np.ascontiguousarray(part), *known, into) for part, into in parts]:
                done.result()
        return found


# All sums are of whole numbers below 2^24, so that neither their order nor fused operations change them. Arrays come
# whole, with what is meant of them: a view costs as much as eight references.
@njit(cache=True, nogil=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def _compare(
    i: int,
    cells: np.ndarray,
    weights: np.ndarray,
    used: int,
    block: int,
    counts: np.ndarray,
    inverse: np.ndarray,
    enough: np.float32,
    products: np.ndarray,
) -> np.float32:
    """Products of patch ``i``, its cells in fours, with every reference of a block; how many quotients are enough."""
    for at in range(0, used, 4):
        a, b, c, d = cells[i, at], cells[i, at + 1], cells[i, at + 2], cells[i, at + 3]
        p, q, r, s = weights[i, at], weights[i, at + 1], weights[i, at + 2], weights[i, at + 3]
        for k in range(_BLOCK):
            four = p * counts[block, a, k] + q * counts[block, b, k] + r * counts[block, c, k] + s * counts[block, d, k]
            products[k] = products[k] + four if at else four
    found = np.float32(0)
    for k in range(_BLOCK):
        found += np.float32(1) if products[k] * inverse[block, k] >= enough else np.float32(0)
    return found


@njit(cache=True, nogil=True)
def _nearest(
    patches: np.ndarray,
    counts: np.ndarray,
    inverse: np.ndarray,
    squares: np.ndarray,
    largest: np.ndarray,
    found: np.ndarray,
) -> None:
    products = np.empty(_BLOCK, np.float32)
    width = (patches.shape[1] + 3) // 4 * 4
    cells, weights = np.empty((_BATCH, width), np.int64), np.empty((_BATCH, width), np.float32)
    used = np.empty(_BATCH, np.int64)
    best_product, best_square = np.empty(_BATCH, np.int64), np.empty(_BATCH, np.int64)
    best_quotient = np.empty(_BATCH, np.float32)
    found[:] = -1
    for first in range(0, len(patches), _BATCH):
        n = min(_BATCH, len(patches) - first)
        best_product[:], best_square[:], best_quotient[:] = 0, 1, _LEAST
        cells[:], weights[:] = 0, 0
        for i in range(n):
            last = 0
            for cell in range(patches.shape[1]):
                if patches[first + i, cell]:
                    cells[i, last], weights[i, last] = cell, patches[first + i, cell]
                    last += 1
            used[i] = max(4, (last + 3) // 4 * 4)  # 4 for silence, so that there are products
        for block in range(len(counts)):
            for i in range(n):
                distinct = best_product[i] * best_product[i] * largest[block] <= _DISTINCT
                enough = best_quotient[i] * (_BETTER if distinct else _NOT_WORSE)
                if not _compare(i, cells, weights, used[i], block, counts, inverse, enough, products):
                    continue
                for k in range(_BLOCK):
                    quotient = products[k] * inverse[block, k]
                    if quotient < best_quotient[i] * _NOT_WORSE:
                        continue
                    product, square = np.int64(products[k]), squares[block, k]
                    if product * product * best_square[i] > best_product[i] * best_product[i] * square:
                        best_product[i], best_square[i], best_quotient[i] = product, square, quotient
                        found[first + i] = block * _BLOCK + k
