"""Components of a pile: their files, and for every row its session, tokens and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import MergeError, TableError
from neuralpile_dagster.merge.model import SourceFile
from neuralpile_dagster.records import ComponentSession
from neuralpile_dagster.tables.copying.copy import FileOpener
from neuralpile_dagster.tables.copying.encoded import SOURCE_COLUMN
from neuralpile_dagster.tables.copying.footers import GroupSize, read_group_sizes
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.rows import COUNTS_COLUMN

_IDS = ["subject_id", "session_id", "segment_id"]


@dataclass(frozen=True, eq=False)
class PileSource:
    """One component of a pile: its rows in order.

    Attributes
    ----------
    name : str
        The repository's name without namespace; becomes ``source_dataset`` of rows that have none of their own.
    files : tuple of SourceFile
    sessions : tuple of (subject_id, session_id)
        In the order of their first rows. Ids may repeat under different ``session_datasets``.
    session_datasets : tuple of str
        ``source_dataset`` of each session: ``name``, or what the files of another pile state.
    row_file, row_number : numpy.ndarray, int32, shape (n_rows,)
        The file (a position in ``files``) that holds the row, and its number in that file.
    row_session : numpy.ndarray, int32, shape (n_rows,)
        Position in ``sessions``.
    row_tokens, row_bytes : numpy.ndarray, int64, shape (n_rows,)
        Tokens, and bytes of the encoded row.
    row_segment : tuple of str
        ``segment_id`` of each row.
    """

    name: str
    files: tuple[SourceFile, ...]
    sessions: tuple[tuple[str, str], ...]
    session_datasets: tuple[str, ...]
    row_file: np.ndarray
    row_number: np.ndarray
    row_session: np.ndarray
    row_tokens: np.ndarray
    row_bytes: np.ndarray
    row_segment: tuple[str, ...]

    @property
    def session_ids(self) -> list[tuple[str, str, str]]:
        """source_dataset, subject_id, session_id of each session."""
        return [(dataset, *session) for dataset, session in zip(self.session_datasets, self.sessions, strict=True)]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The different ``session_datasets``, in the order of their first rows."""
        return tuple(dict.fromkeys(self.session_datasets))

    @property
    def digest(self) -> str:
        """sha256 of the name, the files' names and contents, and their order."""
        content = "".join(f"{file.name}\0{file.size}\0{file.sha256}\n" for file in self.files)
        if self.datasets != (self.name,):  # as of before for all others, whose plans stay as they are
            content += "source_dataset as in the files\n"
        return hashlib.sha256(f"{self.name}\n{content}".encode()).hexdigest()


@dataclass(frozen=True)
class _Rows:
    """Rows of one file that belong to one session, or one row."""

    file: int
    dataset: str
    session: tuple[str, str]
    segments: Sequence[str]
    tokens: Sequence[int]
    bytes: Sequence[int]


def source_from_component(repository: str, sessions: Iterable[ComponentSession]) -> PileSource:
    """A component whose rows are read from the store's session files, as `ComponentRecord.sessions` lists them."""
    name = _name(repository)
    files, rows = [], []
    for number, session in enumerate(sessions):
        stored = session.counts
        files.append(SourceFile(name=stored.key, size=stored.size, sha256=stored.sha256))
        ids = (session.subject_id, session.session_id)
        segments = [row.segment_id for row in session.rows]
        tokens = [session.n_units * row.n_bins for row in session.rows]
        if session.rows:
            rows.append(_Rows(number, name, ids, segments, tokens, [row.bytes for row in session.rows]))
    return _source(name, files, rows)


def source_from_parquet(repository: str, files: Sequence[SourceFile], open_file: FileOpener) -> PileSource:
    """A component read from any Parquet files of the row schema, e.g. those of a repository on a hub.

    Reads footers and the columns of ids; spike counts are decoded only where a
    row group holds several rows (their tokens are not stated elsewhere). Rows that
    state their ``source_dataset`` keep it, so another pile is a source as well.

    Parameters
    ----------
    repository : str
        Name; a namespace before it is cut off. It is the ``source_dataset`` of rows that state none.
    files : sequence of SourceFile
        In the order of the rows.
    open_file : callable
        Opens a file by its name.

    Raises
    ------
    TableError
        A file is damaged or lacks a column; names the file.
    """
    rows: list[_Rows] = []
    for number, file in enumerate(files):
        with open_file(file.name) as opened:
            rows.extend(_rows_of(opened, file.name, number, _name(repository)))
    return _source(_name(repository), list(files), rows)


def _name(repository: str) -> str:
    return repository.rpartition("/")[2]


def _rows_of(opened: pa.NativeFile, name: str, number: int, dataset: str) -> Iterable[_Rows]:
    try:
        groups = read_group_sizes(opened, COUNTS_COLUMN)
    except ValueError as error:
        raise TableError(f"{name} is damaged, or is not a Parquet file of rows", found=str(error)) from error
    parquet = open_parquet(opened, name)
    missing = [column for column in _IDS if column not in parquet.schema_arrow.names]
    if missing:
        raise TableError(f"{name} lacks columns", found=", ".join(parquet.schema_arrow.names), expected=str(missing))
    stated = SOURCE_COLUMN in parquet.schema_arrow.names
    with damaged(name):
        ids = parquet.read(columns=[*_IDS, SOURCE_COLUMN] if stated else _IDS, use_threads=False)
        sizes = [_sizes(parquet, group, size) for group, size in enumerate(groups)]
    if ids.num_rows != sum(map(len, sizes)):
        raise TableError(f"{name} is damaged: its columns differ in length")
    if any(ids[column].null_count for column in _IDS[:2]):
        raise TableError(f"{name} has rows without subject_id or session_id")
    named = zip(*(ids[column].to_pylist() for column in _IDS), strict=True)
    datasets = ids[SOURCE_COLUMN].to_pylist() if stated else [None] * ids.num_rows
    return [
        _Rows(number, own or dataset, (subject, session), [segment or ""], [t], [b])
        for own, (subject, session, segment), (t, b) in zip(datasets, named, chain(*sizes), strict=True)
    ]


def _sizes(parquet: pq.ParquetFile, group: int, size: GroupSize) -> list[tuple[int, int]]:
    """Tokens and bytes of each row of a row group."""
    import pyarrow.compute as pc

    if size.rows == 1:
        return [(size.values, size.bytes)]
    batches = parquet.iter_batches(1, row_groups=[group], columns=[COUNTS_COLUMN], use_threads=False)
    tokens = [pc.sum(pc.list_value_length(pc.list_flatten(batch[0]))).as_py() or 0 for batch in batches]
    return [(count, size.bytes * count // max(sum(tokens), 1)) for count in tokens]


def _source(name: str, files: Sequence[SourceFile], rows: Sequence[_Rows]) -> PileSource:
    if not rows:
        raise MergeError(f"{name} has no rows to merge", remedy="publish it first, or leave it out of the merge")
    numbers: dict[tuple[str, tuple[str, str]], int] = {}
    lengths = np.array([len(run.tokens) for run in rows])
    run_file = np.array([run.file for run in rows], np.int32)
    row_file = np.repeat(run_file, lengths)
    return PileSource(
        name=name,
        files=tuple(files),
        row_session=np.repeat(
            np.array([numbers.setdefault((r.dataset, r.session), len(numbers)) for r in rows], np.int32), lengths
        ),
        sessions=tuple(session for _, session in numbers),
        session_datasets=tuple(dataset for dataset, _ in numbers),
        row_file=row_file,
        row_number=_count_within(row_file),
        row_tokens=np.fromiter(chain.from_iterable(run.tokens for run in rows), np.int64),
        row_bytes=np.fromiter(chain.from_iterable(run.bytes for run in rows), np.int64),
        row_segment=tuple(chain.from_iterable(run.segments for run in rows)),
    )


def _count_within(files: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values; files' rows lie together."""
    positions = np.arange(len(files), dtype=np.int32)
    starts = np.flatnonzero(np.diff(files, prepend=-1))
    return positions - np.repeat(positions[starts], np.diff(np.append(starts, len(files))))
