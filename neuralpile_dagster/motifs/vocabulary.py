"""Vocabularies: the most frequent motifs of a pile, numbered, and which of them any other patch becomes.

``build_vocabulary(store, folder, table, shape=, size=, plan_id=, inputs=)`` makes ``vocabulary.parquet`` and
``tokenizer.json`` of a motif table; `read_vocabulary` and `load_vocabulary` read them. Encoding belongs in `tokens`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import ConfigurationError, DocumentError, TableError
from neuralpile_dagster.motifs.counts import keys_of
from neuralpile_dagster.motifs.given import given_motifs
from neuralpile_dagster.motifs.nearest import MAX_NEAREST_CELLS, Lookup, References
from neuralpile_dagster.motifs.records import (
    MAX_KEY_COUNT,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    MotifShape,
    TokenizerDocument,
    VocabularyRecord,
    parse_document,
    require_known,
)
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store, open_verified, put_file, read_record
from neuralpile_dagster.tables.arrow_rows import lists_array, shared_array
from neuralpile_dagster.tables.footer import damaged, open_parquet

MAX_SIZE = 1 << 32
"""Tokens are at most uint32."""
_TABLE_ROWS = 65_536
"""Rows of a motif table read at a time."""


def _token_dtype(size: int) -> np.dtype[Any]:
    """Type of the tokens of a vocabulary: uint16 where it is enough, else uint32."""
    return np.dtype(np.uint16 if size <= 1 << 16 else np.uint32)


def require_size(shape: MotifShape, size: int) -> None:
    """Raise `ConfigurationError` unless there can be a vocabulary of ``size`` (motifs and separator) for a shape."""
    if shape.cells > MAX_NEAREST_CELLS:
        raise ConfigurationError(
            f"motifs of {shape.name} cannot have a vocabulary",
            found=f"{shape.cells} cells",
            expected=f"at most {MAX_NEAREST_CELLS} cells, with which similarity is compared exactly",
        )
    if not 2 <= size <= MAX_SIZE:
        raise ConfigurationError(
            "the size of a motif vocabulary is invalid",
            found=f"{size:,}",
            expected=f"2 to {MAX_SIZE:,}: a motif and the separator at least, ids of 32 bits at most",
        )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Motifs by token.

    Attributes
    ----------
    document : TokenizerDocument
    patches : numpy.ndarray, uint8, shape (n_motifs, n_cells)
        Row number = token.
    frequency : numpy.ndarray, int64, shape (n_motifs,)
    """

    document: TokenizerDocument
    patches: np.ndarray
    frequency: np.ndarray

    @cached_property
    def shape(self) -> MotifShape:
        """Shape of its motifs."""
        return MotifShape(*self.document.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its tokens."""
        return _token_dtype(self.document.size)

    @cached_property
    def lookup(self) -> Lookup:
        """Tokens of its motifs by key and by patch."""
        return Lookup(self.patches, self.shape)

    @cached_property
    def references(self) -> References:
        """Its motifs, to compare others with."""
        return References(self.patches)

    def tokens_of(self, patches: np.ndarray, threads: int = 1) -> np.ndarray:
        """Tokens of any patches.

        A motif of the vocabulary is its own token. Another patch m gets the token of the motif r with the largest
        (m.r)^2 / |r|^2 among those with m.r > 0, of equals the smaller, else the silent token. See `nearest`.

        Parameters
        ----------
        patches : numpy.ndarray, uint8, shape (n, n_cells)
            Best without duplicates.
        threads : int
            The result does not depend on it.

        Returns
        -------
        numpy.ndarray, uint16 or uint32, shape (n,)
        """
        found = np.empty(len(patches), self.dtype)
        if self.lookup.of_patches(patches, found, self.document.sep_id):
            others = np.flatnonzero(found == self.document.sep_id)
            nearest = self.references.nearest(patches[others], threads)
            found[others] = np.where(nearest < 0, self.document.silent_id, nearest)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("document", "patches", "frequency")}


def build_vocabulary(
    store: Store,
    folder: str,
    table: StoredFile,
    *,
    shape: MotifShape,
    size: int,
    plan_id: str,
    inputs: str,
    bin_width_s: float | None = None,
) -> VocabularyRecord:
    """Make ``<folder>/vocabulary.parquet`` and ``<folder>/tokenizer.json`` of a motif table.

    Token k is the motif in row k of the table, token ``size - 1`` the separator: a vocabulary of 32,000 has 31,999
    motifs. A table with fewer motifs gives a smaller vocabulary. The silent motif is always in it: where it is not
    among the first ones, it takes the last place.

    Parameters
    ----------
    store : Store
    folder : str
        Store prefix.
    table : StoredFile
        Columns ``patch`` and ``frequency``, most frequent first, and ``probability``.
    shape : MotifShape
    size : int
        Motifs and separator.
    plan_id : str
        Plan of the pile whose motifs were counted.
    inputs : str
        For the record.
    bin_width_s : float, optional
        Of all counts of the pile; None where they have several widths, or it is not known.

    Raises
    ------
    ConfigurationError
        There cannot be such a vocabulary (`require_size`).
    TableError
        The table is damaged, or is not a table of motifs of that shape.
    """
    require_size(shape, size)
    name = store.uri(table.key)
    with open_verified(store, table) as source:
        patches, frequency, coverage = _most_frequent(open_parquet(source, name), size - 1, shape, name)
    file, _ = put_file(
        store, f"{folder}/{VOCABULARY_FILE}", lambda path: write_vocabulary(path, patches, frequency, shape)
    )
    document = _document(
        patches,
        shape,
        asked_size=size,
        motifs_sha256=table.sha256,
        plan_id=plan_id,
        vocabulary_sha256=file.sha256,
        bin_width_s=bin_width_s,
    )
    text = document.model_dump_json(indent=1) + "\n"
    tokenizer_file, _ = put_file(store, f"{folder}/{TOKENIZER_FILE}", lambda path: path.write_text(text, "utf-8"))
    return VocabularyRecord(
        inputs=inputs,
        file=file,
        tokenizer_file=tokenizer_file,
        shape=shape.name,
        size=document.size,
        asked_size=size,
        motifs=len(patches),
        frequency=int(frequency.sum()),
        coverage=coverage,
    )


def _document(patches: np.ndarray, shape: MotifShape, **facts: Any) -> TokenizerDocument:
    return TokenizerDocument(
        shape=(shape.n_units, shape.n_bins),
        size=len(patches) + 1,
        sep_id=len(patches),
        silent_id=int(np.flatnonzero(~patches.any(axis=1))[0]),
        **facts,
    )


def _most_frequent(
    parquet: pq.ParquetFile, wanted: int, shape: MotifShape, name: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """The first motifs of a table with their frequencies, silence among them, and the sum of their probabilities."""
    columns = ["patch", "frequency", "probability"]
    if missing := [column for column in columns if column not in parquet.schema_arrow.names]:
        raise TableError(f"{name} is not a motif table", found=f"no column {missing[0]}", expected=", ".join(columns))
    patches, frequency, probability = [np.zeros((0, shape.cells), np.uint8)], [np.zeros(0, np.int64)], [np.zeros(0)]
    taken, silence, silent_rows = 0, False, None
    with damaged(name):
        for batch in parquet.iter_batches(_TABLE_ROWS, columns=columns, use_threads=False):
            some = _matrix(batch["patch"], shape, name)
            counts, shares = np.asarray(batch["frequency"], np.int64), np.asarray(batch["probability"], np.float64)
            silent = np.flatnonzero(~some.any(axis=1))
            if len(silent):
                silence = silence or taken + silent[0] < wanted
                silent_rows = int(counts[silent[0]]), float(shares[silent[0]])
            keep = min(len(some), wanted - taken)
            patches.append(some[:keep])
            frequency.append(counts[:keep])
            probability.append(shares[:keep])
            taken += keep
            if taken == wanted and silence:
                break
    chosen, often, shares = np.concatenate(patches), np.concatenate(frequency), np.concatenate(probability)
    if np.any(np.diff(often) > 0):
        raise TableError(f"{name} is not sorted", expected="most frequent motifs first")
    if not silence:
        last = slice(None, max(0, wanted - 1))
        count, share = silent_rows or (0, 0.0)
        chosen = np.concatenate([chosen[last], np.zeros((1, shape.cells), np.uint8)])
        often, shares = np.append(often[last], count), np.append(shares[last], share)
    return chosen, often, float(shares.sum())


def _matrix(column: pa.ListArray, shape: MotifShape, name: str) -> np.ndarray:
    """Patches as rows; raises `TableError` where one is of another shape."""
    values = column.flatten()
    lengths = np.diff(np.asarray(column.offsets))
    if column.null_count or values.null_count or not pa.types.is_uint8(values.type) or np.any(lengths != shape.cells):
        raise TableError(
            f"{name} is not a table of motifs of {shape.name}",
            found=f"patches of {lengths.min()} to {lengths.max()} values of {values.type}" if len(lengths) else "nulls",
            expected=f"{shape.cells} values of uint8 each, no nulls",
        )
    return np.asarray(values).reshape(-1, shape.cells)


def write_vocabulary(path: Path, patches: np.ndarray, frequency: np.ndarray, shape: MotifShape) -> None:
    """Write ``vocabulary.parquet``; the same motifs give the same bytes.

    Its column ``key`` is null where a patch has none (`counts.pack`).

    Parameters
    ----------
    path : Path
    patches : numpy.ndarray, uint8, shape (n_motifs, n_cells)
        In the order of their tokens.
    frequency : numpy.ndarray, int64, shape (n_motifs,)
    shape : MotifShape
    """
    n_motifs = len(patches)
    without = (patches > MAX_KEY_COUNT).any(axis=1) | (not shape.has_keys)
    keys = keys_of(patches) if shape.has_keys else np.zeros(n_motifs, np.uint64)
    table = pa.table(
        {
            "id": shared_array(np.arange(n_motifs, dtype=_token_dtype(n_motifs + 1))),
            "patch": lists_array(patches, pa.list_(pa.uint8())),
            "frequency": shared_array(frequency),
            "key": pa.array(keys, mask=without),
        }
    )
    pq.write_table(table, path, compression="zstd", write_page_index=True, write_page_checksum=True)


def read_vocabulary(store: Store, record: VocabularyRecord) -> Vocabulary:
    """Read a stored vocabulary; raises `StoreError` or `TableError` where it is missing or damaged."""
    text = read_record(store, record.tokenizer_file.key, TokenizerDocument)
    if text is None:
        raise DocumentError(
            f"{store.uri(record.tokenizer_file.key)} is missing", remedy="materialize the asset that makes it"
        )
    name = store.uri(record.file.key)
    with open_verified(store, record.file) as source:
        return parse_vocabulary(text, source, name, record.file.sha256)


def load_vocabulary(folder: str | Path) -> Vocabulary:
    """Read ``tokenizer.json`` and ``vocabulary.parquet`` of a folder.

    Raises
    ------
    DocumentError
        ``tokenizer.json`` is missing or invalid (`NewerDocument`: of a newer version), or ``vocabulary.parquet`` is
        missing or another one than it names.
    TableError
        ``vocabulary.parquet`` is damaged.
    """
    found = Path(folder).expanduser().resolve()  # once: a local hub's link may be replaced meanwhile
    document_path, path = found / TOKENIZER_FILE, found / VOCABULARY_FILE
    if missing := [each for each in (document_path, path) if not each.is_file()]:
        raise DocumentError(
            f"{folder} has no tokenizer",
            found=f"no {missing[0].name}",
            expected=f"{TOKENIZER_FILE} and {VOCABULARY_FILE}",
        )
    return parse_files(str(found), document_path.read_bytes(), path.read_bytes())


def parse_files(place: str, tokenizer: bytes, vocabulary: bytes) -> Vocabulary:
    """Parse both files of a folder or repository, ``place``; raises as `load_vocabulary`."""
    document = parse_document(tokenizer, f"{place}/{TOKENIZER_FILE}")
    digest = hashlib.sha256(vocabulary).hexdigest()
    return parse_vocabulary(document, pa.BufferReader(vocabulary), f"{place}/{VOCABULARY_FILE}", digest)


def parse_vocabulary(document: TokenizerDocument, file: pa.NativeFile, name: str, sha256: str) -> Vocabulary:
    """Read an opened ``vocabulary.parquet``, whose digest is ``sha256``, with its document.

    Raises
    ------
    DocumentError
        It is not the one that the document names.
    TableError
        It is damaged, or contradicts the document.
    """
    require_known(document, name)
    if sha256 != document.vocabulary_sha256:
        raise DocumentError(
            f"{name} is not the vocabulary that {TOKENIZER_FILE} names",
            found=f"sha256 {sha256}",
            expected=document.vocabulary_sha256,
            remedy="get both files of one version",
        )
    shape = MotifShape(*document.shape)
    with damaged(name):
        table = open_parquet(file, name).read(["id", "patch", "frequency"], use_threads=False)
        patches = _matrix(table["patch"].combine_chunks(), shape, name)
        ids, frequency = table["id"].to_numpy(), table["frequency"].to_numpy()
    expected = document.size - 1
    silent = document.silent_id
    if (
        not np.array_equal(ids, np.arange(expected))
        or document.sep_id != expected
        or not 0 <= silent < expected
        or patches[silent].any()
    ):
        raise TableError(
            f"{name} contradicts {TOKENIZER_FILE}",
            found=f"{len(ids):,} motifs, of which {silent} is said to be silent",
            expected=f"ids 0 to {expected - 1:,}, and {document.sep_id:,} as the separator",
        )
    return Vocabulary(document, patches, frequency)


def vocabulary_of(patches: Sequence[Sequence[int]] | np.ndarray, shape: MotifShape) -> Vocabulary:
    """A vocabulary of given motifs, in the order of their tokens; one of them must be silent.

    Parameters
    ----------
    patches : numpy.ndarray or sequence, integers of 0 to 255, shape (n_motifs, n_cells)
    shape : MotifShape

    Raises
    ------
    InvalidArray
        They are not such motifs (`given.given_motifs`).
    """
    motifs = given_motifs(patches, shape)
    size = len(motifs) + 1
    require_size(shape, size)
    document = _document(motifs, shape, asked_size=size, motifs_sha256="", plan_id="", vocabulary_sha256="")
    return Vocabulary(document, motifs, np.zeros(len(motifs), np.int64))
