"""Spike counts as tokens and back: every patch of a row becomes the number of a motif.

Public functions for training code; they need numpy, pyarrow and numba. How a token is chosen is in
`vocabulary.Vocabulary.tokens_of`, files of tokens in `token_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralpile_dagster.errors import InvalidArray
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.motifs.counts import as_texts, pack, patches_of, take
from neuralpile_dagster.motifs.given import (
    require_bin_width,
    require_counts,
    require_separator,
    require_sequence,
    require_tokens,
)
from neuralpile_dagster.motifs.records import MotifShape
from neuralpile_dagster.motifs.vocabulary import Vocabulary, load_vocabulary, vocabulary_of

if TYPE_CHECKING:
    from neuralpile_dagster.motifs.token_files import Maps


class Tokenizer:
    """A motif vocabulary, and what it takes to encode with it.

    Parameters
    ----------
    vocabulary : Vocabulary
    maps : Maps, optional
        Known tokens of motifs outside of the vocabulary. Without them these are compared with the vocabulary, which
        gives the same tokens and takes longer.

    Examples
    --------
    Of motifs of 1 unit x 3 bins, in the order of their tokens:

    >>> tokenizer = Tokenizer.of([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 1]], shape=(1, 3))
    >>> tokenizer
    Tokenizer(1x3, 4 motifs, separator 4)
    >>> tokenizer.size, tokenizer.silent_id, tokenizer.dtype
    (5, 0, dtype('uint16'))
    """

    def __init__(self, vocabulary: Vocabulary, maps: Maps | None = None) -> None:
        if maps is not None and maps.vocabulary_sha256 != vocabulary.document.vocabulary_sha256:
            raise ValueError("the maps are of another vocabulary")
        self.vocabulary, self._maps = vocabulary, maps

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Load a published tokenizer: a folder with ``tokenizer.json`` and ``vocabulary.parquet``.

        `neuralpile_dagster.reading.open_tokenizer` also opens repositories of the Hugging Face Hub and S3. Raises
        `DocumentError` or `TableError` where the files are missing, damaged, or of a newer version.
        """
        return cls(load_vocabulary(folder))

    @classmethod
    def of(cls, motifs: Sequence[Sequence[int]] | np.ndarray, shape: tuple[int, int]) -> Tokenizer:
        """A tokenizer of given motifs, in the order of their tokens.

        Parameters
        ----------
        motifs : numpy.ndarray or sequence, integers of 0 to 255, shape (n_motifs, n_cells)
            Counts of each motif, unit after unit; all different, one without a spike.
        shape : (int, int)
            Units and bins of a motif.

        Raises
        ------
        InvalidArray
            They are not such motifs. It is a `ValueError`.
        """
        return cls(vocabulary_of(motifs, MotifShape(*shape)))

    @property
    def shape(self) -> MotifShape:
        """Units and bins of a motif: ``shape.n_units``, ``shape.n_bins``."""
        return self.vocabulary.shape

    @property
    def size(self) -> int:
        """Number of tokens, with the separator."""
        return self.vocabulary.document.size

    @property
    def sep_id(self) -> int:
        """The separator, which `interleave` puts before every time step; the last token."""
        return self.vocabulary.document.sep_id

    @property
    def silent_id(self) -> int:
        """Token of the patch without spikes."""
        return self.vocabulary.document.silent_id

    @property
    def bin_width_s(self) -> float | None:
        """Width of the bins that its motifs were found in, in seconds; None where it is not stated.

        That is so for tokenizers of `of`, of piles whose sessions have several widths, and of before.
        """
        return self.vocabulary.document.bin_width_s

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of tokens: uint16 or uint32."""
        return self.vocabulary.dtype

    @property
    def motifs(self) -> np.ndarray:
        """Motifs by token.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_motifs, n_cells)
            Counts of each motif, unit after unit.
        """
        return self.vocabulary.patches

    def __repr__(self) -> str:
        return f"Tokenizer({self.shape.name}, {len(self.motifs):,} motifs, separator {self.sep_id})"

    def encode_row(self, counts: np.ndarray) -> tuple[np.ndarray, int]:
        """`encode`, and how many of the tokens are of patches that are in the vocabulary.

        Parameters
        ----------
        counts : numpy.ndarray, uint8, shape (n_units, n_bins)

        Returns
        -------
        tokens : numpy.ndarray, uint16 or uint32, shape (n_patches along units, n_patches along bins)
        n_exact : int
        """
        require_counts(counts)
        grid = self.shape.grid(*counts.shape)
        tokens = np.empty(grid[0] * grid[1], self.dtype)
        lookup, missing = self.vocabulary.lookup, self.sep_id  # which is the token of no patch
        if self.shape.has_keys:
            keys, without = pack(np.ascontiguousarray(counts), self.shape)
            unknown = lookup.of_keys(keys.reshape(-1), tokens, missing)
            patches = take(counts, self.shape, without)
        else:
            without, patches, unknown = np.arange(len(tokens)), take(counts, self.shape), 0
        if unknown:
            places = np.flatnonzero(tokens == missing)
            tokens[places] = self._of_tail_keys(keys.reshape(-1)[places])
        if len(without):
            found = np.empty(len(without), self.dtype)
            if others := lookup.of_patches(patches, found, missing):
                places = np.flatnonzero(found == missing)
                found[places] = self._of_tail_patches(patches[places])
                unknown += others
            tokens[without] = found
        return tokens.reshape(grid), len(tokens) - unknown

    def _of_tail_keys(self, keys: np.ndarray) -> np.ndarray:
        """Tokens of motifs outside of the vocabulary, by key."""
        distinct, which = np.unique(keys, return_inverse=True)
        known = self._maps.of_keys(distinct, self.sep_id) if self._maps else None
        return self._of_tail(known, patches_of(distinct, self.shape.cells))[which]

    def _of_tail_patches(self, patches: np.ndarray) -> np.ndarray:
        """Tokens of motifs outside of the vocabulary, by their counts."""
        distinct, which = np.unique(as_texts(patches), return_inverse=True)
        rows = distinct.view(np.uint8).reshape(-1, self.shape.cells)
        known = self._maps.of_patches(rows, self.sep_id) if self._maps else None
        return self._of_tail(known, rows)[which]

    def _of_tail(self, known: np.ndarray | None, patches: np.ndarray) -> np.ndarray:
        if known is None:
            return self.vocabulary.tokens_of(patches)
        others = np.flatnonzero(known == self.sep_id)
        known[others] = self.vocabulary.tokens_of(patches[others])
        return known


def encode(counts: np.ndarray, tokenizer: Tokenizer, bin_width_s: float | None = None) -> np.ndarray:
    """Tokens of a row of spike counts.

    The row is padded with silence to a multiple of the motifs' shape. A patch that is a motif of the vocabulary gets
    its token; any other that of the most similar motif (`vocabulary.Vocabulary.tokens_of`), never the separator.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    tokenizer : Tokenizer
    bin_width_s : float, optional
        Of the counts, which do not say it themselves; compared with `Tokenizer.bin_width_s` where that is known.

    Returns
    -------
    numpy.ndarray, uint16 or uint32, shape (ceil(n_units / shape.n_units), ceil(n_bins / shape.n_bins))

    Raises
    ------
    InvalidArray
        These are no such counts: of another type, dtype, dimensions or bin width. It is a `ValueError`.

    Examples
    --------
    >>> tokenizer = Tokenizer.of([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 1]], shape=(1, 3))
    >>> counts = np.array([[0, 1, 0, 0, 2, 1, 0], [0, 0, 0, 3, 0, 0, 0]], np.uint8)
    >>> encode(counts, tokenizer)  # 3 0 0 is not in the vocabulary; 1 0 0 is most similar
    array([[2, 3, 0],
           [0, 1, 0]], dtype=uint16)
    """
    require_bin_width(bin_width_s, tokenizer.bin_width_s)
    return tokenizer.encode_row(counts)[0]


def decode(tokens: np.ndarray, tokenizer: Tokenizer, n_bins: int, n_units: int | None = None) -> np.ndarray:
    """Spike counts that tokens stand for: those that were encoded, where all patches were in the vocabulary.

    Parameters
    ----------
    tokens : numpy.ndarray, integers, shape (n_patches along units, n_patches along bins)
        As `encode` gives them, without separators.
    tokenizer : Tokenizer
    n_bins : int
        Bins of the row, without padding.
    n_units : int, optional
        Units of the row; needed where motifs have several units and the last ones are padding.

    Returns
    -------
    numpy.ndarray, uint8, shape (n_units, n_bins)

    Raises
    ------
    InvalidArray
        These are no tokens of motifs, or more or fewer than such a row has. It is a `ValueError`.

    Examples
    --------
    >>> tokenizer = Tokenizer.of([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 1]], shape=(1, 3))
    >>> decode(np.array([[2, 3, 0], [0, 1, 0]]), tokenizer, n_bins=7)
    array([[0, 1, 0, 0, 2, 1, 0],
           [0, 0, 0, 1, 0, 0, 0]], dtype=uint8)
    """
    require_tokens(tokens)
    shape = tokenizer.shape
    units = n_units if n_units is not None else len(tokens) * shape.n_units
    rows, columns = tokens.shape
    if tokens.shape != shape.grid(units, n_bins):
        fitting = f"n_bins={_fitting(columns, shape.n_bins)}"
        if shape.n_units > 1 or n_units is not None:
            fitting += f" and n_units={_fitting(rows, shape.n_units)}"
        steps = shape.grid(units, n_bins)
        raise InvalidArray(
            f"the tokens do not fit {units} units x {n_bins} bins in patches of {shape.name}",
            found=f"tokens of shape {tokens.shape}",
            expected=f"{fitting} for these tokens, or tokens of shape {steps} for so many units and bins",
        )
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < len(tokenizer.motifs):
        separated = (tokens == tokenizer.sep_id).any()
        raise InvalidArray(
            "some tokens are not those of motifs",
            found=f"the separator, {tokenizer.sep_id}" if separated else f"tokens {tokens.min()} to {tokens.max()}",
            expected=f"0 to {len(tokenizer.motifs) - 1}",
            remedy="deinterleave(sequence, n_units, sep) takes the separators out of a sequence" if separated else "",
        )
    patches = tokenizer.motifs[tokens].reshape(rows, columns, shape.n_units, shape.n_bins)
    counts = patches.transpose(0, 2, 1, 3).reshape(rows * shape.n_units, columns * shape.n_bins)
    return np.ascontiguousarray(counts[:units, :n_bins])


def interleave(tokens: np.ndarray, sep: int) -> np.ndarray:
    """Tokens of a row as one sequence: for every time step the separator, then the tokens of units 0 to n-1.

    Parameters
    ----------
    tokens : numpy.ndarray, integers, shape (n_units, n_steps)
        As `encode` gives them; of motifs of several units, a row is a group of units.
    sep : int
        The separator, `Tokenizer.sep_id`.

    Returns
    -------
    numpy.ndarray, dtype of ``tokens``, shape (n_steps * (n_units + 1),)

    Raises
    ------
    InvalidArray
        These are no tokens without separators, or their dtype cannot hold ``sep``. It is a `ValueError`.

    Examples
    --------
    >>> interleave(np.array([[2, 3, 0], [0, 1, 0]], np.uint16), sep=4)
    array([4, 2, 0, 4, 3, 1, 4, 0, 0], dtype=uint16)
    """
    require_tokens(tokens)
    sep = require_separator(sep, tokens.dtype)
    if (tokens == sep).any():
        unit, step = np.argwhere(tokens == sep)[0]
        raise InvalidArray(
            "the tokens contain the separator",
            found=f"{sep} at unit {unit}, time step {step}",
            expected="tokens of motifs alone, as encode gives them",
        )
    n_units, n_steps = tokens.shape
    sequence = np.empty((n_steps, n_units + 1), tokens.dtype)
    sequence[:, 0] = sep
    sequence[:, 1:] = tokens.T
    return sequence.reshape(-1)


def deinterleave(sequence: np.ndarray, n_units: int, sep: int) -> np.ndarray:
    """Tokens of a row from one sequence: the inverse of `interleave`, e.g. for what a model writes.

    Parameters
    ----------
    sequence : numpy.ndarray, integers, shape (n_steps * (n_units + 1),)
        For every time step the separator, then the tokens of units 0 to n-1.
    n_units : int
        Of motifs of several units, the number of groups of units.
    sep : int
        The separator, `Tokenizer.sep_id`.

    Returns
    -------
    numpy.ndarray, dtype of ``sequence``, shape (n_units, n_steps)
        As `decode` takes them.

    Raises
    ------
    InvalidArray
        Separators are not where they must be, or the last time step is not whole. It is a `ValueError`.

    Examples
    --------
    >>> deinterleave(np.array([4, 2, 0, 4, 3, 1, 4, 0, 0], np.uint16), n_units=2, sep=4)
    array([[2, 3, 0],
           [0, 1, 0]], dtype=uint16)
    """
    require_sequence(sequence)
    sep = require_separator(sep, sequence.dtype)
    if n_units < 0:
        raise InvalidArray("a row cannot have so many units", found=f"n_units={n_units}", expected="0 or more")
    length = n_units + 1
    wrong = np.flatnonzero((sequence == sep) != (np.arange(len(sequence)) % length == 0))
    if len(wrong):
        place = wrong[0]
        raise InvalidArray(
            f"this is not the sequence of {n_units} units",
            found=f"{'the separator' if sequence[place] == sep else f'token {sequence[place]}'} at place {place}",
            expected=f"the separator, {sep}, at places 0, {length}, {2 * length} and so on, and nowhere else",
        )
    if over := len(sequence) % length:
        raise InvalidArray(
            "the last time step of the sequence is not whole",
            found=f"{over - 1} of {n_units} units after the last separator",
            expected=f"a multiple of {length} tokens",
            remedy=f"add {plural(length - over, 'token')}, or cut the step off: sequence[:{len(sequence) - over}]",
        )
    return np.ascontiguousarray(sequence.reshape(-1, length)[:, 1:].T)


def _fitting(patches: int, size: int) -> str:
    """Lengths that are cut into so many patches."""
    least, most = max(0, (patches - 1) * size + 1), patches * size
    return f"{least} to {most}" if least < most else str(most)
