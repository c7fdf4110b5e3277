"""The picture on a card is what `neuralpile raster` draws, and a row's place in its session is found either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuralpile_dagster.plots.raster import raster_png
from neuralpile_dagster.plots.window import SegmentFacts
from neuralpile_dagster.publish.samples import RowFiles, folder_samples, published_facts, recorded_facts
from neuralpile_dagster.records import ClockRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.rows import Row, RowReader, RowWriter
from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.fixtures.sessions import put_session, write

CLOCK = ClockRecord(start_s=5.0, first_spike_s=5.0, last_spike_s=7.0, observed_s=2.0)


def rows_in(path: Path) -> list[Row]:
    with RowReader(path) as reader:
        return [reader.row(number) for number in range(reader.n_rows)]


def test_the_card_shows_the_picture_that_the_command_line_draws(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "mice"
    write(folder, store, {key: put_session(store, key, clock=CLOCK) for key in ("s1", "s2")})
    assert "![Random rows as rasters](raster.png)" in (folder / "README.md").read_text()
    picture = (folder / "raster.png").read_bytes()
    assert picture == raster_png(folder_samples(folder, 4, 0))
    ran = neuralpile("raster", folder, "-n", "4", "-o", tmp_path / "out.png", NEURALPILE_HOME=tmp_path / "home")
    assert ran.code == 0, ran.err
    assert (tmp_path / "out.png").read_bytes() == picture


def test_the_card_of_the_pile_shows_a_picture_of_its_rows(tmp_path: Path) -> None:
    Pile(tmp_path).write(tmp_path / "pile")
    assert "![Random rows as rasters](raster.png)" in (tmp_path / "pile" / "README.md").read_text()
    assert (tmp_path / "pile" / "raster.png").read_bytes() == raster_png(folder_samples(tmp_path / "pile", 4, 0))


def test_records_and_a_published_folder_say_the_same_of_every_row(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "mice"
    records = {key: put_session(store, key, clock=CLOCK) for key in ("s1", "s2")}
    component = write(folder, store, records)
    recorded = recorded_facts(store, records.values())
    paths = ["units/units.parquet", "sessions/sessions.parquet"]
    published = published_facts(lambda name: pa.OSFile(str(folder / name), "rb"), paths)
    rows = [row for shard in component.shards for row in rows_in(folder / shard.path)]
    assert [(row.session_id, row.segment_id) for row in rows] == [
        (session, f"segment_{number}") for session in ("s1", "s2") for number in range(3)
    ]
    for row, first in zip(rows, [0, 40, 80] * 2, strict=True):
        expected = SegmentFacts([None] * 5, 0.02, first, 100, 5.0)
        assert published(row) == recorded(row) == expected


def test_a_repository_without_extra_configs_says_nothing(tmp_path: Path) -> None:
    def open_file(name: str) -> pa.NativeFile:
        raise AssertionError(name)

    row = Row(np.zeros((2, 10), np.uint8), "sub-1", "s1", "segment_0")
    assert published_facts(open_file, ["data/train-00000.parquet"])(row) == SegmentFacts()


@pytest.mark.parametrize("seed", range(5))
def test_silent_rows_are_hardly_ever_chosen(tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "rows.parquet", np.random.default_rng(0)
    with RowWriter(path) as writer:
        for number in range(10):
            counts = np.zeros((50, 4_000), np.uint8)
            if number == 7:
                counts = rng.poisson(0.3, counts.shape).astype(np.uint8)
            writer.write(counts, "sub-1", "s1", f"segment_{number}")
    (sample,) = RowFiles([str(path)], lambda name: pa.OSFile(name, "rb")).random(1, seed)
    assert "segment_7" in sample.title
    assert sample.counts.any()
