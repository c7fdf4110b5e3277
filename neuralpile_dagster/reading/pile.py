"""A published pile or component, opened for reading: its tables, its rows, and windows of rows.

Windows are cut out of the published Parquet pages by arithmetic: no other copy of the data is needed.
Which windows a training job sees, and in which order, belongs to `windows`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.reading.rows_index import Key, RowIndex, index_of, missing_split, session_keys, texts
from neuralpile_dagster.reading.sources import Repository, open_repository, read
from neuralpile_dagster.tables.arrow_rows import Row, counts_matrix, shared_array
from neuralpile_dagster.tables.copying.copy import damaged_row
from neuralpile_dagster.tables.copying.encoded import ForeignEncoding, unpack_counts
from neuralpile_dagster.tables.footer import GET_AGAIN, damaged, open_parquet
from neuralpile_dagster.tables.packed import PackedCounts, pack
from neuralpile_dagster.tables.schemas import SESSIONS_SCHEMA, UNITS_SCHEMA

_DATA = re.compile(r"data/(?P<split>\w+)-[^/]*\.parquet")
_REQUESTS = 8
"""Concurrent requests to a remote repository."""


class Pile:
    """A published pile or component at one version; a context manager.

    May be pickled and inherited by forked processes: each opens the files that it reads.

    Attributes
    ----------
    name : str
        Name without owner.
    place : str
        Folder or address.
    revision : str or None
        Commit on the Hugging Face Hub, version in a local hub.
    is_remote : bool
        Whether reading costs round trips over a network.
    missing_splits : frozenset of str
        Splits that the published table of segments names and of which this copy has no file.
    segments : pyarrow.Table
        One row per row of the data, in the order of the files: ``source_dataset``, ``subject_id``, ``session_id``,
        ``segment_id``, ``split``, ``n_units``, ``n_bins``, ``start_bin`` and ``start_s`` (bins, and seconds, from the
        first bin of the session to the first bin of the row; null where unknown), ``tokens``, ``bytes``, ``session``
        (row number in `sessions`), ``file``, ``row_group``. Its row numbers are what methods take as ``segment``.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.name, self.place, self.revision = repository.name, repository.place, repository.revision
        self.is_remote = repository.is_remote
        self._process = os.getpid()
        self._opened: dict[str, RangeFile] = {}
        self._latest: tuple[int, PackedCounts] | None = None
        self.missing_splits: frozenset[str] = frozenset()
        published = self.table("sessions")
        self._published_sessions = SESSIONS_SCHEMA.empty_table() if published is None else published
        self._index = self._read_index()
        self.segments = self._index.table

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None, *, cache: bool = False) -> Pile:
        """Open a published dataset; reads the footers of its files, and its ``sessions``.

        Parameters
        ----------
        source : str or Path
            A folder of a local hub or a copy of one, ``owner/name`` on the Hugging Face Hub (HF_TOKEN and
            HF_ENDPOINT are heeded), or ``s3://bucket/prefix`` (``AWS_*`` are heeded).
        revision : str, optional
            Branch, tag or commit on the Hugging Face Hub, main when not given. What is read is one commit,
            also when somebody publishes meanwhile; `Pile.revision` names it.
        cache : bool
            Fetch data files from the Hugging Face Hub whole, into huggingface_hub's cache, when they are first read:
            for more than one epoch. When false, only what is read is fetched, each time.

        Raises
        ------
        HubError
            There is no such dataset, or none at this revision.
        StoreError
            S3 refuses.
        TransientError
            The hub or S3 cannot be reached now.
        TableError
            The files are damaged, or are not rows of spike counts.
        """
        return cls(open_repository(source, revision, cache))

    def table(self, name: str) -> pa.Table | None:
        """A table that is published beside the rows (a config), such as ``token_counts``; None when there is none."""
        path = f"{name}/{name}.parquet"
        if path not in self._repository.paths:
            return None
        table = f"{self.place}/{path}"
        with self._repository.open(path) as file, damaged(table, GET_AGAIN):
            content = read(file, 0, file.size, table)
            # by no thread of pyarrow's: one that holds a Python object while Python exits aborts the process
            parquet = open_parquet(pa.BufferReader(content), table, pre_buffer=False, remedy=GET_AGAIN)
            return parquet.read(use_threads=False)

    @cached_property
    def sessions(self) -> pa.Table:
        """One row per session, as published (`tables.schemas.SESSIONS_SCHEMA`); sessions that it lacks come last."""
        table, known = self._published_sessions, len(self._published_sessions)
        units = self._index.session_units[known:].tolist()
        return _with_missing(table, self._index.sessions[known:], n_units=units)

    @cached_property
    def units(self) -> pa.Table:
        """One row per unit, as published (`tables.schemas.UNITS_SCHEMA`); units of sessions that it lacks come last.

        Its row numbers are the ``unit_index`` of `windows.Windows`.
        """
        return self._units[0]

    @cached_property
    def splits(self) -> pa.Table | None:
        """The split of each session, where it is published."""
        return self.table("splits")

    def unit_index(self, session: int) -> np.ndarray:
        """Row numbers in `units` of a session's units, in the order of its spike counts.

        Returns
        -------
        numpy.ndarray, int64, shape (n_units,)
        """
        first = int(self._units[1][session])
        return np.arange(first, first + int(self._index.session_units[session]), dtype=np.int64)

    @cached_property
    def _units(self) -> tuple[pa.Table, np.ndarray]:
        """The table, and where each session's units begin in it."""
        published = self.table("units")
        table = UNITS_SCHEMA.empty_table() if published is None else published
        row = table["row"].to_numpy()
        starts = np.flatnonzero(row == 0)
        lengths = np.diff(np.append(starts, len(row)))
        if len(row) != lengths.sum() or not np.array_equal(row, np.arange(len(row)) - np.repeat(starts, lengths)):
            raise TableError(f"{self.place}: units are not rows 0, 1, ... of one session after the other")
        keys = session_keys(table.take(shared_array(starts)), self.name)
        found = dict(zip(keys, zip(starts.tolist(), lengths.tolist(), strict=True), strict=True))
        first: list[int] = []
        missing: list[Key] = []
        rows: list[int] = []
        for key, n_units in zip(self._index.sessions, self._index.session_units.tolist(), strict=True):
            start, length = found.get(key, (len(table) + len(rows), n_units))
            if length != n_units:
                raise TableError(
                    f"{self.place}: the table of units contradicts that of sessions at {key[2]}",
                    found=f"{length} units",
                    expected=f"{n_units}",
                )
            first.append(start)
            if key not in found:
                missing += [key] * n_units
                rows += range(n_units)
        return _with_missing(table, missing, row=rows), np.array(first, np.int64)

    def rows(self, split: str | None = None) -> Iterator[Row]:
        """The rows of a split, or all, in the order of the files; memory is that of one row.

        Yields
        ------
        Row
            ``counts`` is uint8 (n_units, n_bins), spikes per bin; then ``subject_id``, ``session_id``, ``segment_id``,
            ``source_dataset``.

        Raises
        ------
        ConfigurationError
            The split is one of `missing_splits`.
        """
        if split in self.missing_splits:
            raise missing_split(split, self.place)
        texts = ("subject_id", "session_id", "segment_id", "source_dataset")
        for segment, row in enumerate(self.segments.select(["split", *texts]).to_pylist()):
            if split in (None, row["split"]):
                yield Row(self.counts(segment), *(row[name] for name in texts))

    def counts(self, segment: int) -> np.ndarray:
        """All spike counts of a row.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_units, n_bins)
        """
        n_units, n_bins = self._index.shape(segment)
        if not n_units * n_bins:
            return np.zeros((n_units, n_bins), np.uint8)
        path, group, *_ = self._index.place(segment)
        packed = self.packed(segment)
        with damaged_row(f"{self.place}/{path}", group, GET_AGAIN):
            return packed.counts()

    def window(self, segment: int, start: int, n_bins: int, units: np.ndarray | None = None) -> np.ndarray:
        """Consecutive bins of a row; others are not unpacked. The last row looked at is kept, packed.

        Parameters
        ----------
        segment : int
            Row number in `segments`.
        start, n_bins : int
            First bin, from that of the row, and number of bins.
        units : numpy.ndarray, integer, shape (n_chosen,), optional
            Rows of the counts; all when not given.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_chosen, n_bins)

        Raises
        ------
        ValueError
            The row has no such bins or units.
        """
        shape = self._index.shape(segment)
        if not 0 <= start <= start + n_bins <= shape[1]:
            raise ValueError(f"bins {start} to {start + n_bins} of {shape[1]}")
        if not all(shape):
            return np.zeros((shape[0] if units is None else len(units), n_bins), np.uint8)
        if units is not None and len(units) and not 0 <= np.min(units) <= np.max(units) < shape[0]:
            raise ValueError(f"units {np.min(units)} to {np.max(units)} of {shape[0]}")
        if self._latest is None or self._latest[0] != segment:
            self._latest = None  # free its memory first
            self._latest = (segment, self.packed(segment))
        return self.cut(segment, self._latest[1], start, n_bins, units)

    def cut(
        self, segment: int, packed: PackedCounts, start: int, n_bins: int, units: np.ndarray | None = None
    ) -> np.ndarray:
        """As `window`, of a row that `packed` gave.

        Returns
        -------
        numpy.ndarray, uint8, shape (n_chosen, n_bins)

        Raises
        ------
        TableError
            The row is damaged, which may be seen only now.
        """
        path, group, *_ = self._index.place(segment)
        with damaged_row(f"{self.place}/{path}", group, GET_AGAIN):
            return packed.window(start, start + n_bins, units)

    def packed(self, segment: int) -> PackedCounts:
        """A row's counts, decompressed but packed: half a byte per token, mostly. Not for rows without tokens.

        Raises
        ------
        TableError
            The row is damaged.
        """
        path, group, start, length = self._index.place(segment)
        name = f"{self.place}/{path}"
        file = self._file(path)
        if start < 0 or length < 0 or start + length > file.size:
            raise TableError(
                f"{name} is damaged: row {group} lies outside of it",
                found=f"{file.size:,} bytes",
                expected=f"bytes {start:,} to {start + length:,}, as its footer says",
                remedy=GET_AGAIN,
            )
        chunk = read(file, start, length, name)
        with damaged_row(name, group, GET_AGAIN):
            try:
                found = unpack_counts(memoryview(chunk))
            except ForeignEncoding:
                found = pack(self._by_pyarrow(path, group))
            if (found.n_units, found.n_bins) != self._index.shape(segment):
                raise ValueError(f"{found.n_units} x {found.n_bins}, by its footer {self._index.shape(segment)}")
        return found

    def packed_rows(self, segments: Sequence[int]) -> list[PackedCounts]:
        """Several rows as `packed`; from a remote repository with concurrent requests."""
        if not self.is_remote or len(segments) < 2:
            return [self.packed(segment) for segment in segments]
        for segment in segments:
            self._file(self._index.place(segment)[0])
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(self.packed, segments))

    def close(self) -> None:
        """Close the files; they are opened again when read."""
        for file in self._opened.values():
            file.close()
        self._opened = {}

    def __enter__(self) -> Pile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}, "_latest": None}

    def __repr__(self) -> str:
        return f"Pile({self.place!r}, {self.segments.num_rows:,} rows of {len(self._index.sessions):,} sessions)"

    def _file(self, path: str) -> RangeFile:
        if self._process != os.getpid():  # a fork: two processes must not talk over one connection
            self._process, self._opened = os.getpid(), {}
        if path not in self._opened:
            self._opened[path] = self._repository.open(path, whole=True)
        return self._opened[path]

    def _by_pyarrow(self, path: str, group: int) -> np.ndarray:
        name = f"{self.place}/{path}"
        with self._repository.open(path, whole=True) as file, damaged(name, GET_AGAIN):
            parquet = open_parquet(pa.PythonFile(io.BufferedReader(file)), name, pre_buffer=False, remedy=GET_AGAIN)
            column = parquet.read_row_group(group, columns=["spike_counts"], use_threads=False)["spike_counts"]
        return np.ascontiguousarray(counts_matrix(column.combine_chunks(), name))

    def _read_index(self) -> RowIndex:
        paths = sorted(path for path in self._repository.paths if _DATA.fullmatch(path))
        if not paths:
            raise TableError(
                f"{self.place} has no rows of spike counts",
                found=", ".join(sorted(self._repository.paths)) or "no Parquet files",
                expected="data/<split>-*.parquet",
            )
        self._require_whole_splits(paths)
        if self.is_remote:
            with ThreadPoolExecutor(_REQUESTS) as pool:
                footers = list(pool.map(self._footer, paths))
        else:
            footers = [self._footer(path) for path in paths]
        files = [(path, _split_of(path), footer) for path, footer in zip(paths, footers, strict=True)]

        def units_of(path: str, group: int) -> int:
            """Units of a row whose session is in no table: its counts have to be read."""
            return len(self._by_pyarrow(path, group))

        return index_of(files, self._published_sessions, self.name, self.place, units_of)

    def _require_whole_splits(self, paths: Sequence[str]) -> None:
        """Raise `TableError` where files of a split are there, but not all that the table of segments names."""
        table = self.table("segments")
        if table is None or "file" not in table.column_names:
            return
        stated = sorted(set(filter(_DATA.fullmatch, table["file"].drop_null().unique().to_pylist())))
        self.missing_splits = frozenset(map(_split_of, stated)) - frozenset(map(_split_of, paths))
        lacking = [path for path in stated if path not in paths and _split_of(path) not in self.missing_splits]
        if lacking:
            raise TableError(
                f"{self.place}/{lacking[0]} is missing",
                found=f"{len({*stated} & {*paths})} of the {len(stated)} files that {self.place}/segments names",
                expected="all files of a split, or none",
                remedy=f"{GET_AGAIN}; where a part is meant, leave `segments` out of the copy",
            )

    def _footer(self, path: str) -> pq.FileMetaData:
        """The footer alone is given to pyarrow, which otherwise reads more."""
        name = f"{self.place}/{path}"
        with self._repository.open(path) as file, damaged(name, GET_AGAIN):
            guess = min(1 << 16, file.size)
            tail = read(file, file.size - guess, guess, name)
            length = int.from_bytes(tail[-8:-4], "little") + 8
            if guess < length <= file.size:
                tail = read(file, file.size - length, length, name)
            return pq.read_metadata(pa.BufferReader(b"PAR1" + bytes(tail[-length:])))


def _split_of(path: str) -> str:
    """The split of a file of rows."""
    return path.removeprefix("data/").partition("-")[0]


def _with_missing(table: pa.Table, keys: Sequence[Key], **columns: list[int]) -> pa.Table:
    """The table, and below it a row for each key, which says nothing but ``columns``."""
    if not keys:
        return table
    ids = zip(("source_dataset", "subject_id", "session_id"), map(texts, zip(*keys, strict=True)), strict=True)
    more = {
        name: shared_array(np.array(values, table.schema.field(name).type.to_pandas_dtype()))
        for name, values in columns.items()
    }
    return pa.concat_tables([table, pa.table({**dict(ids), **more})], promote_options="default")
