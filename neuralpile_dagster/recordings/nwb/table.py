"""Columns of an NWB table (hdmf's DynamicTable), read one at a time with h5py.

pynwb loads whole tables; a units table holds arrays as big as the spikes.
Layout: https://hdmf-common-schema.readthedocs.io (DynamicTable, VectorIndex, DynamicTableRegion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Concatenate, ParamSpec, TypeVar

import h5py
import numpy as np

from neuralpile_dagster.errors import UnknownFilter
from neuralpile_dagster.hdf5.careful import as_column, child_paths, find_dataset, read_array, reading, shape_of
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import (
    Labels,
    TooMuchText,
    bounded,
    holds_labels,
    joined,
    read_attribute,
    read_text,
    read_texts,
    text_of,
)
from neuralpile_dagster.recordings.model import SessionFacts

MAX_ROWS = 1_000_000  # units or electrodes of one file; the largest session seen has 3,900 units
MAX_VALUES = 10_000_000  # of a ragged column beside the spikes (electrodes or intervals of all units)
ELECTRODE_GROUPS = "/general/extracellular_ephys"  # where NWB keeps what most references point to
_FACTS = {
    "subject": "/general/subject/subject_id",
    "sex": "/general/subject/sex",
    "age": "/general/subject/age",
    "species": "/general/subject/species",
    "start_time": "/session_start_time",
    "reference_time": "/timestamps_reference_time",
    "description": "/session_description",
}


def broken_index_rule(index: np.ndarray, n_values: int, n_rows: int) -> str | None:
    """Rule that a ragged column's index violates, or None.

    Parameters
    ----------
    index : numpy.ndarray, any integer dtype, shape (n,)
        Where each row's values end.
    n_values, n_rows : int
        Length of the flat values, and of the table's ``id``.
    """
    if index.dtype.kind not in "ui":
        return f"the index must be of integers, not {index.dtype}"
    if len(index) != n_rows:
        return f"the index has {len(index):,} entries for {n_rows:,} ids"
    if not len(index):
        return f"the index is empty, but there are {n_values:,} values" if n_values else None
    if index.min() < 0:
        return f"the index has negative entries, e.g. {index.min():,} for row {int(index.argmin())}"
    falls = np.flatnonzero(index[1:] < index[:-1])
    if len(falls):
        row = int(falls[0]) + 1
        return f"the index is not monotone: {index[row - 1]:,} is followed by {index[row]:,} (row {row})"
    if int(index[-1]) != n_values:
        return f"the index ends at {index[-1]:,}, but there are {n_values:,} values"
    return None


class Unusable(Exception):
    """A column contradicts its table."""


@dataclass(frozen=True)
class Column:
    """Values of a column as stored: numbers, or text (objects of type str); ``ends`` where several are of one row.

    Attributes
    ----------
    values : numpy.ndarray, number, bool or object, shape (n_values,)
    ends : numpy.ndarray, int64, shape (n_rows,), or None
        Where each row's values end.
    """

    values: np.ndarray
    ends: np.ndarray | None = None


Read = TypeVar("Read")


Options = ParamSpec("Options")


def _or_none(
    read: Callable[Concatenate[Table, str, Options], Read],
) -> Callable[Concatenate[Table, str, Options], Read | None]:
    """Return None for a missing column, and for an unusable one, with a note."""

    @wraps(read)
    def read_or_note(table: Table, column: str, *args: Options.args, **options: Options.kwargs) -> Read | None:
        if table.dataset(column) is None:
            return None
        table.read.add(column)
        try:
            return read(table, column, *args, **options)
        except (Unusable, TooMuchText) as reason:
            table.notes.append(f"{table.path}/{column} is not used: {reason}")
            return None
        except UnknownFilter as error:
            table.notes.append(f"{table.path}/{column} is not used: {error.found}")
            return None

    return read_or_note


@dataclass
class Table:
    """One table of an open file.

    A side column never fails a session: one that contradicts the table or is
    too large reads as None, as if it were missing, with a line in ``notes``. One that
    cannot be *read* raises `DamagedRecording`, because then the file is damaged.
    """

    opened: OpenFile
    file: h5py.File
    path: str
    n_rows: int
    notes: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # columns of which something was read, or tried to
    _paths: dict[int, str | None] = field(default_factory=dict)  # by address in the file

    def columns(self) -> list[str]:
        """Names of all columns, sorted; without what belongs to another column (its index or its elements)."""
        with reading(self.opened.name, self.path):
            names = {name for name in self.file[self.path] if isinstance(name, str)}
        parts = {f"{name}{part}" for name in names for part in ("_index", "_index_index", "_elements")}
        return sorted(names - parts)

    def dataset(self, column: str) -> h5py.Dataset | None:
        """The dataset of a column, or None."""
        dataset = find_dataset(self.file, f"{self.path}/{column}", self.opened.name)
        with reading(self.opened.name, f"{self.path}/{column}"):
            # h5py raises only on access if numpy has no such dtype
            return dataset if dataset is None or dataset.dtype is not None else None

    @_or_none
    def labels(self, column: str) -> Labels:
        """A column as text, one entry per row.

        Numbers become text, enumerations and references their names; the
        different labels of a row of a ragged column are joined by ``", "``.
        """
        dataset = self._usable(column, n_dims=1, kinds="fiubSO")
        rows = self._spans(column, dataset.size)
        flat = self._flat_labels(dataset)
        return bounded(joined(flat[start:stop]) for start, stop in rows)

    @_or_none
    def numbers(self, column: str) -> np.ndarray:
        """A column of one number per row: integer or float as stored, shape (n_rows,)."""
        values = read_array(self.opened, self._usable(column, n_dims=1, kinds="fiu"), max_values=MAX_ROWS)
        if len(values) != self.n_rows:
            raise Unusable(f"{len(values):,} values for {self.n_rows:,} rows")
        return values

    @_or_none
    def values(self, column: str, max_per_row: int = 0) -> Column:
        """A column of numbers, truth values, text or an enumeration (as text), exactly as stored.

        Its form is looked at before any value is read: references, rows of another table, and columns of more than
        ``max_per_row`` values per row (0: of several at all) are not read.
        """
        dataset = self.dataset(column)
        assert dataset is not None  # `_or_none`
        index = self.dataset(f"{column}_index")
        if self.dataset(f"{column}_index_index") is not None or (index is not None and not max_per_row):
            raise Unusable("several values per row")
        with reading(self.opened.name, dataset.name):
            is_reference = h5py.check_ref_dtype(dataset.dtype) is not None
        if is_reference or not holds_labels(dataset.dtype):
            raise Unusable("references" if is_reference else f"dtype {dataset.dtype}")
        if read_attribute(dataset, "table", self.opened.name) is not None:
            raise Unusable("rows of another table")
        dataset = self._usable(column, n_dims=1, kinds="fiubSO")
        spans = None if index is None else self._spans(column, dataset.size)
        if spans is None and dataset.size != self.n_rows:
            raise Unusable(f"{dataset.size:,} values for {self.n_rows:,} rows, and no index")
        if spans and (most := max(stop - start for start, stop in spans)) > max_per_row:
            raise Unusable(f"up to {most:,} values per row, more than {max_per_row}")
        return Column(self._as_stored(dataset), None if spans is None else np.array([b for _, b in spans], np.int64))

    def _as_stored(self, dataset: h5py.Dataset) -> np.ndarray:
        if dataset.dtype.kind in "SO":
            texts = [text.decode("utf-8", errors="replace") for text in read_texts(self.opened, dataset)]
            return np.array([*texts, None], object)[:-1]  # never an array of fixed-length text
        values = read_array(self.opened, dataset, max_values=MAX_VALUES)
        names = self._names_of_numbers(dataset) if dataset.dtype.kind in "iu" else None
        if names is None:
            return values
        return np.array([*(names.get(int(value)) or str(value) for value in values), None], object)[:-1]

    @_or_none
    def region(self, column: str) -> list[np.ndarray]:
        """Row numbers (of another table) that each row refers to: several, or one per row.

        Returns
        -------
        list of numpy.ndarray, integer, shape (n_references,)
            One array per row.
        """
        dataset = self._usable(column, n_dims=1, kinds="iu")
        rows = self._spans(column, dataset.size)
        targets = read_array(self.opened, dataset, max_values=MAX_VALUES)
        return [targets[start:stop] for start, stop in rows]

    @_or_none
    def intervals(self, column: str) -> list[tuple[tuple[float, float], ...]]:
        """A column of (start, stop) pairs, in seconds: several, or one per row."""
        dataset = self._usable(column, n_dims=2, kinds="fiu")
        if dataset.shape[1] != 2:
            raise Unusable(f"shape {dataset.shape}, not (n, 2)")
        rows = self._spans(column, dataset.shape[0])
        values = read_array(self.opened, dataset, n_dims=2, max_values=MAX_VALUES)
        return [tuple((float(start), float(stop)) for start, stop in values[a:b]) for a, b in rows]

    @_or_none
    def targets(self, column: str) -> list[str | None]:
        """Paths of the objects that a column of references points to (None for a null reference).

        The caller has found that its dtype is that of references.
        """
        dataset = self._usable(column, n_dims=1, kinds="O")
        if dataset.size != self.n_rows:
            raise Unusable(f"{dataset.size:,} values for {self.n_rows:,} rows")
        return self._referred(read_array(self.opened, dataset, kinds="O", max_values=MAX_ROWS))

    def ends(self, column: str) -> np.ndarray | None:
        """Where each row's values of a ragged column end, shape (n_rows,), integers; None for other columns.

        Numbers as stored (see `broken_index_rule`), or counted from the
        region references that NWB 2.0 had in their place.
        """
        dataset = self.dataset(f"{column}_index")
        if dataset is None:
            return None
        if h5py.check_ref_dtype(dataset.dtype) is h5py.RegionReference:
            return self._region_ends(column, dataset)
        return read_array(self.opened, dataset, max_values=max(MAX_ROWS, self.n_rows))

    def _region_ends(self, column: str, index: h5py.Dataset) -> np.ndarray:
        """Ends of regions that lie one after the other in a column; a null reference is an empty one."""
        values, what = self.dataset(column), f"a region in {self.path}/{column}_index"
        ends = np.zeros(index.size, np.int64)
        end = 0
        for row, region in enumerate(read_array(self.opened, index, kinds="O", max_values=MAX_ROWS)):
            with reading(self.opened.name, what):
                n_values = 0
                if region:
                    target = h5py.h5r.dereference(region, self.file.id)
                    space = h5py.h5r.get_region(region, self.file.id)
                    n_values = space.get_select_npoints()
                    is_ours = values is not None and h5py.h5o.get_info(target).addr == h5py.h5o.get_info(values.id).addr
                first, last = map(sum, space.get_select_bounds()) if n_values else (end, end - 1)
            if n_values and (not is_ours or first != end or last - first + 1 != n_values):
                raise Unusable(
                    f"the index holds region references, of which row {row} is not the next {n_values:,} values"
                )
            end += n_values
            ends[row] = end
        return ends

    def _usable(self, column: str, *, n_dims: int, kinds: str) -> h5py.Dataset:
        dataset = self.dataset(column)
        shape = () if dataset is None else dataset.shape or ()
        n_found = len(as_column(shape) if n_dims == 1 else shape)
        if dataset is None or n_found != n_dims or dataset.dtype.kind not in kinds:
            raise Unusable("not there" if dataset is None else f"dtype {dataset.dtype}, shape {dataset.shape}")
        limit = MAX_ROWS if dataset.dtype.kind == "O" else MAX_VALUES  # references become objects, which are large
        if dataset.size > limit:
            raise Unusable(f"{dataset.size:,} values, more than {limit:,}")
        return dataset

    def _spans(self, column: str, n_values: int) -> list[tuple[int, int]]:
        """(start, stop) of each row's values in a column of ``n_values``, ragged or not."""
        index = self.ends(column)
        if index is None:
            if n_values != self.n_rows:
                raise Unusable(f"{n_values:,} values for {self.n_rows:,} rows, and no index")
            return [(row, row + 1) for row in range(n_values)]
        broken = broken_index_rule(index, n_values, self.n_rows)
        if broken:
            raise Unusable(broken)
        stops = index.astype(np.int64).tolist()
        return list(pairwise([0, *stops]))

    def _flat_labels(self, dataset: h5py.Dataset) -> Labels:
        dtype = dataset.dtype
        is_reference = h5py.check_ref_dtype(dtype) is h5py.Reference
        if not is_reference and not holds_labels(dtype):
            raise Unusable(f"dtype {dtype}")
        if dtype.kind in "SO" and not is_reference:
            return [text_of(text) for text in read_texts(self.opened, dataset)]
        values = read_array(self.opened, dataset, kinds="fiubO", max_values=MAX_VALUES)
        if is_reference:
            paths = self._referred(values)
            group_names = {path: PurePosixPath(path).name for path in set(paths) if path is not None}
            return [None if path is None else group_names[path] for path in paths]
        names = self._names_of_numbers(dataset) if dtype.kind in "iu" else None
        if names is not None:
            return [names.get(int(value), str(value)) for value in values]
        return [text_of(value) for value in values]

    def _names_of_numbers(self, dataset: h5py.Dataset) -> dict[int, str | None] | None:
        """Names of the values of an HDF5 enumeration, or of an hdmf ``EnumData`` column."""
        enumeration = h5py.check_enum_dtype(dataset.dtype)
        if enumeration is not None:
            return {number: text_of(name) for name, number in enumeration.items()}
        reference = read_attribute(dataset, "elements", self.opened.name)
        if not isinstance(reference, h5py.Reference):
            return None
        (path,) = self._referred([reference])
        target = find_dataset(self.file, path, self.opened.name) if path else None
        if target is None or h5py.check_string_dtype(target.dtype) is None:
            return None
        return dict(enumerate(map(text_of, read_texts(self.opened, target))))

    def _referred(self, references: Iterable[h5py.Reference]) -> list[str | None]:
        """Paths of referenced objects, cached, because HDF5 finds a path by walking the whole file."""
        paths: list[str | None] = []
        for reference in references:
            with reading(self.opened.name, f"a reference in {self.path}"):
                if not reference:
                    paths.append(None)
                    continue
                address = h5py.h5o.get_info(h5py.h5r.dereference(reference, self.file.id)).addr
                if not self._paths:
                    self._paths.update(child_paths(self.file, ELECTRODE_GROUPS, self.opened.name))
                if address not in self._paths:
                    path = h5py.h5r.get_name(reference, self.file.id)
                    self._paths[address] = path.decode("utf-8", errors="replace") if path else None
            paths.append(self._paths[address])
        return paths


def open_table(opened: OpenFile, file: h5py.File, path: str, max_rows: int = MAX_ROWS) -> Table | None:
    """The table at a path; None when there is none. Raises `DamagedRecording` when it has no ids."""
    ids = find_dataset(file, f"{path}/id", opened.name)
    if ids is None:
        return None
    (n_rows,) = shape_of(ids, opened.name, n_dims=1, max_values=max_rows)
    return Table(opened, file, path, n_rows)


def read_facts(file: h5py.File, name: str) -> SessionFacts:
    """The session's facts as the file states them; empty text counts as not stated."""
    return SessionFacts(**{fact: read_text(file, path, name) for fact, path in _FACTS.items()})


def first_facts(facts: Sequence[SessionFacts]) -> SessionFacts:
    """The facts of a session of several files: each from the first file that states it."""
    stated = {
        field.name: next((value for one in facts if (value := getattr(one, field.name)) is not None), None)
        for field in fields(SessionFacts)
    }
    return SessionFacts(**stated)
