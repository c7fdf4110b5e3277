"""Tokens of a pile, in files: of each of its motifs (maps), and of each of its rows (shards).

A map says the token of every motif of the pile, in 64 bucket files that are mapped into memory. They are Arrow IPC
without compression: ``<bucket>.arrow`` has ``key`` (ascending) and ``id``, ``<bucket>.patches.arrow`` the motifs
without key: ``patch`` (ascending) and ``id``. `Maps` looks motifs up in them. A shard of tokens is parallel to one of
the pile: row k is row k of that shard, its counts encoded. Encoding a row belongs in `tokens`, motifs that are in no
map in `nearest`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import StoreError, TableError
from neuralpile_dagster.files import DigestWriter
from neuralpile_dagster.motifs.counts import as_texts, bucket_of_keys, bucket_of_patches, patches_of
from neuralpile_dagster.motifs.records import N_BUCKETS, MapRecord, TokenShardRecord
from neuralpile_dagster.motifs.table import read_bucket
from neuralpile_dagster.motifs.tokens import Tokenizer
from neuralpile_dagster.motifs.vocabulary import Vocabulary
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store, fetch, is_intact, open_verified, put_file, put_stream
from neuralpile_dagster.tables.arrow_rows import nested_array, shared_array
from neuralpile_dagster.tables.footer import damaged
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

_IDS = PILE_SCHEMA.names[1:]
_AT_ONCE = 1 << 17
"""Motifs whose patches are in memory at a time."""


def build_map(
    store: Store,
    folder: str,
    bucket: str,
    motifs: StoredFile,
    vocabulary: Vocabulary,
    *,
    inputs: str,
    threads: int = 1,
) -> MapRecord:
    """Make ``<folder>/<bucket>.arrow`` and ``<folder>/<bucket>.patches.arrow``.

    Memory: about 20 bytes for each motif of the bucket.

    Parameters
    ----------
    store : Store
    folder : str
        Store prefix.
    bucket : str
        One of `records.BUCKETS`.
    motifs : StoredFile
        The bucket's motifs, as `table.build_bucket` writes them.
    vocabulary : Vocabulary
    inputs : str
        For the record.
    threads : int
        Threads that compare motifs; the files do not depend on them.

    Raises
    ------
    TableError
        ``motifs`` is damaged, or is not such a file.
    """
    name, number, cells = store.uri(motifs.key), int(bucket), vocabulary.shape.cells
    sums: Counter[str] = Counter()

    def tokens_of(some: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Tokens of motifs, by key or by patch, and their part of the record's numbers."""
        tokens = np.empty(len(some), vocabulary.dtype)
        for start in range(0, len(some), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            patches = some[part] if some.ndim == 2 else patches_of(some[part], cells)
            tokens[part] = vocabulary.tokens_of(patches, threads)
            sums.update(_sums(patches, tokens[part], counts[part], vocabulary))
        return tokens

    keys, patches = [np.zeros(0, np.uint64)], [np.zeros((0, cells), np.uint8)]
    key_tokens, patch_tokens = [np.zeros(0, vocabulary.dtype)], [np.zeros(0, vocabulary.dtype)]
    for group in read_bucket(store, motifs, vocabulary.shape):
        if np.any(bucket_of_keys(group.keys) != number) or np.any(bucket_of_patches(group.patches) != number):
            raise _invalid(name, f"motifs of another bucket than {bucket}")
        keys.append(group.keys)
        patches.append(group.patches)
        key_tokens.append(tokens_of(group.keys, group.key_counts))
        patch_tokens.append(tokens_of(group.patches, group.patch_counts))
    by_key, by_patch = np.concatenate(keys), np.concatenate(patches)
    texts = as_texts(by_patch)
    if np.any(by_key[1:] <= by_key[:-1]) or np.any(texts[1:] <= texts[:-1]):
        raise _invalid(name, "motifs that are not ascending")
    as_bytes = pa.Array.from_buffers(pa.binary(cells), len(by_patch), [None, pa.py_buffer(by_patch)])
    columns = {
        bucket: ("key", shared_array(by_key), np.concatenate(key_tokens)),
        f"{bucket}.patches": ("patch", as_bytes, np.concatenate(patch_tokens)),
    }
    about = {"vocabulary": vocabulary.document.vocabulary_sha256, "bucket": bucket}
    files = []
    for stem, (column, values, tokens) in columns.items():
        batch = pa.record_batch([values, shared_array(tokens)], [column, "id"]).replace_schema_metadata(about)
        files.append(put_file(store, f"{folder}/{stem}.arrow", partial(_write, batch))[0])
    return MapRecord(
        inputs=inputs,
        bucket=bucket,
        vocabulary_sha256=vocabulary.document.vocabulary_sha256,
        file=files[0],
        patches_file=files[1],
        **sums,
    )


def _sums(patches: np.ndarray, tokens: np.ndarray, counts: np.ndarray, vocabulary: Vocabulary) -> dict[str, int]:
    """The numbers of a `MapRecord`, of some motifs."""
    decoded = vocabulary.patches[tokens]
    difference = np.abs(patches.astype(np.int16) - decoded).sum(axis=1, dtype=np.int64)
    spikes, after = (each.sum(axis=1, dtype=np.int64) for each in (patches, decoded))
    tail = difference > 0
    silenced = tail & (tokens == vocabulary.document.silent_id)
    return {
        "motifs": len(patches),
        "tail_motifs": int(tail.sum()),
        "patches": int(counts.sum()),
        "tail_patches": int(counts[tail].sum()),
        "silenced_patches": int(counts[silenced].sum()),
        "spikes": int(counts @ spikes),
        "spikes_decoded": int(counts @ after),
        "tail_difference": int(counts @ difference),
    }


def _invalid(name: str, found: str) -> TableError:
    return TableError(
        f"{name} is not a bucket of motifs",
        found=found,
        expected="keys in ascending order, then patches without key in ascending order, of one bucket",
        remedy="delete it and materialize the asset that makes it",
    )


def _write(batch: pa.RecordBatch, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


class Maps:
    """The maps of all buckets; each is mapped into memory when it is first needed.

    Parameters
    ----------
    store : Store
        On S3, files are copied to the folder for temporary files first, for as long as this object lives.
    records : sequence of MapRecord
        Of all buckets.

    Raises
    ------
    ValueError
        A bucket is missing, or they are of several vocabularies.
    """

    def __init__(self, store: Store, records: Sequence[MapRecord]) -> None:
        self._store, self._records = store, {int(record.bucket): record for record in records}
        sources = {record.vocabulary_sha256 for record in records}
        if len(self._records) != N_BUCKETS or len(sources) != 1:
            raise ValueError(
                f"{len(self._records)} buckets of {len(sources)} vocabularies; expected {N_BUCKETS} of one"
            )
        self.vocabulary_sha256 = sources.pop()
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        self._opened = cache(self._open)

    def of_keys(self, keys: np.ndarray, missing: int) -> np.ndarray:
        """Tokens of motifs by key.

        Parameters
        ----------
        keys : numpy.ndarray, uint64, shape (n,)
        missing : int
            Stands for a motif that is not in the maps.

        Returns
        -------
        numpy.ndarray, int64, shape (n,)
        """
        return self._find(keys, bucket_of_keys(keys), missing, "key")

    def of_patches(self, patches: np.ndarray, missing: int) -> np.ndarray:
        """Tokens of motifs without key.

        Parameters
        ----------
        patches : numpy.ndarray, uint8, shape (n, n_cells)
        missing : int
            Stands for a motif that is not in the maps.

        Returns
        -------
        numpy.ndarray, int64, shape (n,)
        """
        return self._find(as_texts(patches), bucket_of_patches(patches), missing, "patch")

    def _find(self, motifs: np.ndarray, buckets: np.ndarray, missing: int, column: str) -> np.ndarray:
        found = np.full(len(motifs), missing, np.int64)
        for bucket in np.unique(buckets).tolist():
            known, tokens = self._opened(bucket, column)
            if not len(known):
                continue
            here = np.flatnonzero(buckets == bucket)
            place = np.minimum(np.searchsorted(known, motifs[here]), len(known) - 1)
            found[here] = np.where(known[place] == motifs[here], tokens[place], missing)
        return found

    def _open(self, bucket: int, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Motifs and tokens of a file, views of the mapped memory."""
        record = self._records[bucket]
        file = record.file if column == "key" else record.patches_file
        if path := self._store.path(file.key):
            open_verified(self._store, file).close()
        else:
            self._copies = self._copies or tempfile.TemporaryDirectory(prefix="neuralpile-maps-")
            path = Path(self._copies.name) / file.key.rpartition("/")[2]
            fetch(self._store, file, path)
        with damaged(self._store.uri(file.key)):
            batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        motifs, tokens = batch.columns
        kind = np.dtype(np.uint64) if column == "key" else np.dtype(f"S{motifs.type.byte_width}")
        values = np.frombuffer(motifs.buffers()[1], kind, len(batch)) if len(batch) else np.zeros(0, kind)
        return values, tokens.to_numpy()


def token_schema(tokenizer: Tokenizer) -> pa.Schema:
    """Columns of a shard of tokens; ``n_units`` only where motifs have several units, so that tokens do not say it."""
    token = pa.from_numpy_dtype(tokenizer.dtype)
    sizes = ["n_bins"] if tokenizer.shape.n_units == 1 else ["n_bins", "n_units"]
    return pa.schema(
        [
            ("tokens", pa.list_(pa.list_(token))),  # units x time steps
            *((name, pa.int32()) for name in sizes),  # of the row of counts
            *((name, pa.string()) for name in _IDS),
        ]
    )


def writer_settings(schema: pa.Schema) -> dict[str, Any]:
    """Arguments of pyarrow's ``ParquetWriter``."""
    # Plain tokens are a fifth smaller than a dictionary's indices, as long as rows use thousands of motifs. With their
    # bytes apart (BYTE_STREAM_SPLIT) they would be smaller by another fifth, but DuckDB before 2.0 cannot read that.
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": list(_IDS),
        "write_statistics": [name for name in schema.names if name != "tokens"],
        "write_page_index": True,
        "write_page_checksum": True,
    }


def build_token_shard(
    store: Store, folder: str, name: str, shard: StoredFile, tokenizer: Tokenizer, *, inputs: str
) -> TokenShardRecord:
    """Make ``<folder>/<name>.parquet`` of a shard of the pile; memory is that of one row.

    Every row is a row group, as in the shard. The same rows and tokenizer give the same bytes, with maps or without.

    Parameters
    ----------
    store : Store
    folder : str
        Store prefix.
    name : str
        Of the shard.
    shard : StoredFile
        The pile's shard.
    tokenizer : Tokenizer
    inputs : str
        For the record.

    Raises
    ------
    StoreError
        The shard is missing in the store, or of another size than recorded.
    TableError
        The shard is damaged.
    """
    if not is_intact(store, shard):
        found = store.size(shard.key)
        raise StoreError(
            f"{store.uri(shard.key)} cannot be read",
            found="no such file" if found is None else f"{found:,} bytes",
            expected=f"{shard.size:,} bytes",
            remedy="materialize the pile's shard again",
        )

    def write(stream: DigestWriter) -> dict[str, int]:
        with store.open(shard.key) as source, RowReader(source, store.uri(shard.key)) as reader:
            return write_tokens(stream, reader, tokenizer)

    file, sums = put_stream(store, f"{folder}/{name}.parquet", write)
    return TokenShardRecord(inputs=inputs, name=name, file=file, **sums)


def write_tokens(stream: DigestWriter, rows: RowReader, tokenizer: Tokenizer) -> dict[str, int]:
    """Write a Parquet file of the tokens of all rows; give the numbers of a `TokenShardRecord`."""
    schema = token_schema(tokenizer)
    n_tokens = n_exact = 0
    with pq.ParquetWriter(stream, schema, **writer_settings(schema)) as writer:
        for index in range(rows.n_rows):
            row = rows.row(index)
            tokens, exact = tokenizer.encode_row(row.counts)
            n_units, n_bins = row.counts.shape
            facts: dict[str, Any] = {
                "n_bins": n_bins,
                "n_units": n_units,
                **{name: getattr(row, name) for name in _IDS},
            }
            columns = [pa.array([facts[field.name]], field.type) for field in list(schema)[1:]]
            columns.insert(0, nested_array(tokens, schema.field("tokens").type))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            n_tokens, n_exact = n_tokens + tokens.size, n_exact + exact
    return {"rows": rows.n_rows, "tokens": n_tokens, "exact_tokens": n_exact}
