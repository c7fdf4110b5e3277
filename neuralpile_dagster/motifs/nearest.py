"""Numbers of patches among known ones: of the same one (`Lookup`), and of the most similar one (`References`).

Similarity is that of cosines, decided in whole numbers. For a patch m it is the reference r with the largest
(m.r)^2 / |r|^2 among those with m.r > 0, of equals the first. Products m.r are exact in float32, so their quotients by
the rounded |r| preselect candidates; candidates are compared exactly. So the result depends neither on a BLAS nor on
threads, batches or the processor.

References that use the same cells lie in the same blocks. Where U are the cells that any reference of a block uses, and
w cells that all of them use are silent in m, (m.r)^2 / |r|^2 is at most |m in U|^2 (1 - w / x), x being the largest
|r|^2 (Cauchy and Schwarz; counts are at least 1): most blocks need not be compared.

Bounds, for counts up to 255 and `MAX_NEAREST_CELLS` = 32 cells: m.r and |r|^2 are at most 32 * 255^2 = 2,080,800,
below 2^24 (float32 is exact there, in any order of adding); (m.r)^2 |s|^2 is at most 2,080,800^3 = 9.01e18, below
2^63. With 33 cells it would not be.

`Lookup` finds patches that are known themselves, by hashing their keys or bytes. What the numbers of patches mean
belongs in `vocabulary`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from neuralpile_dagster.motifs.counts import keys_of
from neuralpile_dagster.motifs.records import MAX_KEY_COUNT, MotifShape

MAX_NEAREST_CELLS = 32
"""Cells of a patch with which exact comparison fits int64."""

_BLOCK = 256
"""References compared at a time: their counts stay in the processor's first cache."""
_BATCH = 32
"""Patches compared with a block before the next; they leave the block in that cache."""
_NOT_WORSE = np.float32(1 - 2**-20)
"""The rounding of two quotients is below 2^-21 of them: below this share of the best one, a reference is worse."""
_PROMISING = 3
"""Blocks that a patch is compared with first, in the order of their bounds: the best is among them, mostly."""
_LEAST = np.float32(1e-5)
"""Below the quotient of any overlap: 1 / sqrt(2,080,800) = 7e-4."""

_EMPTY = np.uint32(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FNV = np.uint64(0x100000001B3)


class References:
    """Patches to compare others with.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n_references, n_cells)
        At most `MAX_NEAREST_CELLS` cells.
    """

    def __init__(self, patches: np.ndarray) -> None:
        n_cells = patches.shape[1]
        if n_cells > MAX_NEAREST_CELLS:
            raise ValueError(f"{n_cells} cells, at most {MAX_NEAREST_CELLS} can be compared exactly")
        groups = _groups(patches)
        numbers = np.zeros((len(groups), _BLOCK), np.int64)
        blocks = np.zeros((len(groups), _BLOCK, n_cells), np.float32)
        used = np.zeros((2, n_cells, len(groups)), np.float32)
        for block, group in enumerate(groups):
            numbers[block, : len(group)] = group
            blocks[block, : len(group)] = patches[group]
            used[:, :, block] = (patches[group] > 0).any(axis=0), (patches[group] > 0).all(axis=0)
        squares = np.square(blocks).sum(axis=2).astype(np.int64)
        with np.errstate(divide="ignore"):
            inverse = np.where(squares > 0, 1 / np.sqrt(squares), 0).astype(np.float32)
        in_any, in_all = used
        counts, largest = np.ascontiguousarray(blocks.transpose(0, 2, 1)), squares.max(axis=1, initial=1)
        # in the order in which `_nearest` takes them
        self._known = counts, inverse, squares, numbers, in_any, in_all, in_all.sum(axis=0), largest.astype(np.float32)

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
        if threads == 1 or len(patches) < 2 * _BATCH:
            _nearest(np.ascontiguousarray(patches), *self._known, found)
            return found
        with ThreadPoolExecutor(threads, "nearest") as pool:
            parts = zip(np.array_split(patches, threads), np.array_split(found, threads), strict=True)
            for done in [pool.submit(_nearest, np.ascontiguousarray(part), *self._known, into) for part, into in parts]:
                done.result()
        return found


def _groups(patches: np.ndarray) -> list[np.ndarray]:
    """Row numbers in groups of at most `_BLOCK`, ascending, cut by whether a cell is used until they are so small."""
    waiting, groups = [np.arange(len(patches))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) > _BLOCK:
            used = patches[rows] > 0
            halves = np.abs(used.mean(axis=0) - 0.5)
            first = used[:, np.argmin(halves)] if halves.min() < 0.5 else np.arange(len(rows)) < len(rows) // 2
            waiting += [rows[first], rows[~first]]
        elif len(rows):
            groups.append(rows)
    return groups


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


@njit(cache=True, nogil=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
def _bound(
    i: int,
    cells: np.ndarray,
    weights: np.ndarray,
    used: int,
    in_any: np.ndarray,
    in_all: np.ndarray,
    n_all: np.ndarray,
    largest: np.ndarray,
    room: np.ndarray,
    bounds: np.ndarray,
) -> None:
    """What no square of a quotient of patch ``i`` exceeds, in each block."""
    for block in range(len(largest)):
        bounds[i, block] = 0
        room[block] = largest[block] - n_all[block]
    for at in range(used):
        cell, square = cells[i, at], weights[i, at] * weights[i, at]
        one = np.float32(1) if weights[i, at] else np.float32(0)
        for block in range(len(largest)):
            bounds[i, block] += square * in_any[cell, block]
            room[block] += one * in_all[cell, block]
    for block in range(len(largest)):
        bounds[i, block] *= room[block] / largest[block]


@njit(cache=True, nogil=True)
def _nearest(
    patches: np.ndarray,
    counts: np.ndarray,
    inverse: np.ndarray,
    squares: np.ndarray,
    numbers: np.ndarray,
    in_any: np.ndarray,
    in_all: np.ndarray,
    n_all: np.ndarray,
    largest: np.ndarray,
    found: np.ndarray,
) -> None:
    products, n_blocks = np.empty(_BLOCK, np.float32), len(counts)
    width = (patches.shape[1] + 3) // 4 * 4
    cells, weights = np.empty((_BATCH, width), np.int64), np.empty((_BATCH, width), np.float32)
    used, room = np.empty(_BATCH, np.int64), np.empty(n_blocks, np.float32)
    best_product, best_square = np.empty(_BATCH, np.int64), np.empty(_BATCH, np.int64)
    best_quotient = np.empty(_BATCH, np.float32)
    bounds = np.empty((_BATCH, n_blocks), np.float32)
    found[:] = -1
    if not n_blocks:
        return
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
            used[i] = (last + 3) // 4 * 4
            _bound(i, cells, weights, used[i], in_any, in_all, n_all, largest, room, bounds)
        for turn in range(_PROMISING + n_blocks):
            for i in range(n):
                block = int(np.argmax(bounds[i])) if turn < _PROMISING else turn - _PROMISING
                enough = best_quotient[i] * _NOT_WORSE
                if bounds[i, block] < enough * enough * _NOT_WORSE:
                    continue
                bounds[i, block] = 0  # once
                if not _compare(i, cells, weights, used[i], block, counts, inverse, enough, products):
                    continue
                for k in range(_BLOCK):
                    quotient = products[k] * inverse[block, k]
                    if quotient < best_quotient[i] * _NOT_WORSE:
                        continue
                    product, square, number = np.int64(products[k]), squares[block, k], numbers[block, k]
                    ours, best = product * product * best_square[i], best_product[i] * best_product[i] * square
                    if ours > best or (ours == best and number < found[first + i]):
                        best_product[i], best_square[i], best_quotient[i] = product, square, quotient
                        found[first + i] = number


class Lookup:
    """Numbers of distinct patches, the first being 0.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n_known, n_cells)
        Fewer than 2^32.
    shape : MotifShape

    Raises
    ------
    ValueError
        Two patches are equal.
    """

    def __init__(self, patches: np.ndarray, shape: MotifShape) -> None:
        self._patches = np.ascontiguousarray(patches)
        bits = max(1, (2 * len(patches) - 1).bit_length())  # at most half of the slots are taken
        self._shift = np.uint64(64 - bits)
        self._rows = np.full(1 << bits, _EMPTY, np.uint32)
        if not _insert_patches(self._patches, self._rows, self._shift):
            raise ValueError("two patches are equal")
        with_keys = (self._patches <= MAX_KEY_COUNT).all(axis=1) & shape.has_keys
        numbers = np.flatnonzero(with_keys).astype(np.uint32)
        self._keys = np.zeros(1 << bits, np.uint64)
        self._numbers = np.full(1 << bits, _EMPTY, np.uint32)
        _insert_keys(keys_of(self._patches[with_keys]), numbers, self._keys, self._numbers, self._shift)

    def of_keys(self, keys: np.ndarray, found: np.ndarray, missing: int) -> int:
        """Find patches by key.

        Parameters
        ----------
        keys : numpy.ndarray, uint64, shape (n,)
        found : numpy.ndarray, uint16 or uint32, shape (n,)
            Becomes their numbers.
        missing : int
            Stands in ``found`` for a key that is not known.

        Returns
        -------
        int
            How many are not known.
        """
        return int(_find_keys(keys, self._keys, self._numbers, self._shift, found, found.dtype.type(missing)))

    def of_patches(self, patches: np.ndarray, found: np.ndarray, missing: int) -> int:
        """Find patches by their bytes; as `of_keys`.

        Parameters
        ----------
        patches : numpy.ndarray, uint8, shape (n, n_cells)
        found : numpy.ndarray, uint16 or uint32, shape (n,)
            Becomes their numbers.
        missing : int
            Stands in ``found`` for a patch that is not known.

        Returns
        -------
        int
            How many are not known.
        """
        known = (self._patches, self._rows, self._shift)
        return int(_find_patches(np.ascontiguousarray(patches), *known, found, found.dtype.type(missing)))


@njit(cache=True, nogil=True)
def _insert_keys(keys: np.ndarray, numbers: np.ndarray, slots: np.ndarray, taken: np.ndarray, shift: np.uint64) -> None:
    last = len(slots) - 1
    for i in range(len(keys)):
        slot = np.int64((keys[i] * _GOLDEN) >> shift)
        while taken[slot] != _EMPTY:
            slot = (slot + 1) & last
        slots[slot], taken[slot] = keys[i], numbers[i]


@njit(cache=True, nogil=True)
def _find_keys(
    keys: np.ndarray, slots: np.ndarray, taken: np.ndarray, shift: np.uint64, found: np.ndarray, missing: int
) -> int:
    last = len(slots) - 1
    unknown = 0
    for i in range(len(keys)):
        key = keys[i]
        slot = np.int64((key * _GOLDEN) >> shift)
        while taken[slot] != _EMPTY and slots[slot] != key:
            slot = (slot + 1) & last
        if taken[slot] == _EMPTY:
            found[i] = missing
            unknown += 1
        else:
            found[i] = taken[slot]
    return unknown


@njit(cache=True, nogil=True)
def _slot_of_patch(patches: np.ndarray, i: int, known: np.ndarray, rows: np.ndarray, shift: np.uint64) -> np.int64:
    """The slot of a patch, or the empty one where it belongs."""
    mixed = np.uint64(0xCBF29CE484222325)
    for j in range(patches.shape[1]):
        mixed = (mixed ^ np.uint64(patches[i, j])) * _FNV
    slot = np.int64((mixed * _GOLDEN) >> shift)
    while rows[slot] != _EMPTY:
        row = rows[slot]
        same = True
        for j in range(patches.shape[1]):
            same &= patches[i, j] == known[row, j]
        if same:
            break
        slot = (slot + 1) & (len(rows) - 1)
    return slot


@njit(cache=True, nogil=True)
def _insert_patches(patches: np.ndarray, rows: np.ndarray, shift: np.uint64) -> bool:
    for i in range(len(patches)):
        slot = _slot_of_patch(patches, i, patches, rows, shift)
        if rows[slot] != _EMPTY:
            return False
        rows[slot] = i
    return True


@njit(cache=True, nogil=True)
def _find_patches(
    patches: np.ndarray, known: np.ndarray, rows: np.ndarray, shift: np.uint64, found: np.ndarray, missing: int
) -> int:
    unknown = 0
    for i in range(len(patches)):
        row = rows[_slot_of_patch(patches, i, known, rows, shift)]
        if row == _EMPTY:
            found[i] = missing
            unknown += 1
        else:
            found[i] = row
    return unknown
