from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.recordings.model import Unit
from neuralpile_dagster.tables.schemas import UNITS_SCHEMA
from neuralpile_dagster.tables.units import read_units, units_of, write_units

UNITS = (
    Unit(7, "a.nwb", "CA1", "units.location", "probe A", "good", None, ((0.0, 10.0),)),
    Unit(3, "a.nwb"),
)


def write(path: Path) -> None:
    write_units(path, UNITS, "sub-1", "ses-1", np.array([50, 0]), observed_s=np.array([20.0, 10.0]))


def test_a_units_table_has_a_row_per_unit_in_the_order_of_the_counts(tmp_path: Path):
    write(tmp_path / "units.parquet")
    table = read_units(tmp_path / "units.parquet")
    assert table.schema == UNITS_SCHEMA
    assert units_of(table) == UNITS
    assert table["row"].to_pylist() == [0, 1]
    assert table["n_spikes"].to_pylist() == [50, 0]
    assert table["mean_rate_hz"].to_pylist() == [2.5, 0.0]
    assert table["subject_id"].to_pylist() == ["sub-1"] * 2
    assert table["session_id"].to_pylist() == ["ses-1"] * 2


def test_the_same_units_give_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_table_is_refused_by_name(tmp_path: Path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TableError, match="the units of ses-1"):
        read_units(tmp_path / "other.parquet", "the units of ses-1")


def test_a_damaged_table_is_refused_by_name(tmp_path: Path):
    write(tmp_path / "units.parquet")
    content = bytearray((tmp_path / "units.parquet").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "units.parquet").write_bytes(content)
    with pytest.raises(TableError, match="the units of ses-1"):
        read_units(tmp_path / "units.parquet", "the units of ses-1")
