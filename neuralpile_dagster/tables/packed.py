"""The data page of ``spike_counts`` in the form that our files have: two runs of levels per unit, one run of counts.

Pack a matrix of counts into such a page, recognize one among the pages of any Parquet file, and take
all counts or any window of bins out of it by arithmetic. Compression, page headers and files belong elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WIDTHS = (1, 2, 4, 8)
"""Bits per count. They divide 8: other widths compress worse and cannot be packed at the speed of memory."""
_NIBBLE = 4
MAX_VALUES = 256
LARGEST_PAGE = 2**31 - 1
"""Bytes; page headers state sizes as int32."""

_BLOCK = 1 << 16
"""Counts handled at a time, so that what lies between two passes stays in the cache."""
_FIRST_LEVELS, _NEXT_LEVELS = b"\x02\x00", b"\x02\x01"
"""Repetition level of a unit's first bin: a run of length 1 of level 0 (first unit of the row) or 1."""
_SAME_UNIT, _DEFINED = b"\x02", b"\x05"
"""Repetition level of all other bins, definition level of every count: neither lists nor counts are null."""


@dataclass(frozen=True)
class PackedCounts:
    """Spike counts of one row, packed.

    Attributes
    ----------
    n_units, n_bins : int
    width : int
        Bits per count, one of `WIDTHS`.
    values : numpy.ndarray, uint8, shape (n_values,)
        The counts that occur; what is packed are indices into it.
    page : numpy.ndarray, uint8, shape (n_bytes,)
        The data page, not compressed: levels, then indices.
    start : int
        Where the indices begin in ``page``.
    is_checked : bool
        Whether all indices are known to be within ``values``; when false, each is checked when it is unpacked.
    """

    n_units: int
    n_bins: int
    width: int
    values: np.ndarray
    page: np.ndarray
    start: int
    is_checked: bool = True

    def counts(self) -> np.ndarray:
        """Unpack all counts.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_units, n_bins)
        """
        packed, per_byte = self.page[self.start :], 8 // self.width
        counts = np.empty(len(packed) * per_byte, np.uint8)
        for start in range(0, len(packed), _BLOCK):
            block = self._unpack(packed[start : start + _BLOCK])
            counts[start * per_byte :][: len(block)] = block
        return counts[: self.n_units * self.n_bins].reshape(self.n_units, self.n_bins)

    def window(self, start: int, stop: int, units: np.ndarray | None = None) -> np.ndarray:
        """Unpack the bins ``[start, stop)`` of some units, and nothing else.

        Parameters
        ----------
        start, stop : int
        units : numpy.ndarray, integer, shape (n_chosen,), optional
            Rows of the counts, in any order; all when not given.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_chosen, stop - start)

        Raises
        ------
        ValueError
            The row has no such bins or units.
        """
        if not 0 <= start <= stop <= self.n_bins:
            raise ValueError(f"bins {start} to {stop} of {self.n_bins}")
        chosen = np.arange(self.n_units) if units is None else np.asarray(units)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < self.n_units:
            raise ValueError(f"units {chosen.min()} to {chosen.max()} of {self.n_units}")
        packed, per_byte, width = self.page[self.start :], 8 // self.width, stop - start
        window = np.empty((len(chosen), width), np.uint8)
        first = chosen.astype(np.int64) * self.n_bins + start
        # a unit's counts begin anywhere in a byte: take whole bytes, as many for each unit
        n_bytes = min(-(-width // per_byte) + 1, len(packed))
        byte = np.minimum(first // per_byte, len(packed) - n_bytes)
        unpacked = self._unpack(np.lib.stride_tricks.sliding_window_view(packed, n_bytes)[byte].reshape(-1))
        unpacked, skip = unpacked.reshape(len(chosen), n_bytes * per_byte), first - byte * per_byte
        for skipped in np.unique(skip).tolist():
            window[skip == skipped] = unpacked[skip == skipped, skipped : skipped + width]
        return window

    def constant_groups(self) -> float:
        """Share of the groups of 8 successive counts that are equal, and not the first of ``values``."""
        groups, constant = self.page[self.start :].view(f"<u{self.width}"), 0
        for start in range(0, len(groups), _BLOCK):
            some = groups[start : start + _BLOCK]
            turned = (some >> self.width) | (some << 7 * self.width)
            constant += int(np.count_nonzero((turned == some) & (some != 0)))
        return constant / len(groups)

    @cached_property
    def _in_order(self) -> bool:
        return np.array_equal(self.values, np.arange(len(self.values)))

    def _unpack(self, packed: np.ndarray) -> np.ndarray:
        indices = _unpacked(packed, self.width)
        if not self.is_checked:
            _require_values(indices, self.values)
        return indices if self._in_order else self.values[indices]


def pack(counts: np.ndarray) -> PackedCounts:
    """Pack counts into a data page.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
        At least one unit and one bin.

    Raises
    ------
    ValueError
        The page would be larger than `LARGEST_PAGE`.
    """
    n_units, n_bins = counts.shape
    tokens = np.ascontiguousarray(counts).reshape(-1)
    values = _values(tokens)
    width = next(width for width in WIDTHS if len(values) <= 1 << width)
    head = _levels(n_units, n_bins) + _run_of_indices(n_units * n_bins, width)
    size = len(head) + -(-len(tokens) // 8) * width
    if size > LARGEST_PAGE:
        raise ValueError(f"a page of {size:,} bytes")
    page = np.empty(size, np.uint8)
    page[: len(head)] = np.frombuffer(head, np.uint8)
    position = len(head)
    indices = np.zeros(MAX_VALUES, np.uint8)
    indices[values] = np.arange(len(values))
    in_order = int(values[-1]) == len(values) - 1
    for block in _blocks(tokens):
        some = block if in_order else indices[block]
        length = len(some) * width // 8
        _pack_into(page[position : position + length], some, width)
        position += length
    return PackedCounts(n_units, n_bins, width, values, page, len(head))


def recognize(page: bytes, n_tokens: int, values: np.ndarray, check_later: bool = False) -> PackedCounts | None:
    """Recognize a data page of the form that `pack` makes; None when it has another one.

    Everything is compared, so ``page`` may come from anywhere; nothing larger than a few times itself is allocated.

    Parameters
    ----------
    page : bytes
        Not compressed.
    n_tokens : int
        Number of values that the page's header states.
    values : numpy.ndarray, uint8, shape (n_values,)
        Of the dictionary.
    check_later : bool
        Check only the indices that are unpacked, then: a fourth of the time where that is one window of a row.

    Raises
    ------
    ValueError
        Indices reach beyond ``values``.
    """
    n_bins = _length_of_the_first_unit(page[4:20])
    if n_tokens < 1 or n_tokens % n_bins or not 1 <= len(values) <= MAX_VALUES:
        return None
    n_units, repetition_bytes = n_tokens // n_bins, int.from_bytes(page[:4], "little")
    if repetition_bytes > len(page) or repetition_bytes != _repetition_bytes(n_units, n_bins):
        return None
    levels = _levels(n_units, n_bins)
    width = int.from_bytes(page[len(levels) : len(levels) + 1], "little")
    if width not in WIDTHS or len(values) > 1 << width:
        return None
    head = levels + _run_of_indices(n_tokens, width)
    if page[: len(head)] != head or len(page) != len(head) + -(-n_tokens // 8) * width:
        return None
    found = np.frombuffer(page, np.uint8)
    is_checked = len(values) == 1 << width
    if not is_checked and not check_later:
        for some in _blocks(found[len(head) :]):
            _require_values(_unpacked(some, width), values)
        is_checked = True
    return PackedCounts(n_units, n_bins, width, values, found, len(head), is_checked)


def _require_values(indices: np.ndarray, values: np.ndarray) -> None:
    if indices.size and (largest := int(indices.max())) >= len(values):
        raise ValueError(f"counts refer to value {largest} of {len(values)}")


def _blocks(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of at most `_BLOCK` items, the last one filled up with zeros to a multiple of 8."""
    whole = len(tokens) - len(tokens) % 8
    for start in range(0, whole, _BLOCK):
        yield tokens[start : min(start + _BLOCK, whole)]
    if whole < len(tokens):
        yield np.concatenate([tokens[whole:], np.zeros(whole + 8 - len(tokens), np.uint8)])


def _values(tokens: np.ndarray) -> np.ndarray:
    """The dictionary: ``0..max``, or the counts that occur where these are few and large."""
    whole = np.arange(int(tokens.max()) + 1, dtype=np.uint8)
    if len(whole) <= 1 << _NIBBLE:
        return whole
    seen = np.zeros(MAX_VALUES, np.bool_)
    blocks = [tokens[start : start + _BLOCK] for start in range(0, len(tokens), _BLOCK)]
    for block in blocks:
        seen[block[block >= 1 << _NIBBLE]] = True  # rare, so that the next loop nearly always ends at once
    for block in blocks:
        seen |= np.bincount(block, minlength=MAX_VALUES) > 0
        if np.count_nonzero(seen) > 1 << _NIBBLE:
            return whole
    return np.flatnonzero(seen).astype(np.uint8)


def _pack_into(packed: np.ndarray, indices: np.ndarray, width: int) -> None:
    """Pack indices, a multiple of 8 of them, the first one into the lowest bits."""
    if width == 8:
        packed[:] = indices
    elif width == 4:
        two = indices.view("<u2")
        np.copyto(packed, two | two >> 4, casting="unsafe")
    elif width == 2:
        four = indices.view("<u4")
        four = four | four >> 6
        np.copyto(packed, four | four >> 12, casting="unsafe")
    else:
        packed[:] = np.packbits(indices, bitorder="little")


def _unpacked(packed: np.ndarray, width: int) -> np.ndarray:
    if width == 8:
        return packed
    if width == 4:
        two = packed.astype("<u2")
        return ((two | two << 4) & 0x0F0F).view(np.uint8)
    if width == 2:
        four = packed.astype("<u4")
        four = (four | four << 12) & 0x000F000F
        return ((four | four << 6) & 0x03030303).view(np.uint8)
    return np.unpackbits(packed, bitorder="little")


def _levels(n_units: int, n_bins: int) -> bytes:
    """Repetition and definition levels, each with its length, as runs (Parquet's RLE)."""
    if n_bins == 1:
        repetition = _FIRST_LEVELS + (_varint(n_units - 1 << 1) + b"\x01" if n_units > 1 else b"")
    else:
        others = _varint(n_bins - 1 << 1) + _SAME_UNIT
        repetition = _FIRST_LEVELS + others + (_NEXT_LEVELS + others) * (n_units - 1)
    definition = _varint(n_units * n_bins << 1) + _DEFINED
    return b"".join(len(levels).to_bytes(4, "little") + levels for levels in (repetition, definition))


def _repetition_bytes(n_units: int, n_bins: int) -> int:
    """Length of the repetition levels in `_levels`, known before they are made."""
    if n_bins == 1:
        return 2 + (len(_varint(n_units - 1 << 1)) + 1 if n_units > 1 else 0)
    return n_units * (3 + len(_varint(n_bins - 1 << 1)))


def _length_of_the_first_unit(repetition: bytes) -> int:
    """Bins of the first unit by its levels, if they have the form of `_levels`; otherwise any number above 0."""
    position, number = len(_FIRST_LEVELS), 0
    while position < len(repetition) - 1 and position < 7:
        number |= (repetition[position] & 0x7F) << 7 * (position - 2)
        position += 1
        if repetition[position - 1] < 0x80:
            break
    return (number >> 1) + 1 if repetition[position : position + 1] == _SAME_UNIT else 1


def _run_of_indices(n_tokens: int, width: int) -> bytes:
    """Width of the indices, and the header of one bit-packed run of all of them, in groups of 8."""
    return bytes([width]) + _varint(-(-n_tokens // 8) << 1 | 1)


def _varint(number: int) -> bytes:
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)
