"""Find the numbers of known patches by hashing, by key and by bytes; what the numbers mean belongs elsewhere."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuralpile_dagster.motifs.pack import keys_of
from neuralpile_dagster.motifs.shape import MAX_KEY_COUNT, MotifShape

_EMPTY = np.uint32(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FNV = np.uint64(0x100000001B3)


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
