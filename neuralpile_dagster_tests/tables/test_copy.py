from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.tables.copying import copy
from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.copying.footers import decode, decode_footer, idl, read_footer_bytes
from neuralpile_dagster.tables.rows import Row, RowWriter
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.row_files import (
    comparable,
    encoded_chunks,
    open_path,
    read_rows,
    synthetic_rows,
    write_by_pyarrow_alone,
    write_rows,
)


def two_sessions(folder: Path) -> tuple[list[RowRef], list[Row]]:
    """References to the shuffled rows of two session files, and what they must read as in a pile."""
    refs, rows = [], []
    for number, length in enumerate((3, 5)):
        session = synthetic_rows(length, seed=number, session=f"ses-{number}", subject="sub-é")
        path = write_rows(folder / f"{number}.parquet", session)
        refs += [RowRef(str(path), row, f"dataset-{number}") for row in range(length)]
        rows += [dataclasses.replace(row, source_dataset=f"dataset-{number}") for row in session]
    order = np.random.default_rng(7).permutation(len(refs))
    return [refs[i] for i in order], [rows[i] for i in order]


def test_copied_rows_are_the_rows(tmp_path: Path):
    refs, rows = two_sessions(tmp_path)
    report = copy_rows(refs, open_path, tmp_path / "pile.parquet", PILE_SCHEMA)
    assert read_rows(tmp_path / "pile.parquet") == [comparable(row) for row in rows]
    assert (report.rows, report.decoded_rows, report.reasons) == (8, 0, {})
    assert report.bytes == (tmp_path / "pile.parquet").stat().st_size


def test_column_chunks_are_copied_byte_for_byte(tmp_path: Path):
    refs, _ = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "pile.parquet", PILE_SCHEMA)
    sources = {ref.file: list(encoded_chunks(Path(ref.file))) for ref in refs}
    for ref, copied in zip(refs, encoded_chunks(tmp_path / "pile.parquet"), strict=True):
        assert {name: copied[name] for name in ROW_SCHEMA.names} == sources[ref.file][ref.row_group]


def test_a_copy_holds_the_chunks_that_the_writer_would_have_written_and_the_same_gaps_for_every_row(tmp_path: Path):
    refs, rows = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "copied.parquet", PILE_SCHEMA)
    written = write_rows(tmp_path / "written.parquet", rows, PILE_SCHEMA)
    chunks = list(encoded_chunks(tmp_path / "copied.parquet"))
    assert chunks == list(encoded_chunks(written))
    rest = (tmp_path / "copied.parquet").read_bytes()[4:]
    gaps = set()
    for row in chunks:
        found = []
        for chunk in row.values():
            gap, _, rest = rest.partition(chunk)
            found.append(gap)
        gaps.add(tuple(found))
    [[before, after, *others]] = gaps
    assert before == bytes(8192) + after
    assert (len(after), others) == (64, [b""] * 3)


def without_positions(facts: Any) -> Any:
    """What a footer says of a row group but where it lies: copied rows have gaps between them."""
    if isinstance(facts, dict):
        return {key: without_positions(value) for key, value in facts.items() if not key.endswith("_offset")}
    return [without_positions(value) for value in facts] if isinstance(facts, list) else facts


def test_footers_say_what_the_writer_would_have_said(tmp_path: Path):
    refs, rows = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "copied.parquet", PILE_SCHEMA)
    copied = pq.read_metadata(tmp_path / "copied.parquet")
    written = pq.read_metadata(write_rows(tmp_path / "written.parquet", rows, PILE_SCHEMA))
    assert copied.metadata == written.metadata  # ARROW:schema
    assert copied.created_by == written.created_by
    assert copied.schema.equals(written.schema)
    for one, other in ((copied.row_group(i), written.row_group(i)) for i in range(written.num_row_groups)):
        assert without_positions(one.to_dict()) == without_positions(other.to_dict())


def test_the_page_index_finds_every_data_page(tmp_path: Path):
    refs, _ = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "pile.parquet", PILE_SCHEMA)
    content = (tmp_path / "pile.parquet").read_bytes()
    footer = decode_footer(read_footer_bytes(pa.BufferReader(content)))
    columns = [column for group in footer.row_groups for column in group.columns]
    assert len(columns) == 8 * 5
    for column in columns:
        index = decode("OffsetIndex", io.BytesIO(content[column.offset_index_offset :][: column.offset_index_length]))
        [page] = index.page_locations
        stream = io.BytesIO(content[page.offset :])
        header = decode("PageHeader", stream)
        assert header.type == idl().PageType.DATA_PAGE
        assert (page.offset, page.first_row_index) == (column.meta_data.data_page_offset, 0)
        assert page.compressed_page_size == stream.tell() + header.compressed_page_size


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    refs, _ = two_sessions(tmp_path)
    for name in ("first", "second"):
        copy_rows(iter(refs), open_path, tmp_path / name, PILE_SCHEMA)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_copy_of_a_copy_is_the_copy(tmp_path: Path):
    refs, _ = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "first", PILE_SCHEMA)
    again = [RowRef(str(tmp_path / "first"), row) for row in range(len(refs))]
    report = copy_rows(again, open_path, tmp_path / "second", PILE_SCHEMA)
    assert report.reasons == {}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_component_is_copied_from_sessions_and_back_from_a_pile(tmp_path: Path):
    refs, _ = two_sessions(tmp_path)
    copy_rows(refs, open_path, tmp_path / "pile", PILE_SCHEMA)
    copy_rows([RowRef(f, r) for f, r, _ in refs], open_path, tmp_path / "component", ROW_SCHEMA)
    back = [RowRef(str(tmp_path / "pile"), row) for row in range(len(refs))]
    copy_rows(back, open_path, tmp_path / "back", ROW_SCHEMA)
    assert pq.read_schema(tmp_path / "component").equals(ROW_SCHEMA)
    assert (tmp_path / "component").read_bytes() == (tmp_path / "back").read_bytes()


def test_rows_that_pyarrow_encoded_are_copied_beside_packed_ones(tmp_path: Path):
    """Files of before counts were packed stay as they are, in every file that they are copied into."""
    old, new = synthetic_rows(3, session="old"), synthetic_rows(3, seed=1, session="new")
    before = write_by_pyarrow_alone(tmp_path / "old.parquet", old)
    now = write_rows(tmp_path / "new.parquet", new)
    refs = [RowRef(str(path), row, "x") for row in range(3) for path in (before, now)]
    report = copy_rows(refs, open_path, tmp_path / "pile", PILE_SCHEMA)
    assert report.reasons == {}
    chunks = [list(encoded_chunks(path)) for path in (before, now)]
    assert chunks[0] != list(encoded_chunks(write_rows(tmp_path / "old rows packed", old)))
    for ref, copied in zip(refs, encoded_chunks(tmp_path / "pile"), strict=True):
        assert {n: copied[n] for n in ROW_SCHEMA.names} == chunks[ref.file == str(now)][ref.row_group]
    mixed = [comparable(row, "x") for pair in zip(old, new, strict=True) for row in pair]
    assert read_rows(tmp_path / "pile") == mixed


def test_no_rows_make_an_empty_file(tmp_path: Path):
    assert copy_rows([], open_path, tmp_path / "empty.parquet", PILE_SCHEMA).rows == 0
    table = pq.read_table(tmp_path / "empty.parquet")
    assert (table.num_rows, table.schema.equals(PILE_SCHEMA)) == (0, True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrices=st.lists(
        npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=40)), min_size=1, max_size=6
    ),
    ids=st.tuples(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=30)),
    order=st.randoms(use_true_random=False),
)
def test_any_counts_and_ids_survive(
    tmp_path: Path, matrices: list[np.ndarray], ids: tuple[str, ...], order: random.Random
):
    subject, session, segment, source = (text.encode("utf-8", "ignore").decode() for text in ids)
    rows = [Row(counts, subject, session, segment) for counts in matrices]
    path = write_rows(tmp_path / "any.parquet", rows)
    numbers = [order.randrange(len(rows)) for _ in range(8)]
    report = copy_rows(
        [RowRef(str(path), number, source) for number in numbers], open_path, tmp_path / "out.parquet", PILE_SCHEMA
    )
    assert report.reasons == {}
    assert read_rows(tmp_path / "out.parquet") == [
        comparable(dataclasses.replace(rows[number], source_dataset=source)) for number in numbers
    ]


def test_a_large_row_of_incompressible_counts_is_copied(tmp_path: Path):
    counts = np.random.default_rng(0).integers(0, 256, (40, 60_000), dtype=np.uint8)
    row = Row(counts, "sub", "ses", "segment_0", "dataset")
    path = write_rows(tmp_path / "large.parquet", [dataclasses.replace(row, source_dataset=None)])
    report = copy_rows([RowRef(str(path), 0, "dataset")], open_path, tmp_path / "out.parquet", PILE_SCHEMA)
    assert report.reasons == {}
    assert read_rows(tmp_path / "out.parquet") == [comparable(row)]


def test_few_sources_are_open_at_a_time_and_none_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(copy, "MAX_OPEN", 3)
    monkeypatch.setattr(copy, "MAX_KNOWN_ROWS", 5)
    files = [write_rows(tmp_path / f"{n}.parquet", synthetic_rows(2, seed=n, session=f"ses-{n}")) for n in range(8)]
    refs = [RowRef(str(path), row, "x") for row in (1, 0) for path in files]
    opened: list[pa.NativeFile] = []
    most = 0

    def open_counted(name: str) -> pa.NativeFile:
        nonlocal most
        opened.append(open_path(name))
        most = max(most, sum(not file.closed for file in opened))
        return opened[-1]

    copy_rows(refs, open_counted, tmp_path / "out", PILE_SCHEMA)
    copy_rows(refs, open_path, tmp_path / "reference", PILE_SCHEMA)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "reference").read_bytes()
    assert most <= 4  # the oldest is closed once the newest is open
    assert all(file.closed for file in opened)


def test_a_row_that_is_not_there_is_refused(tmp_path: Path):
    path = write_rows(tmp_path / "two.parquet", synthetic_rows(2))
    for number in (2, -1):
        with pytest.raises(TableError, match=r"two\.parquet has no row"):
            copy_rows([RowRef(str(path), number)], open_path, tmp_path / "out", ROW_SCHEMA)
    assert not (tmp_path / "out").exists()


def test_a_pile_needs_to_know_where_rows_come_from(tmp_path: Path):
    path = write_rows(tmp_path / "rows.parquet", synthetic_rows(1))
    with pytest.raises(TableError, match=r"rows\.parquet lacks columns.*source_dataset"):
        copy_rows([RowRef(str(path), 0)], open_path, tmp_path / "out", PILE_SCHEMA)
    with pytest.raises(TableError, match="source_dataset"):
        copy_rows([RowRef(str(path), 0, "name")], open_path, tmp_path / "out", ROW_SCHEMA)


def test_an_interrupted_copy_leaves_nothing(tmp_path: Path):
    path = write_rows(tmp_path / "rows.parquet", synthetic_rows(1))

    def rows() -> Iterator[RowRef]:
        yield RowRef(str(path), 0)
        raise RuntimeError("stopped")

    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match="stopped"):
        copy_rows(rows(), open_path, tmp_path / "out" / "copy.parquet", ROW_SCHEMA)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_example_row_leaves_no_trace(tmp_path: Path):
    """The footer's schema is taken from a made-up row; a file of no rows has nothing of it."""
    copy_rows([], open_path, tmp_path / "copied", ROW_SCHEMA)
    RowWriter(tmp_path / "written", ROW_SCHEMA).close()
    assert pq.read_metadata(tmp_path / "copied").equals(pq.read_metadata(tmp_path / "written"))
