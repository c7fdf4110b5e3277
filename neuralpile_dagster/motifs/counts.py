"""Motifs and how often each occurs (`MotifCounts`), in order; and patches of a row of spike counts, packed into keys.

A key has 64 bits, four for each cell: patches of at most 16 cells, with counts of at most 15, have one. Counting the
patches of rows belongs in `histogram`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from neuralpile_dagster.motifs.records import KEY_CELLS, MAX_KEY_COUNT, N_BUCKETS, MotifShape


@dataclass(frozen=True, eq=False)
class MotifCounts:
    """How often each motif occurs; silence is not among them.

    Attributes
    ----------
    shape : MotifShape
    keys : numpy.ndarray, uint64, shape (n,)
        Motifs that have a key, ascending.
    key_counts : numpy.ndarray, int64, shape (n,)
    patches : numpy.ndarray, uint8, shape (m, n_cells)
        Motifs without a key, ascending as bytes: those with a count above 15, and all of a shape above 16 cells.
    patch_counts : numpy.ndarray, int64, shape (m,)
    """

    shape: MotifShape
    keys: np.ndarray
    key_counts: np.ndarray
    patches: np.ndarray
    patch_counts: np.ndarray

    @classmethod
    def none(cls, shape: MotifShape) -> MotifCounts:
        """No motif."""
        no_counts = np.zeros(0, np.int64)
        return cls(shape, np.zeros(0, np.uint64), no_counts, np.zeros((0, shape.cells), np.uint8), no_counts)

    def __len__(self) -> int:
        """Number of different motifs."""
        return len(self.keys) + len(self.patches)

    @cached_property
    def total(self) -> int:
        """Number of patches."""
        return int(self.key_counts.sum() + self.patch_counts.sum())

    @cached_property
    def spikes(self) -> int:
        """Spikes in all patches."""
        of_keys = _spikes_of_keys(self.keys).astype(np.int64) @ self.key_counts
        return int(of_keys + self.patches.sum(axis=1, dtype=np.int64) @ self.patch_counts)

    @property
    def all_patches(self) -> np.ndarray:
        """Cells of every motif, those with a key first: uint8, shape (n + m, n_cells)."""
        return np.concatenate([patches_of(self.keys, self.shape.cells), self.patches])

    @property
    def all_counts(self) -> np.ndarray:
        """How often each of `all_patches` occurs: int64, shape (n + m,)."""
        return np.concatenate([self.key_counts, self.patch_counts])

    def plus(self, other: MotifCounts) -> MotifCounts:
        """Sum of both."""
        keys, key_counts = _plus_keys(self, other)
        patches, patch_counts = self.patches, self.patch_counts
        if len(other.patches):
            patches, patch_counts = summed_patches(
                np.concatenate([patches, other.patches]), np.concatenate([patch_counts, other.patch_counts])
            )
        return MotifCounts(self.shape, keys, key_counts, patches, patch_counts)

    def minus(self, other: MotifCounts) -> MotifCounts:
        """Without what ``other`` counts; raises `ValueError` when it counts more of a motif than there are."""
        both = self.plus(MotifCounts(other.shape, other.keys, -other.key_counts, other.patches, -other.patch_counts))
        if np.any(both.key_counts < 0) or np.any(both.patch_counts < 0):
            raise ValueError("a motif would occur less than 0 times")
        keys, patches = both.key_counts > 0, both.patch_counts > 0
        return MotifCounts(
            self.shape, both.keys[keys], both.key_counts[keys], both.patches[patches], both.patch_counts[patches]
        )


def total_of(parts: Iterable[MotifCounts], shape: MotifShape) -> MotifCounts:
    """Sum of all parts, taken one by one.

    Sums wait until another of about their size is there, so that each motif is copied as often as the number of parts
    has digits (base 2); memory is that of the sum, twice.
    """
    waiting: list[MotifCounts] = []
    for part in parts:
        waiting.append(part)
        while len(waiting) > 1 and len(waiting[-2]) <= 2 * len(waiting[-1]):
            last = waiting.pop()
            waiting[-1] = waiting[-1].plus(last)
    total = MotifCounts.none(shape)
    while waiting:
        total = waiting.pop().plus(total)
    return total


def as_texts(patches: np.ndarray) -> np.ndarray:
    """Patches as byte strings of one length, which sort as their bytes: dtype S<n_cells>, shape (n,)."""
    cells = patches.shape[1]
    return np.ascontiguousarray(patches).view(f"S{cells}").reshape(len(patches))


def summed_patches(patches: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the counts of equal patches.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n, n_cells)
    counts : numpy.ndarray, int64, shape (n,)

    Returns
    -------
    patches : numpy.ndarray, uint8, shape (m, n_cells)
        The different ones, ascending as bytes.
    counts : numpy.ndarray, int64, shape (m,)
    """
    texts, inverse = np.unique(as_texts(patches), return_inverse=True)
    sums = np.zeros(len(texts), np.int64)
    np.add.at(sums, inverse, counts)
    return texts.view(np.uint8).reshape(len(texts), patches.shape[1]), sums


def _spikes_of_keys(keys: np.ndarray) -> np.ndarray:
    """Spikes in the patch of each key (the sum of its 16 digits): uint64, shape (n,)."""
    digits = np.uint64(0x0F0F0F0F0F0F0F0F)
    pairs = (keys & digits) + ((keys >> np.uint64(4)) & digits)
    return (pairs * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _plus_keys(one: MotifCounts, other: MotifCounts) -> tuple[np.ndarray, np.ndarray]:
    if not len(other.keys) or not len(one.keys):
        some = one if len(one.keys) else other
        return some.keys, some.key_counts
    keys = np.empty(len(one.keys) + len(other.keys), np.uint64)
    counts = np.empty(len(keys), np.int64)
    n = _merge(
        _read_only(one.keys),
        _read_only(one.key_counts),
        _read_only(other.keys),
        _read_only(other.key_counts),
        keys,
        counts,
    )
    if 2 * n < len(keys):  # do not keep the memory of what was equal
        return keys[:n].copy(), counts[:n].copy()
    return keys[:n], counts[:n]


def _read_only(values: np.ndarray) -> np.ndarray:
    """A view as Arrow's arrays are: numba would compile for each mixture of both kinds."""
    view = values.view()
    view.flags.writeable = False
    return view


@njit(cache=True, nogil=True)
def _merge(
    keys: np.ndarray,
    counts: np.ndarray,
    other_keys: np.ndarray,
    other_counts: np.ndarray,
    merged: np.ndarray,
    merged_counts: np.ndarray,
) -> int:
    i, j, n = 0, 0, 0
    while i < len(keys) and j < len(other_keys):
        if keys[i] < other_keys[j]:
            merged[n], merged_counts[n] = keys[i], counts[i]
            i += 1
        elif keys[i] > other_keys[j]:
            merged[n], merged_counts[n] = other_keys[j], other_counts[j]
            j += 1
        else:
            merged[n], merged_counts[n] = keys[i], counts[i] + other_counts[j]
            i += 1
            j += 1
        n += 1
    for k in range(i, len(keys)):
        merged[n], merged_counts[n] = keys[k], counts[k]
        n += 1
    for k in range(j, len(other_keys)):
        merged[n], merged_counts[n] = other_keys[k], other_counts[k]
        n += 1
    return n


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


def bucket_of_keys(keys: np.ndarray) -> np.ndarray:
    """Bucket of each motif that has a key: the lowest six bits of splitmix64.

    Parameters
    ----------
    keys : numpy.ndarray, uint64, shape (n,)

    Returns
    -------
    numpy.ndarray, uint8, shape (n,)

    References
    ----------
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(N_BUCKETS - 1)).astype(np.uint8)


def bucket_of_patches(patches: np.ndarray) -> np.ndarray:
    """Bucket of each motif without a key: the lowest six bits of the first byte of its sha256.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n, n_cells)

    Returns
    -------
    numpy.ndarray, uint8, shape (n,)
    """
    first = (hashlib.sha256(patch.tobytes()).digest()[0] % N_BUCKETS for patch in patches)
    return np.fromiter(first, np.uint8, len(patches))
