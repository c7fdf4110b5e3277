"""Parquet files of motifs and how often each occurs (`MOTIFS_SCHEMA`), bucket by bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.motifs.counts import MotifCounts
from neuralpile_dagster.motifs.shape import MotifShape
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.schemas import MOTIFS_SCHEMA


class MotifWriter:
    """Write motifs to a Parquet file, one row group for each call; a context manager.

    The same motifs give the same bytes. Rows of a group are ascending: those with a key, then those without.

    Parameters
    ----------
    target : Path
        File to write: use it inside `files.atomic_write` or `store.put_file`.
    """

    def __init__(self, target: Path) -> None:
        self._writer = pq.ParquetWriter(
            target,
            MOTIFS_SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=["bucket"],
            write_statistics=False,
            write_page_checksum=True,
        )

    def write(self, bucket: int, motifs: MotifCounts) -> None:
        """Append the motifs of a bucket as a row group, also when there are none."""
        n_keys, n_patches = len(motifs.keys), len(motifs.patches)
        ends = np.arange(n_patches + 1, dtype=np.int64) * motifs.shape.cells
        texts = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), n_patches, [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(motifs.patches))]
        ).cast(pa.binary())
        with_keys = [_column(motifs.keys), pa.nulls(n_keys, pa.binary()), _column(motifs.key_counts)]
        without = [pa.nulls(n_patches, pa.uint64()), texts, _column(motifs.patch_counts)]
        columns = [
            _column(np.full(len(motifs), bucket, np.uint8)),
            *(pa.chunked_array(pair) for pair in zip(with_keys, without, strict=True)),
        ]
        table = pa.Table.from_arrays(columns, schema=MOTIFS_SCHEMA)
        self._writer.write_table(table, row_group_size=max(len(motifs), 1))

    def __enter__(self) -> MotifWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


class MotifReader:
    """Read a file of `MotifWriter` group by group; page checksums are verified.

    Raises `TableError` naming the file when it is damaged, or of another shape.
    """

    def __init__(self, file: Path | pa.NativeFile, name: str, shape: MotifShape, *, remote: bool = False) -> None:
        self.name, self.shape = name, shape
        self._file = open_parquet(file, name, pre_buffer=remote)  # one request for a group
        require_schema(self._file.schema_arrow, MOTIFS_SCHEMA, name)

    @property
    def n_groups(self) -> int:
        """Number of row groups."""
        return int(self._file.num_row_groups)

    def group(self, number: int) -> MotifCounts:
        """The motifs of a row group."""
        with damaged(self.name):
            table = self._file.read_row_group(number, columns=["key", "patch", "count"], use_threads=False)
        keys, patches, counts = (table[name].combine_chunks() for name in table.column_names)
        n_patches = keys.null_count
        n_keys = len(keys) - n_patches
        cells = pa.concat_arrays([patches.slice(n_keys).cast(pa.large_binary())])
        ends = np.frombuffer(cells.buffers()[1], np.int64)[: n_patches + 1]
        if patches.null_count != n_keys or np.any(np.diff(ends) != self.shape.cells):
            raise TableError(
                f"{self.name} is damaged, or holds motifs of another shape",
                expected=f"motifs of {self.shape.name}",
                remedy="delete it and materialize the asset that makes it",
            )
        content = np.frombuffer(cells.buffers()[2], np.uint8) if n_patches else np.zeros(0, np.uint8)
        values = counts.to_numpy(zero_copy_only=False)
        return MotifCounts(
            self.shape,
            keys.slice(0, n_keys).to_numpy(zero_copy_only=False).astype(np.uint64, copy=False),
            values[:n_keys],
            content[ends[0] : ends[-1]].reshape(n_patches, self.shape.cells),
            values[n_keys:],
        )


@contextmanager
def open_motifs(store: Store, file: StoredFile, shape: MotifShape) -> Iterator[MotifReader]:
    """Open a stored file of motifs; raises `StoreError` when it is missing, `TableError` when it is no such file."""
    with store.open(file.key) as opened:
        yield MotifReader(opened, store.uri(file.key), shape, remote=store.readers > 1)


def _column(values: np.ndarray) -> pa.Array:
    # pa.array would import pandas: 0.45 s and 40 MB in every process
    content = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(content.dtype), len(content), [None, pa.py_buffer(content)])
