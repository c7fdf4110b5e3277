"""Tables with one row per unit of a session, in the row order of ``spike_counts``: the units, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.recordings.model import Unit
from neuralpile_dagster.tables.footer import damaged, read_table
from neuralpile_dagster.tables.schemas import UNIT_ORDER_SCHEMA, UNITS_SCHEMA

UNIT_FIELDS: list[pa.Field] = [UNITS_SCHEMA.field(field.name) for field in fields(Unit)]
"""Columns for the fields of `Unit`, in its order."""


def unit_columns(units: Sequence[Unit]) -> list[pa.Array]:
    """Convert units to the columns of `UNIT_FIELDS`."""
    return [pa.array([getattr(unit, field.name) for unit in units], field.type) for field in UNIT_FIELDS]


def units_of(table: pa.Table) -> tuple[Unit, ...]:
    """Convert the rows of a table with the columns of `UNIT_FIELDS` to units."""
    columns = {field.name: table[field.name].to_pylist() for field in UNIT_FIELDS}
    columns["obs_intervals"] = [
        None if intervals is None else tuple((start, stop) for start, stop in intervals)
        for intervals in columns["obs_intervals"]
    ]
    return tuple(Unit(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))


def write_units(
    target: Path | BinaryIO,
    units: Sequence[Unit],
    subject_id: str,
    session_id: str,
    n_spikes: np.ndarray,
    observed_s: np.ndarray,
) -> None:
    """Write a session's units table.

    Parameters
    ----------
    target : Path or binary file
    units : sequence of Unit
        In the row order of the counts.
    subject_id, session_id : str
    n_spikes : numpy.ndarray, int64, shape (n_units,)
        Spikes kept in the counts, per unit.
    observed_s : numpy.ndarray, float64, shape (n_units,)
        Seconds for which each unit was observed, for ``mean_rate_hz``.
    """
    n_units = len(units)
    columns = dict(zip((field.name for field in UNIT_FIELDS), unit_columns(units), strict=True))
    columns["subject_id"] = pa.array([subject_id] * n_units, pa.string())
    columns["session_id"] = pa.array([session_id] * n_units, pa.string())
    columns["row"] = pa.array(np.arange(n_units, dtype=np.int32))
    columns["n_spikes"] = pa.array(n_spikes, pa.int64())
    columns["mean_rate_hz"] = pa.array(n_spikes / observed_s, pa.float64())
    table = pa.Table.from_arrays([columns[name] for name in UNITS_SCHEMA.names], schema=UNITS_SCHEMA)
    pq.write_table(table, target, compression="zstd", write_page_index=True, write_page_checksum=True)


def read_units(file: Path | pa.NativeFile, name: str = "a units table") -> pa.Table:
    """Read a units table; raises `TableError` naming the file when it is damaged or another table."""
    table = read_table(file, UNITS_SCHEMA, name)
    with damaged(name):
        return table.cast(UNITS_SCHEMA)


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
    order: np.ndarray = read_table(file, UNIT_ORDER_SCHEMA, name)["order"].to_numpy()
    if not np.array_equal(np.sort(order), np.arange(n_units)):
        raise TableError(
            f"{name} is not an order of units",
            found=f"{len(order):,} places",
            expected=f"each place from 0 to {n_units - 1:,} once",
            remedy="materialize the session's unit_order again",
        )
    return order
