"""Encode rows in several threads; the file does not depend on their number."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pyarrow as pa

from neuralpile_dagster.files import TEMPORARY_PREFIX, temporary_name
from neuralpile_dagster.tables.copying.copy import CopyReport, RowRef, copy_rows
from neuralpile_dagster.tables.rows import Row, RowWriter
from neuralpile_dagster.tables.schemas import ROW_SCHEMA


def write_rows(path: Path, rows: Iterable[Row], schema: pa.Schema = ROW_SCHEMA, threads: int = 1) -> CopyReport:
    """Write rows to a Parquet file, one row group each, in their order.

    Each thread encodes into a file of its own in a temporary folder beside
    ``path``; the encoded rows are then copied into ``path``, which appears
    complete or not at all.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    rows : iterable of Row
        Taken one by one, in the calling thread, while earlier ones are encoded.
        Held at a time: those being encoded (a row of 10 M tokens takes 0.3 GB meanwhile) and one more.
    schema : pyarrow.Schema
        `ROW_SCHEMA` or `PILE_SCHEMA`.
    threads : int
        How many rows are encoded at a time; 1 encodes in the calling thread.
    """
    with tempfile.TemporaryDirectory(prefix=temporary_name(), dir=path.parent) as folder:
        with ExitStack() as stack:
            parts: SimpleQueue[_Part] = SimpleQueue()
            for number in range(threads):
                parts.put(_Part(Path(folder) / f"{TEMPORARY_PREFIX}{number}.parquet", schema, stack))
            encoded = list(_in_order(rows, lambda row: _encode(row, parts), threads))
        return copy_rows(encoded, lambda name: pa.OSFile(name, "rb"), path, schema)


class _Part:
    """The file of one thread."""

    def __init__(self, path: Path, schema: pa.Schema, stack: ExitStack) -> None:
        self.path = path
        self.n_rows = 0
        self.writer = stack.enter_context(RowWriter(path, schema))


def _encode(row: Row, parts: SimpleQueue[_Part]) -> RowRef:
    part = parts.get()
    part.writer.write(row.counts, row.subject_id, row.session_id, row.segment_id, row.source_dataset)
    encoded = RowRef(str(part.path), part.n_rows)
    part.n_rows += 1
    parts.put(part)
    return encoded


def _in_order(rows: Iterable[Row], encode: Callable[[Row], RowRef], threads: int) -> Iterator[RowRef]:
    if threads == 1:
        yield from map(encode, rows)
        return
    pending: deque[Future[RowRef]] = deque()
    with ThreadPoolExecutor(threads, "encode") as pool:
        for row in rows:
            pending.append(pool.submit(encode, row))
            del row  # free its memory before the next one is made
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
