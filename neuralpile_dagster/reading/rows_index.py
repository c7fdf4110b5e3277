"""The index of a published dataset: what each row is and where it lies, from footers and the ``sessions`` table.

No row is read, unless its session is in no table. Reading belongs to `pile`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.tables.arrow_rows import shared_array
from neuralpile_dagster.tables.footer import GET_AGAIN, require_schema
from neuralpile_dagster.tables.schemas import ROW_SCHEMA

Key = tuple[str, str, str]
"""``source_dataset``, ``subject_id``, ``session_id``: a session."""
_SEGMENT = re.compile(r"segment_(\d+)")
_IDS = ROW_SCHEMA.names[1:]


@dataclass(frozen=True)
class RowIndex:
    """What is known about every row of a dataset.

    Attributes
    ----------
    table : pyarrow.Table
        See `pile.Pile.segments`.
    sessions : list of Key
        Those of the ``sessions`` table, then others that rows name.
    session_units : numpy.ndarray, int64, shape (n_sessions,)
    """

    table: pa.Table
    sessions: list[Key]
    session_units: np.ndarray
    shapes: np.ndarray
    paths: list[str]
    places: np.ndarray

    def shape(self, row: int) -> tuple[int, int]:
        """Units and bins."""
        n_units, n_bins = self.shapes[row].tolist()
        return n_units, n_bins

    def place(self, row: int) -> tuple[str, int, int, int]:
        """File, row group, and first byte and length of the column chunk of spike counts."""
        file, group, start, length = self.places[row].tolist()
        return self.paths[file], group, start, length


def session_keys(table: pa.Table, name: str) -> list[Key]:
    """The session of each row of a table; ``name`` is the dataset where the table does not say."""
    sources = table["source_dataset"].to_pylist() if "source_dataset" in table.column_names else [name] * len(table)
    keys = list(zip(sources, table["subject_id"].to_pylist(), table["session_id"].to_pylist(), strict=True))
    if any(None in key for key in keys):
        raise TableError(
            f"a table of {name} names no session in some rows",
            found=str(next(key for key in keys if None in key)),
            expected="source_dataset, subject_id and session_id in each",
            remedy=GET_AGAIN,
        )
    return keys


def index_of(
    files: Sequence[tuple[str, str, pq.FileMetaData]],
    sessions: pa.Table,
    name: str,
    place: str,
    units_of: Callable[[str, int], int],
) -> RowIndex:
    """Make the index.

    Parameters
    ----------
    files : sequence of (path, split, footer)
    sessions : pyarrow.Table
        As published; may lack sessions.
    name, place : str
        Of the dataset, for rows without ``source_dataset``, and for messages.
    units_of : callable
        Units of a row of a session that ``sessions`` lacks, by its path and row group.

    Raises
    ------
    TableError
        A file is not of rows of spike counts with a row group for each, or contradicts ``sessions``.
    """
    keys = session_keys(sessions, name)
    number = {key: k for k, key in enumerate(keys)}
    units: list[int] = sessions["n_units"].to_pylist()
    bins: list[int | None] = sessions["n_bins"].to_pylist()
    segments: list[int | None] = sessions["n_segments"].to_pylist()
    widths = dict(enumerate(sessions["bin_width_s"].to_pylist()))
    columns: dict[str, list[str]] = {column: [] for column in ("source_dataset", *_IDS, "split")}
    row_sessions: list[int] = []
    places: list[tuple[int, int, int, int]] = []
    tokens: list[int] = []
    for file, (path, split, footer) in enumerate(files):
        for group, ids, chunk in _rows(footer, f"{place}/{path}"):
            key = (ids[3] if len(ids) > 3 else name, ids[0], ids[1])
            session = number.get(key)
            if session is None:
                session = number[key] = len(keys)
                keys.append(key)
                units.append(units_of(path, group))
                bins.append(None)
                segments.append(None)
            for column, value in zip(columns.values(), (key[0], *ids[:3], split), strict=True):
                column.append(value)
            row_sessions.append(session)
            places.append((file, group, *chunk[1:]))
            tokens.append(chunk[0])
    session_units = np.array(units, np.int64)
    of_session = np.array(row_sessions, np.int64)
    n_units, n_tokens = session_units[of_session], np.array(tokens, np.int64)
    n_bins = n_tokens // np.maximum(n_units, 1)
    if np.any(n_bins * n_units != n_tokens):
        row = int(np.flatnonzero(n_bins * n_units != n_tokens)[0])
        raise TableError(
            f"{place}: {columns['session_id'][row]} {columns['segment_id'][row]} contradicts the table of sessions",
            found=f"{n_tokens[row]:,} tokens",
            expected=f"a multiple of {n_units[row]} units",
        )
    starts = _start_bins(columns["segment_id"], of_session, n_bins, bins, segments)
    width = np.array([widths.get(session) or np.nan for session in of_session.tolist()])
    found = np.array(places, np.int64)
    table = pa.table(
        {
            **{column: texts(values) for column, values in columns.items()},
            "n_units": shared_array(n_units),
            "n_bins": shared_array(n_bins),
            "start_bin": shared_array(starts, starts >= 0),
            "start_s": shared_array(starts * width, (starts >= 0) & ~np.isnan(width)),
            "tokens": shared_array(n_tokens),
            "bytes": shared_array(found[:, 3]),
            "session": shared_array(of_session),
            "file": texts([files[file][0] for file in found[:, 0].tolist()]),
            "row_group": shared_array(found[:, 1]),
        }
    )
    return RowIndex(
        table,
        keys,
        session_units,
        np.stack([n_units, n_bins], axis=1),
        [path for path, *_ in files],
        found,
    )


def _rows(footer: pq.FileMetaData, name: str) -> list[tuple[int, list[str], tuple[int, int, int]]]:
    """Row group, ids, and tokens, first byte and length of the counts of each row of a file."""
    require_schema(footer.schema.to_arrow_schema(), ROW_SCHEMA, name, optional=("source_dataset",))
    found = []
    for group in range(footer.num_row_groups):
        facts = footer.row_group(group)
        counts = facts.column(0)
        statistics = [facts.column(column).statistics for column in range(1, facts.num_columns)]
        ids: list[Any] = [each and (each.min if each.min == each.max else None) for each in statistics]
        if facts.num_rows != 1 or None in ids:
            raise TableError(
                f"{name} cannot be read at random: row group {group} is not one row whose footer states its ids",
                found=f"{facts.num_rows} rows, ids {ids}",
                expected="a file that neuralpile published",
                remedy=f"{GET_AGAIN}; rows of another program: merge them into a pile, which writes this form",
            )
        first = counts.dictionary_page_offset
        start = counts.data_page_offset if first is None else first
        found.append((group, ids, (counts.num_values, start, counts.total_compressed_size)))
    return found


def _start_bins(
    segment_ids: Sequence[str],
    of_session: np.ndarray,
    n_bins: np.ndarray,
    bins: Sequence[int | None],
    segments: Sequence[int | None],
) -> np.ndarray:
    """First bin of each row in its session, -1 where unknown: all segments of a session but the last are equally long.

    Returns
    -------
    numpy.ndarray, int64, shape (n_rows,)
    """
    starts = np.full(len(of_session), -1, np.int64)
    for row, (segment, session, length) in enumerate(
        zip(segment_ids, of_session.tolist(), n_bins.tolist(), strict=True)
    ):
        found = _SEGMENT.fullmatch(segment)
        if not found:
            continue
        k, total, last = int(found[1]), bins[session], segments[session]
        if k == 0:
            starts[row] = 0
        elif total is not None and last is not None:
            starts[row] = total - length if k == last - 1 else k * length
    return starts


def texts(values: Sequence[str]) -> pa.Array:
    """Texts as Arrow holds them; see `shared_array`."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    kind, ends = (pa.string(), ends.astype(np.int32)) if ends[-1] < 1 << 31 else (pa.large_string(), ends)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def missing_split(split: str | None, place: str) -> ConfigurationError:
    """The error for reading a split that a copy lacks."""
    return ConfigurationError(
        f"the split {split!r} is not in this copy of the pile",
        found=f"no {place}/data/{split}-*.parquet",
        expected="the files that its table of segments names",
        remedy=GET_AGAIN,
    )
