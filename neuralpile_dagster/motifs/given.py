"""Arrays that a caller gives: each is used as it is, or refused in words; nothing is converted silently.

What is done with them belongs in `tokens` and `vocabulary`.
"""

from __future__ import annotations

from math import isclose
from operator import index
from os import PathLike
from typing import Any

import numpy as np

from neuralpile_dagster.errors import InvalidArray
from neuralpile_dagster.motifs.records import MotifShape


def described(given: object) -> str:
    """Type of what was given, of an array its dtype and shape."""
    if isinstance(given, np.ndarray):
        return f"{given.dtype} of shape {given.shape}"
    return f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")


def require_counts(counts: np.ndarray) -> None:
    """Raise `InvalidArray` unless these are counts of a row: uint8, shape (n_units, n_bins)."""
    if not isinstance(counts, np.ndarray) or counts.dtype != np.uint8 or counts.ndim != 2:
        raise InvalidArray(
            "these are not the spike counts of a row",
            found=described(counts),
            expected="a numpy array of uint8, units x bins",
            remedy=_read_first(counts) or "counts of 0 to 255 become that by np.asarray(counts).astype(np.uint8)",
        )


def require_bin_width(given_s: float | None, known_s: float | None) -> None:
    """Raise `InvalidArray` where counts have bins of another width than those of a tokenizer; None is not known."""
    if given_s is not None and known_s is not None and not isclose(given_s, known_s, rel_tol=1e-3):
        raise InvalidArray(
            "the counts and the tokenizer have bins of different widths",
            found=f"counts in bins of {given_s:g} s",
            expected=f"bins of {known_s:g} s, in which the tokenizer's motifs were found",
            remedy="bin the spike times anew, or open the tokenizer of a pile with the bins of the counts",
        )


def require_tokens(tokens: np.ndarray) -> None:
    """Raise `InvalidArray` unless these are tokens of a row: integers, shape (n_units, n_steps)."""
    _require_integers(tokens, "tokens", "units x time steps")
    if tokens.ndim != 2:
        raise InvalidArray(
            "these are not the tokens of a row",
            found=described(tokens),
            expected="an array of two dimensions, units x time steps",
            remedy="deinterleave(sequence, n_units, sep) takes an interleaved sequence apart",
        )


def require_sequence(sequence: np.ndarray) -> None:
    """Raise `InvalidArray` unless this is a sequence of tokens: integers, one-dimensional."""
    _require_integers(sequence, "sequence", "of one dimension")
    if sequence.ndim != 1:
        raise InvalidArray(
            "this is not a sequence of tokens",
            found=described(sequence),
            expected="an array of one dimension, as interleave gives it",
            remedy="take apart one row of a batch at a time",
        )


def require_separator(sep: int, dtype: np.dtype[Any]) -> int:
    """The separator as an int; raises `InvalidArray` unless it is a whole number that tokens of ``dtype`` can hold."""
    try:
        found = index(sep)
    except TypeError:
        found = -1
    if not 0 <= found <= np.iinfo(dtype).max:
        raise InvalidArray(
            f"the separator cannot stand among tokens of {dtype}",
            found=str(sep) if isinstance(sep, int | float | np.number) else described(sep),
            expected=f"a whole number from 0 to {np.iinfo(dtype).max:,}, the tokenizer's sep_id",
        )
    return found


def given_motifs(motifs: object, shape: MotifShape) -> np.ndarray:
    """Motifs of a vocabulary as uint8, unchanged in value.

    Parameters
    ----------
    motifs : array_like, integers, shape (n_motifs, n_cells) or (n_motifs, n_units, n_bins)
    shape : MotifShape

    Returns
    -------
    numpy.ndarray, uint8, shape (n_motifs, n_cells)

    Raises
    ------
    InvalidArray
        They are none, of another shape, not counts of 0 to 255, two are equal, or none is without a spike.
    """
    expected = f"counts of shape (n_motifs, {shape.cells}), those of a motif unit after unit"
    try:
        given = np.asarray(motifs)
    except ValueError as error:  # rows of several lengths
        raise InvalidArray("the motifs are of several shapes", found=str(error), expected=expected) from error
    if given.size == 0:
        raise InvalidArray("there are no motifs", found=described(given), expected=f"{expected}, one without a spike")
    if given.shape[1:] not in {(shape.cells,), (shape.n_units, shape.n_bins)}:
        raise InvalidArray(f"these are not motifs of {shape.name}", found=described(given), expected=expected)
    if not np.issubdtype(given.dtype, np.integer):
        raise InvalidArray("the counts of motifs are not integers", found=str(given.dtype), expected="0 to 255")
    if given.min() < 0 or given.max() > 255:
        raise InvalidArray(
            "the counts of motifs are out of range",
            found=f"{given.min()} to {given.max()}",
            expected="0 to 255",
        )
    rows = given.astype(np.uint8).reshape(len(given), -1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    if len(first) < len(rows):
        again = np.flatnonzero(first[which.reshape(-1)] != np.arange(len(rows)))[0]
        raise InvalidArray(
            "two motifs are equal",
            found=f"motifs {first[which.reshape(-1)[again]]} and {again} are {_some(rows[again])}",
            expected="each motif once: its place is its token",
        )
    if rows.any(axis=1).all():
        raise InvalidArray(
            "no motif is silent",
            found=f"spikes in all of {len(rows):,}",
            expected="the patch without a spike among them: what is like no other motif gets its token",
            remedy=f"add {_some(np.zeros(shape.cells, np.uint8))}",
        )
    return rows


def _require_integers(given: np.ndarray, name: str, dimensions: str) -> None:
    if not isinstance(given, np.ndarray) or not np.issubdtype(given.dtype, np.integer):
        raise InvalidArray(
            "tokens are not given as an array of integers",
            found=described(given),
            expected=f"a numpy array of integers, {dimensions}",
            remedy=_read_first(given) or f"np.asarray({name}, np.int64) where they are whole numbers",
        )


def _read_first(given: object) -> str:
    return "read the file first" if isinstance(given, str | PathLike) else ""


def _some(motif: np.ndarray) -> str:
    shown = ", ".join(map(str, motif[:15]))
    return f"[{shown}, ...] ({len(motif)} counts)" if len(motif) > 15 else f"[{shown}]"
