"""Count the motifs of rows in memory, row after row.

Both tables are hash tables with open addressing: most patches are ones that were seen before, and only the different
ones are sorted, once. Files belong in `files`, what is counted for a session in `histogram`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from neuralpile_dagster.motifs.counts import MotifCounts, summed_patches
from neuralpile_dagster.motifs.pack import pack, take
from neuralpile_dagster.motifs.shape import N_BUCKETS, MotifShape, bucket_of_keys, bucket_of_patches

_SMALLEST = 1 << 12
"""Slots of an empty table."""


class MotifCounter:
    """Motifs of the rows added so far.

    Memory: 32 to 64 bytes for each motif with a key, and for each without one its cells and 24 to 48 bytes.

    Attributes
    ----------
    shape : MotifShape
    rows, tokens, patches, silent : int
        Of all rows added, also those before `take`; ``patches`` are all, ``silent`` those without a spike.
    """

    def __init__(self, shape: MotifShape) -> None:
        self.shape = shape
        self.rows = self.tokens = self.patches = self.silent = 0
        self._empty()

    def _empty(self) -> None:
        self._keys = np.zeros((_SMALLEST, 2), np.uint64)
        self._n_keys = 0
        self._slots = np.full(_SMALLEST, -1, np.int64)
        self._patches = np.zeros((_SMALLEST // 2, self.shape.cells), np.uint8)
        self._patch_counts = np.zeros(_SMALLEST // 2, np.int64)
        self._n_patches = 0

    def __len__(self) -> int:
        """Number of different motifs."""
        return self._n_keys + self._n_patches

    def add(self, counts: np.ndarray) -> None:
        """Count the patches of a row: uint8, shape (n_units, n_bins)."""
        patches = self.shape.n_patches(*counts.shape)
        self.rows += 1
        self.tokens += counts.size
        self.patches += patches
        if self.shape.has_keys:
            keys, without = pack(counts, self.shape)
            self.silent += self._add_keys(keys.reshape(-1)) - len(without)
            if len(without):
                self._add_patches(take(counts, self.shape, without))
        elif patches:
            self.silent += self._add_patches(take(counts, self.shape))

    def take(self) -> Iterator[MotifCounts]:
        """The motifs of each bucket, one after the other; from then on the counter is empty."""
        used = self._keys[self._keys[:, 0] != 0]
        patches, counts = self._patches[: self._n_patches], self._patch_counts[: self._n_patches]
        self._empty()
        keys, key_counts = used[:, 0].copy(), used[:, 1].astype(np.int64)
        del used
        order = np.argsort(keys)
        order = order[np.argsort(bucket_of_keys(keys[order]), kind="stable")]
        keys, key_counts = keys[order], key_counts[order]
        patches, counts = summed_patches(patches, counts)
        places = bucket_of_patches(patches)
        ends = np.searchsorted(bucket_of_keys(keys), np.arange(N_BUCKETS + 1))
        for bucket in range(N_BUCKETS):
            part, chosen = slice(ends[bucket], ends[bucket + 1]), places == bucket
            yield MotifCounts(self.shape, keys[part], key_counts[part], patches[chosen], counts[chosen])

    def _add_keys(self, keys: np.ndarray) -> int:
        """Count keys; the number of those that are 0."""
        silent, ones = 0, np.zeros(0, np.uint64)
        while True:
            done, self._n_keys, zeros = _count_keys(keys, ones, self._keys, self._n_keys)
            silent += zeros
            if done == len(keys):
                return silent
            keys = keys[done:]
            old = self._keys[self._keys[:, 0] != 0]
            self._keys = np.zeros((2 * len(self._keys), 2), np.uint64)
            _, self._n_keys, _ = _count_keys(old[:, 0].copy(), old[:, 1].copy(), self._keys, 0)

    def _add_patches(self, patches: np.ndarray) -> int:
        """Count patches; the number of those without a spike."""
        silent = 0
        while True:
            done, self._n_patches, zeros = _count_patches(
                patches, self._slots, self._patches, self._patch_counts, self._n_patches
            )
            silent += zeros
            if done == len(patches):
                return silent
            patches = patches[done:]
            room = len(self._slots)
            old, old_counts = self._patches, self._patch_counts
            self._slots = np.full(2 * room, -1, np.int64)
            self._patches = np.zeros((room, self.shape.cells), np.uint8)
            self._patch_counts = np.zeros(room, np.int64)
            _count_patches(old, self._slots, self._patches, self._patch_counts, 0)
            self._patch_counts[: len(old)] = old_counts  # they were inserted in their order


@njit(cache=True, nogil=True)
def _count_keys(keys: np.ndarray, weights: np.ndarray, table: np.ndarray, used: int) -> tuple[int, int, int]:
    """Count keys (by weights, if there are any) in a table of (key, count) whose free slots have key 0.

    Stops before a new key when the table is half full: number of keys counted, of slots used, of keys that are 0.
    """
    mask, shift, silent = len(table) - 1, np.uint64(64), 0
    while (1 << (64 - np.int64(shift))) < len(table):
        shift -= np.uint64(1)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0:
            silent += 1
            continue
        slot = np.int64(((key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
        while table[slot, 0] != key:
            if table[slot, 0] == 0:
                if 2 * used >= len(table):
                    return i, used, silent
                table[slot, 0] = key
                used += 1
                break
            slot = (slot + 1) & mask
        table[slot, 1] += weights[i] if len(weights) else np.uint64(1)
    return len(keys), used, silent


@njit(cache=True, nogil=True)
def _count_patches(
    patches: np.ndarray, slots: np.ndarray, known: np.ndarray, counts: np.ndarray, used: int
) -> tuple[int, int, int]:
    """Count patches whose places in ``known`` are in ``slots`` (-1: free).

    Stops before a new patch when ``known`` is full: number of patches counted, of patches known, of silent ones.
    """
    mask, silent = len(slots) - 1, 0
    for i in range(len(patches)):
        patch = patches[i]
        hashed, spikes = np.uint64(0xCBF29CE484222325), False
        for cell in patch:  # FNV-1a
            hashed = (hashed ^ np.uint64(cell)) * np.uint64(0x100000001B3)
            spikes |= cell != 0
        if not spikes:
            silent += 1
            continue
        slot = np.int64((hashed ^ (hashed >> np.uint64(29))) & np.uint64(mask))
        while True:
            place = slots[slot]
            if place < 0:
                if used == len(known):
                    return i, used, silent
                known[used] = patch
                slots[slot] = used
                place = used
                used += 1
                break
            same = True
            for j in range(len(patch)):
                if known[place, j] != patch[j]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & mask
        counts[place] += 1
    return len(patches), used, silent
