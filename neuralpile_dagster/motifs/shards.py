"""Files of tokens, parallel to the shards of a pile: row k is row k of the shard, its counts encoded.

``build_token_shard(store, folder, name, shard, tokenizer, inputs=)`` makes one. Encoding a row belongs in `tokens`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import DigestWriter
from neuralpile_dagster.motifs.records import TokenShardRecord
from neuralpile_dagster.motifs.tokens import Tokenizer
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store, is_intact, put_stream
from neuralpile_dagster.tables.rows import Row, RowReader
from neuralpile_dagster.tables.schemas import PILE_SCHEMA

_IDS = PILE_SCHEMA.names[1:]


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
            writer.write_table(_row_table(row, tokens, schema))
            n_tokens, n_exact = n_tokens + tokens.size, n_exact + exact
    return {"rows": rows.n_rows, "tokens": n_tokens, "exact_tokens": n_exact}


def _row_table(row: Row, tokens: np.ndarray, schema: pa.Schema) -> pa.Table:
    n_units, n_bins = row.counts.shape
    columns: dict[str, Any] = {"n_bins": [n_bins], "n_units": [n_units]}
    columns |= {name: [getattr(row, name)] for name in _IDS}
    plain = [pa.array(columns[field.name], field.type) for field in list(schema)[1:]]
    return pa.Table.from_arrays([_nested(tokens, schema.field("tokens").type), *plain], schema=schema)


def _nested(tokens: np.ndarray, kind: pa.ListType) -> pa.ListArray:
    """A matrix of tokens as one row of lists, sharing its memory."""
    rows, columns = tokens.shape
    values = pa.Array.from_buffers(kind.value_type.value_type, tokens.size, [None, pa.py_buffer(tokens.reshape(-1))])
    ends = pa.array((np.arange(rows + 1, dtype=np.int64) * columns).tolist(), pa.int32())
    inner = pa.ListArray.from_arrays(ends, values, type=kind.value_type)
    return pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), inner, type=kind)
