"""What is stated of motifs: their shape, records of what is made of them, and ``tokenizer.json``, which is published.

It needs neither numba nor Arrow, so that deciding what is due stays light.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import Field

from neuralpile_dagster.errors import ConfigurationError, NewerDocument
from neuralpile_dagster.records import AnalysisRecord, Model, StoredFile, read_document

MAX_CELLS = 64
KEY_CELLS = 16
"""Cells that fit into a key of 64 bits, four bits each."""
MAX_KEY_COUNT = 15
N_BUCKETS = 64
BUCKETS = tuple(f"{bucket:02d}" for bucket in range(N_BUCKETS))
"""Partition keys of what is made bucket by bucket."""

MOTIFS_VERSION = "motifs-1"
"""Code version of histograms and of sums of them; a new one makes all of them out of date."""

TOP = 1_000_000
"""Motifs of a published table."""

TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocabulary.parquet"
_FORMAT = 1
"""Of ``tokenizer.json``."""
_RULE = "cosine-exact-1"
"""How patches that are not in the vocabulary get a token: `vocabulary.Vocabulary.tokens_of`."""


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


class _Made(Model):
    """Record of something made of motifs, from ``inputs`` (a hash)."""

    inputs: str

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files in the store."""
        return tuple(value for _, value in self if isinstance(value, StoredFile))


class HistogramNumbers(Model):
    """Numbers of a histogram: what was counted, and what was found.

    ``patches`` are all, ``silent`` those without a spike, which are not in the file; ``motifs`` the different others,
    of which ``without_key`` have no key. ``spikes`` is the sum over patches.
    """

    shape: tuple[int, int]
    rows: int
    tokens: int
    patches: int
    silent: int
    spikes: int
    motifs: int
    without_key: int


class HistogramRecord(AnalysisRecord):
    """Record of a session's histogram."""

    histogram: HistogramNumbers


class RowsRecord(_Made):
    """Record of the histogram of some rows of a plan's files.

    ``expected_patches`` and ``expected_spikes`` are from the counts themselves, without packing a patch.
    """

    file: StoredFile
    histogram: HistogramNumbers
    expected_patches: int
    expected_spikes: int


class BucketRecord(_Made):
    """Record of one bucket of a pile; ``patches`` and ``spikes`` are sums over its ``motifs``, silence not included."""

    bucket: int
    shape: tuple[int, int]
    file: StoredFile
    histograms: int
    motifs: int
    without_key: int
    patches: int
    spikes: int


class Trained(Model):
    """What a pile trains on, as motifs: numbers that its table must agree with.

    ``patches``, ``silent`` and ``spikes`` are sums over histograms. ``expected_patches`` and ``expected_spikes`` are
    the same from the records of the sessions and the counts of single rows, without packing a patch.
    """

    histograms: int
    rows: int
    tokens: int
    patches: int
    silent: int
    spikes: int
    expected_patches: int
    expected_spikes: int


class TableRecord(_Made):
    """Record of a pile's motif table.

    ``rows`` are those of the table; ``motifs`` all different ones, silence among them if there is any. ``patches`` and
    ``spikes`` are sums over all motifs, ``silent`` the patches without a spike. ``coverage`` is, for numbers of motifs
    in order, the share of all patches that are one of them.
    """

    shape: tuple[int, int]
    top: int
    file: StoredFile
    tail_file: StoredFile
    rows: int
    motifs: int
    patches: int
    silent: int
    spikes: int
    coverage: tuple[tuple[int, float], ...]
    trained: Trained

    @property
    def stated_coverage(self) -> tuple[tuple[int, float], ...]:
        """``coverage`` of numbers of motifs that the table has; of all where it has fewer than the first."""
        return tuple(pair for pair in self.coverage if pair[0] < self.rows) or ((self.rows, self.coverage[0][1]),)


class VocabularyRecord(_Made):
    """Record of a stored vocabulary.

    ``motifs`` is their number (one less than ``size``), ``frequency`` the patches of the train split that they are,
    ``coverage`` the share of all patches: that of tokens that decode to what was encoded.
    """

    file: StoredFile
    tokenizer_file: StoredFile
    shape: str
    size: int
    asked_size: int
    motifs: int
    frequency: int
    coverage: float


class TokenizerDocument(Model):
    """Contents of ``tokenizer.json``: all that encoding depends on besides the vocabulary's patches.

    ``size`` counts the motifs and the separator, whose id ``sep_id`` is the last; ``asked_size`` is the size that was
    asked for, larger where there were fewer motifs. ``silent_id`` is the motif without spikes. ``bin_width_s`` is the
    width of the bins of all counts that were tokenized; missing where they have several, where it is not known, and in
    documents of before.
    """

    format: int = _FORMAT
    shape: tuple[int, int]
    size: int
    asked_size: int
    sep_id: int
    silent_id: int
    rule: str = _RULE
    motifs_sha256: str
    plan_id: str
    vocabulary_sha256: str
    bin_width_s: float | None = Field(default=None, gt=0, exclude_if=lambda width: width is None)


def parse_document(text: bytes, name: str) -> TokenizerDocument:
    """Parse ``tokenizer.json``; raises `DocumentError`, and `NewerDocument` for a format of a newer version."""
    document = read_document(text, TokenizerDocument, name)
    require_known(document, name)
    return document


def require_known(document: TokenizerDocument, name: str) -> None:
    """Raise `NewerDocument` where a document is of a format or rule that this version does not have."""
    if document.format > _FORMAT or document.rule != _RULE:
        raise NewerDocument(
            f"{name} was made by a newer version of neuralpile-dagster",
            found=f"format {document.format}, rule {document.rule}",
            expected=f"format {_FORMAT}, rule {_RULE}",
            remedy="upgrade neuralpile-dagster here: pip install --upgrade neuralpile-dagster",
        )


class MapRecord(_Made):
    """Record of one bucket's map, and what the vocabulary makes of the bucket's patches.

    ``motifs`` are all of the bucket, ``tail_motifs`` those that are not in the vocabulary, ``patches`` and
    ``tail_patches`` how often they occur. ``silenced_patches`` of the tail overlap with no motif of the vocabulary.
    ``spikes`` are in all patches, ``spikes_decoded`` in what their tokens decode to; ``tail_difference`` is the sum of
    absolute differences of counts between patches of the tail and what their tokens decode to.
    """

    bucket: str
    vocabulary_sha256: str
    file: StoredFile
    patches_file: StoredFile
    motifs: int = 0
    tail_motifs: int = 0
    patches: int = 0
    tail_patches: int = 0
    silenced_patches: int = 0
    spikes: int = 0
    spikes_decoded: int = 0
    tail_difference: int = 0


class TokenShardRecord(_Made):
    """Record of a stored shard of tokens.

    ``tokens`` are all of its rows, ``exact_tokens`` those that decode to the patch that was encoded.
    """

    name: str
    file: StoredFile
    rows: int
    tokens: int
    exact_tokens: int
