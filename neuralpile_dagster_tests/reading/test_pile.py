"""A published pile read at random: every window is the slice of the row that pyarrow decodes."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import ConfigurationError, HubError, TableError
from neuralpile_dagster.reading import Pile, Windows
from neuralpile_dagster.tables.copying import encoded
from neuralpile_dagster.tables.packed import pack
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster.tables.schemas import PILE_SCHEMA
from neuralpile_dagster_tests.fixtures.published import BIN_S, SESSIONS, publish
from neuralpile_dagster_tests.fixtures.row_files import write_foreign
from neuralpile_dagster_tests.test_public_names import modules_after


def by_pyarrow(path: Path, rows: list[Row], schema: object) -> None:
    write_foreign(path, rows, PILE_SCHEMA)


@pytest.fixture(scope="module", params=["packed", "by pyarrow"])
def pile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pile, list[Row]]:
    """A pile, and its rows in the order of its files."""
    folder = tmp_path_factory.mktemp("pile") / "neural-pile"
    rows = publish(folder) if request.param == "packed" else publish(folder, by_pyarrow)
    return Pile.open(folder), rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_window_is_the_slice_of_the_row(pile: tuple[Pile, list[Row]], data: st.DataObject):
    opened, rows = pile
    segment = data.draw(st.integers(0, len(rows) - 1))
    n_units, n_bins = rows[segment].counts.shape
    start = data.draw(st.integers(0, n_bins))
    length = data.draw(st.integers(0, n_bins - start))
    units = data.draw(st.none() | st.lists(st.integers(0, n_units - 1), max_size=5).map(np.array).map(np.int64))
    found = opened.window(segment, start, length, units)
    expected = rows[segment].counts[:, start : start + length]
    np.testing.assert_array_equal(found, expected if units is None else expected[units])
    assert found.dtype == np.uint8


def test_rows_come_whole_with_their_ids_and_by_split(pile: tuple[Pile, list[Row]]):
    opened, rows = pile
    for found, row in zip(opened.rows(), rows, strict=True):
        np.testing.assert_array_equal(found.counts, row.counts)
        assert (found.source_dataset, found.session_id, found.segment_id) == (
            row.source_dataset,
            row.session_id,
            row.segment_id,
        )
    assert [row.segment_id for row in opened.rows("test")] == [rows[0].segment_id]


def test_the_index_places_every_row_in_its_session(pile: tuple[Pile, list[Row]]):
    opened, rows = pile
    keys = list(SESSIONS)
    assert len(opened.sessions) == len(keys)
    for line, row in zip(opened.segments.to_pylist(), rows, strict=True):
        key = keys[line["session"]]
        assert key == (row.source_dataset, row.subject_id, row.session_id)
        n_units, size, *_ = SESSIONS[key]
        assert (line["n_units"], line["n_bins"]) == row.counts.shape
        assert line["start_bin"] == int(row.segment_id.removeprefix("segment_")) * size
        assert line["start_s"] == pytest.approx(line["start_bin"] * BIN_S)
        units = opened.units.take(opened.unit_index(line["session"]).tolist())
        assert units["row"].to_pylist() == list(range(n_units))
        assert set(units["session_id"].to_pylist()) == {row.session_id}


def test_bins_and_units_that_a_row_lacks_are_refused(pile: tuple[Pile, list[Row]]):
    opened, rows = pile
    n_units, n_bins = rows[1].counts.shape
    for start, length in ((-1, 2), (0, n_bins + 1), (3, -1)):
        with pytest.raises(ValueError, match=f"of {n_bins}"):
            opened.window(1, start, length)
    with pytest.raises(ValueError, match=f"of {n_units}"):
        opened.window(1, 0, 1, np.array([n_units]))


def test_rows_of_sessions_that_no_table_names_are_read_as_well(tmp_path: Path):
    rows = publish(tmp_path / "pile", tables=())
    opened = Pile.open(tmp_path / "pile")
    assert len(opened.sessions) == len(SESSIONS)
    assert len(opened.units) == sum(n_units for n_units, *_ in SESSIONS.values())
    for segment, row in enumerate(rows):
        np.testing.assert_array_equal(opened.counts(segment), row.counts)
        start = opened.segments["start_bin"][segment].as_py()
        assert start == (0 if row.segment_id == "segment_0" else None)


def test_a_pile_crosses_to_another_process(pile: tuple[Pile, list[Row]]):
    opened, rows = pile
    other = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(other.window(2, 3, 9), rows[2].counts[:, 3:12])


def test_a_damaged_row_is_refused_by_the_name_of_its_file(tmp_path: Path):
    publish(tmp_path)
    path = tmp_path / "data/train-00000-aaaaaaaa.parquet"
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"train-00000-aaaaaaaa\.parquet is damaged"):
        Pile.open(tmp_path).counts(1)


@pytest.mark.parametrize("name", ["sessions", "units", "splits"])
def test_a_table_with_a_flipped_bit_is_refused_with_what_a_reader_can_do(tmp_path: Path, name: str):
    publish(tmp_path, tables=("sessions", "units", "splits"))
    path = tmp_path / f"{name}/{name}.parquet"
    table = Pile.open(tmp_path).table(name)
    pq.write_table(
        table, path, compression="none", use_dictionary=False, write_page_checksum=True, write_statistics=False
    )
    content = bytearray(path.read_bytes())
    content[content.index(b"sub-1") + 4] ^= 1
    path.write_bytes(content)
    assert pq.read_table(path) != table, "pyarrow alone reads it"
    with pytest.raises(TableError, match=rf"{name}\.parquet is damaged.*found: .*; what to do: get the file again"):
        Pile.open(tmp_path).table(name)


def test_a_flipped_bit_in_the_id_that_a_footer_states_is_refused(tmp_path: Path):
    publish(tmp_path)
    path = tmp_path / "data/train-00000-aaaaaaaa.parquet"
    content = bytearray(path.read_bytes())
    content[content.rindex(b"segment_") + 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"train-00000-aaaaaaaa\.parquet.*row group \d.*do: get the file again"):
        Pile.open(tmp_path)


def test_a_missing_file_of_a_split_is_named_where_the_table_of_segments_knows_it(tmp_path: Path):
    rows = publish(tmp_path)
    segments = Pile.open(tmp_path).segments.select(["session_id", "segment_id", "split", "file"])
    (tmp_path / "segments").mkdir()
    pq.write_table(segments, tmp_path / "segments/segments.parquet")
    (tmp_path / "data/test-00000-cccccccc.parquet").unlink()
    part = Pile.open(tmp_path)
    assert len(part.segments) == len(rows) - 1, "a copy without the test split is a pile"
    assert part.missing_splits == {"test"}
    with pytest.raises(ConfigurationError, match=r"the split 'test' is not in this copy .*; found: no .*/test-"):
        Windows(part, 1, "test")
    with pytest.raises(ConfigurationError, match="the split 'test' is not in this copy"):
        next(part.rows("test"))
    (tmp_path / "data/train-00001-bbbbbbbb.parquet").unlink()
    with pytest.raises(TableError, match=r"data/train-00001-bbbbbbbb\.parquet is missing; found: 1 of the 3 files"):
        Pile.open(tmp_path)
    (tmp_path / "segments/segments.parquet").unlink()
    assert len(Pile.open(tmp_path).segments) == 4, "of a part that is meant"


def test_a_table_that_names_no_session_is_refused(tmp_path: Path):
    publish(tmp_path)
    path = tmp_path / "sessions/sessions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "session_id", [["s1", None, "s3", "r1", "r2"]]), path)
    with pytest.raises(TableError, match=r"names no session in some rows; found: \('mice', 'sub-1', None\)"):
        Pile.open(tmp_path)


def test_a_forged_count_is_refused_where_its_window_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    publish(tmp_path)
    opened = Pile.open(tmp_path)
    (segment,) = [k for k, line in enumerate(opened.segments.to_pylist()) if line["session_id"] == "s2"]
    whole = pack(opened.counts(segment))
    forged = encoded._compressed(replace(whole, values=whole.values[:3]), 1)
    monkeypatch.setattr("neuralpile_dagster.reading.pile.unpack_counts", lambda _: encoded.unpack_counts(forged.data))
    with pytest.raises(TableError, match=r"is damaged.*value 3 of 3"):
        opened.window(segment, 0, 620)


def test_what_is_not_a_published_pile_is_refused(tmp_path: Path):
    with pytest.raises(TableError, match="no rows of spike counts"):
        Pile.open(tmp_path)
    with pytest.raises(HubError, match="not a published dataset"):
        Pile.open(tmp_path / "missing")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(HubError, match=r"rows\.parquet is not a published dataset; found: a file; .*give the folder"):
        Pile.open(str(tmp_path / "rows.parquet"))
    rows = publish(tmp_path / "grouped")
    write_foreign(tmp_path / "grouped/data/train-00000-aaaaaaaa.parquet", rows[:3], PILE_SCHEMA, rows_per_group=3)
    with pytest.raises(TableError, match="row group 0 is not one row"):
        Pile.open(tmp_path / "grouped")


def test_a_pile_replaced_while_it_is_read_says_so(tmp_path: Path):
    publish(tmp_path / "pile")
    opened = Pile.open(tmp_path / "pile")
    shutil.rmtree(tmp_path / "pile")
    with pytest.raises(HubError, match="replaced or removed while it was read"):
        opened.counts(0)


def test_importing_the_room_loads_nothing_heavy():
    loaded = modules_after("import neuralpile_dagster.reading")
    heavy = {"dagster", "numba", "pandas", "torch", "boto3", "huggingface_hub", "pydantic", "matplotlib"}
    assert loaded & heavy == set()
