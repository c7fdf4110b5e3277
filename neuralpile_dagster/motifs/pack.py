"""Patches of a row of spike counts, each packed into a key of 64 bits where it fits."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuralpile_dagster.motifs.shape import KEY_CELLS, MAX_KEY_COUNT, MotifShape


def pack(counts: np.ndarray, shape: MotifShape) -> tuple[np.ndarray, np.ndarray]:
    """Pack every patch of a row into a key.

    The key is the sum of ``count[j] << 4 * j`` over the patch's cells, unit after unit. Silent patches have key 0.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
        Padded with silence to a multiple of the shape.
    shape : MotifShape
        Of at most 16 cells (`MotifShape.has_keys`).

    Returns
    -------
    keys : numpy.ndarray, uint64, shape (n_patches along units, n_patches along bins)
    without_key : numpy.ndarray, int64, shape (n,)
        Places, in ``keys.ravel()``, of patches with a count above 15, which have no key; there is 0 in ``keys``.
    """
    if not shape.has_keys:
        raise ValueError(f"a patch of {shape.name} has more than {KEY_CELLS} cells")
    keys = np.zeros(shape.grid(*counts.shape), np.uint64)
    without = np.zeros(keys.shape, np.bool_)
    if _pack(counts, shape.n_units, shape.n_bins, keys, without):
        keys[without] = 0
        return keys, np.flatnonzero(without)
    return keys, np.zeros(0, np.int64)


@njit(cache=True, nogil=True)
def _pack(counts: np.ndarray, n_units: int, n_bins: int, keys: np.ndarray, without: np.ndarray) -> bool:
    found = False
    whole = counts.shape[1] // n_bins
    for unit in range(counts.shape[0]):
        row, target, flags = counts[unit], keys[unit // n_units], without[unit // n_units]
        first = 4 * n_bins * (unit % n_units)
        largest = np.uint8(0)
        for bin in range(len(row)):
            largest = max(largest, row[bin])
        for patch in range(whole):
            piece = row[patch * n_bins : (patch + 1) * n_bins]
            key = np.uint64(0)
            for j in range(n_bins):
                key |= np.uint64(piece[j]) << np.uint64(first + 4 * j)
            target[patch] |= key
        if whole < len(target):
            for j in range(len(row) - whole * n_bins):
                target[whole] |= np.uint64(row[whole * n_bins + j]) << np.uint64(first + 4 * j)
        if largest > MAX_KEY_COUNT:
            found = True
            for bin in range(len(row)):
                if row[bin] > MAX_KEY_COUNT:
                    flags[bin // n_bins] = True
    return found


def take(counts: np.ndarray, shape: MotifShape, places: np.ndarray | None = None) -> np.ndarray:
    """Patches of a row as they are.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    shape : MotifShape
    places : numpy.ndarray, int64, shape (n,), optional
        Numbers of patches, units before bins, as `pack` gives them; all when not given.

    Returns
    -------
    numpy.ndarray, uint8, shape (n, n_cells)
        A patch's counts, unit after unit.
    """
    rows, columns = shape.grid(*counts.shape)
    if places is not None:
        row, column = np.divmod(places, max(columns, 1))
        units = (row * shape.n_units)[:, None, None] + np.arange(shape.n_units)[:, None]
        bins = (column * shape.n_bins)[:, None, None] + np.arange(shape.n_bins)
        inside = (units < counts.shape[0]) & (bins < counts.shape[1])
        found = counts[np.minimum(units, counts.shape[0] - 1), np.minimum(bins, counts.shape[1] - 1)]
        return np.where(inside, found, np.uint8(0)).reshape(-1, shape.cells)
    missing = (rows * shape.n_units - counts.shape[0], columns * shape.n_bins - counts.shape[1])
    padded = np.pad(counts, ((0, missing[0]), (0, missing[1]))) if any(missing) else counts
    cut = padded.reshape(rows, shape.n_units, columns, shape.n_bins)
    return np.ascontiguousarray(cut.transpose(0, 2, 1, 3)).reshape(-1, shape.cells)


def keys_of(patches: np.ndarray) -> np.ndarray:
    """Keys of patches whose counts are at most 15.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n, n_cells)

    Returns
    -------
    numpy.ndarray, uint64, shape (n,)
    """
    shifts = np.arange(patches.shape[1], dtype=np.uint64) * np.uint64(4)
    return np.bitwise_or.reduce(patches.astype(np.uint64) << shifts, axis=1, initial=np.uint64(0))


def patches_of(keys: np.ndarray, n_cells: int) -> np.ndarray:
    """Patches of keys; `keys_of` the other way round.

    Parameters
    ----------
    keys : numpy.ndarray, uint64, shape (n,)
    n_cells : int

    Returns
    -------
    numpy.ndarray, uint8, shape (n, n_cells)
    """
    shifts = np.arange(n_cells, dtype=np.uint64) * np.uint64(4)
    return ((keys[:, None] >> shifts) & np.uint64(MAX_KEY_COUNT)).astype(np.uint8)
