"""Shape of a motif, and which of 64 buckets a motif belongs to."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.errors import ConfigurationError

MAX_CELLS = 64
KEY_CELLS = 16
"""Cells that fit into a key of 64 bits, four bits each."""
MAX_KEY_COUNT = 15
N_BUCKETS = 64
BUCKETS = tuple(f"{bucket:02d}" for bucket in range(N_BUCKETS))
"""Partition keys of what is made bucket by bucket."""


@dataclass(frozen=True, order=True)
class MotifShape:
    """Shape of a patch of spike counts.

    A row of counts is padded at its end with silent units and bins to a multiple of the shape, and cut into patches
    that do not overlap.

    Attributes
    ----------
    n_units, n_bins : int
        Of one patch; at most `MAX_CELLS` cells.

    Raises
    ------
    ConfigurationError
        Another number of cells.
    """

    n_units: int
    n_bins: int

    def __post_init__(self) -> None:
        if self.n_units < 1 or self.n_bins < 1 or self.cells > MAX_CELLS:
            raise ConfigurationError(
                f"the motif shape {self.name} is invalid",
                found=f"{self.n_units} units x {self.n_bins} bins",
                expected=f"at least one of each, and at most {MAX_CELLS} cells",
            )

    @property
    def cells(self) -> int:
        """Counts in a patch."""
        return self.n_units * self.n_bins

    @property
    def name(self) -> str:
        """``<units>x<bins>``, e.g. ``1x15``."""
        return f"{self.n_units}x{self.n_bins}"

    @property
    def has_keys(self) -> bool:
        """Whether a patch fits into a key."""
        return self.cells <= KEY_CELLS

    @classmethod
    def parse(cls, name: str) -> MotifShape:
        """The shape of that `name`; raises `ConfigurationError` for another text."""
        if not (match := re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", name)):
            raise ConfigurationError("a motif shape is invalid", found=name[:60], expected="<units>x<bins>, e.g. 1x15")
        return cls(int(match[1]), int(match[2]))

    def grid(self, n_units: int, n_bins: int) -> tuple[int, int]:
        """Patches of a row of counts: (along its units, along its bins)."""
        return -(-n_units // self.n_units), -(-n_bins // self.n_bins)

    def n_patches(self, n_units: int, n_bins: int) -> int:
        """Number of patches of a row of counts."""
        along_units, along_bins = self.grid(n_units, n_bins)
        return along_units * along_bins


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
