"""A session's annotations as stored: its intervals, a number or text of each unit by name, and their record.

Both are long tables, because every laboratory has columns of its own; which bins an interval spans depends on the
counts and is added when they are published.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.records import AnalysisRecord, StoredFile
from neuralpile_dagster.tables.schemas import STORED_INTERVALS_SCHEMA, STORED_METRICS_SCHEMA

if TYPE_CHECKING:
    from neuralpile_dagster.recordings.nwb.annotations import IntervalTable, Metric
    from neuralpile_dagster.recordings.nwb.table import Column

BATCH_ROWS = 20_000
"""Rows that are Python objects at a time."""


class AnnotationsRecord(AnalysisRecord):
    """Record of ``annotations/<key>``: ``file`` holds the intervals, ``units_file`` the metrics of units.

    ``trains_inputs`` is `TrainsRecord.inputs` of the same archive files. ``tables`` are the rows of each table of
    intervals, ``metrics`` the names in ``units_file``, ``notes`` what the files hold and is not used.
    """

    file: StoredFile
    units_file: StoredFile
    trains_inputs: str
    tables: dict[str, int]
    metrics: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Both files."""
        return self.file, self.units_file


def write_intervals(path: Path, tables: Iterable[IntervalTable]) -> dict[str, int]:
    """Write tables of intervals one after the other; give the rows of each.

    Their further columns are one JSON object per row: keys sorted; NaN and infinite numbers are null.
    """
    rows: dict[str, int] = {}
    with pq.ParquetWriter(path, STORED_INTERVALS_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            n_rows = rows[table.name] = len(table.start_time)
            for start in range(0, n_rows, BATCH_ROWS):
                part = slice(start, min(start + BATCH_ROWS, n_rows))
                columns = {
                    "table": [table.name] * (part.stop - part.start),
                    "row": np.arange(part.start, part.stop, dtype=np.int32),
                    "start_time": table.start_time[part],
                    "stop_time": table.stop_time[part],
                    "values": list(_objects(table.columns, part)),
                }
                writer.write_table(pa.table(columns, STORED_INTERVALS_SCHEMA))
    return rows


def _objects(columns: dict[str, Column], rows: slice) -> Iterator[str]:
    """The JSON object of each row."""
    names = sorted(columns)
    lists = [_values(columns[name], rows) for name in names]
    if not names:
        yield from ("{}" for _ in range(rows.stop - rows.start))
    for values in zip(*lists, strict=True):
        yield json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False, allow_nan=False)


def _values(column: Column, rows: slice) -> list[Any]:
    if column.ends is None:
        return _plain(column.values[rows])
    ends = [int(column.ends[rows.start - 1]) if rows.start else 0, *column.ends[rows].tolist()]
    flat = _plain(column.values[ends[0] : ends[-1]])
    return [flat[start - ends[0] : stop - ends[0]] for start, stop in pairwise(ends)]


def _plain(values: np.ndarray) -> list[Any]:
    """Values as Python's own; None for NaN and infinite numbers."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    finite = np.isfinite(values).tolist()
    numbers = values.astype(np.float64).tolist()
    return [number if is_number else None for number, is_number in zip(numbers, finite, strict=True)]


def write_metrics(path: Path, metrics: Iterable[tuple[int, Metric]]) -> tuple[str, ...]:
    """Write what is stated of each unit, in long form; give the names, sorted.

    Each metric comes with the row of its first unit in ``spike_counts``. NaN is null.
    """
    names = set()
    with pq.ParquetWriter(path, STORED_METRICS_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for first_row, metric in metrics:
            content = metric.values if metric.values is not None else metric.texts or []
            columns = {
                "row": np.arange(first_row, first_row + len(content), dtype=np.int32),
                "name": [metric.name] * len(content),
                "value": pa.nulls(len(content), pa.float64())
                if metric.values is None
                else pa.array(metric.values, pa.float64(), from_pandas=True),
                "text": metric.texts or pa.nulls(len(content), pa.string()),
            }
            if len(content):
                names.add(metric.name)
                writer.write_table(pa.table(columns, STORED_METRICS_SCHEMA))
    return tuple(sorted(names))
