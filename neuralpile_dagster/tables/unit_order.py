"""The order of a session's units as stored: the place of each unit, and the record of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.records import AnalysisRecord, StoredFile
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.schemas import UNIT_ORDER_SCHEMA


class UnitOrderRecord(AnalysisRecord):
    """Record of ``unit_order/<key>``; ``file`` holds the place of each unit.

    ``counts_sha256`` is the digest of the spike counts that it was made from, ``scipy`` the version that clustered.
    """

    file: StoredFile
    counts_sha256: str
    n_units: int
    silent_units: int
    scipy: str


def write_order(path: Path, order: np.ndarray) -> None:
    """Write a table of `UNIT_ORDER_SCHEMA`.

    Parameters
    ----------
    path : Path
    order : numpy.ndarray, int32, shape (n_units,)
        Place of each unit, in the row order of the counts.
    """
    table = pa.table([np.arange(len(order), dtype=np.int32), order], schema=UNIT_ORDER_SCHEMA)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_order(file: pa.NativeFile, name: str, n_units: int) -> np.ndarray:
    """Read what `write_order` wrote.

    Returns
    -------
    numpy.ndarray, int32, shape (n_units,)

    Raises
    ------
    TableError
        The file is damaged, or not an order of ``n_units`` units; names it.
    """
    parquet = open_parquet(file, name)
    require_schema(parquet.schema_arrow, UNIT_ORDER_SCHEMA, name)
    with damaged(name):
        order: np.ndarray = parquet.read()["order"].to_numpy()
    if not np.array_equal(np.sort(order), np.arange(n_units)):
        raise TableError(
            f"{name} is not an order of units",
            found=f"{len(order):,} places",
            expected=f"each place from 0 to {n_units - 1:,} once",
            remedy="materialize the session's unit_order again",
        )
    return order
