"""The order of units as it is published: last column of ``units``, null where it was not made, rows as before."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import OutOfMemory, TableError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger.piles import annotations_digest
from neuralpile_dagster.publish.component import component_inputs
from neuralpile_dagster.publish.configs import hub_tables
from neuralpile_dagster.reading import Pile as PublishedPile
from neuralpile_dagster.records import ComponentRecord, CountsRecord, UnitOrderRecord
from neuralpile_dagster.session.unit_order import announcement, store_unit_order
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.schemas import ANNOTATED_UNITS_SCHEMA, UNIT_ORDER_SCHEMA
from neuralpile_dagster.tables.units import read_order, write_order
from neuralpile_dagster_tests.fixtures.hub_folders import silent
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.fixtures.sessions import DATASET, counts_of, manifest_of, write


def order_of(store: LocalStore, records: dict[str, CountsRecord], key: str) -> UnitOrderRecord:
    return store_unit_order(store, "mice/unit_order", key, records[key], "i")


def units(folder: Path) -> pa.Table:
    return pq.read_table(folder / "units" / "units.parquet")


@pytest.fixture
def orders(store: LocalStore, records: dict[str, CountsRecord]) -> dict[str, UnitOrderRecord]:
    """Of the first and the third session."""
    return {key: order_of(store, records, key) for key in ("s1", "s3")}


def written(folder: Path, store: LocalStore, records: dict[str, CountsRecord], **options: Any) -> ComponentRecord:
    return write(folder, store, records, **options)


def test_it_is_the_last_column_of_units_and_null_where_it_was_not_made(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], orders: dict[str, UnitOrderRecord]
):
    component = written(tmp_path / "mice", store, records, orders=orders)
    table = units(tmp_path / "mice")
    assert table.schema.names[-1] == "order"
    assert table.schema.field("order").type == pa.int32()
    found = table["order"].to_pylist()
    assert found[5:10] == [None] * 5
    assert sorted(found[:5]) == sorted(found[10:]) == [0, 1, 2, 3, 4]
    counts = counts_of("s1", 5, 100)
    spikes = counts[np.argsort(found[:5])].sum(axis=1, dtype=np.int64)
    assert spikes[:2].sum() >= spikes[-2:].sum()
    assert component.unit_order is not None
    assert component.unit_order.sessions == 2
    card = (tmp_path / "mice" / "README.md").read_text("utf-8")
    assert "In 2 of 3 sessions the column `order` of `units`" in card


def test_rows_inputs_and_all_other_columns_are_those_without_it(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], orders: dict[str, UnitOrderRecord]
):
    without, with_them = (
        written(tmp_path / name / "mice", store, records, **options)
        for name, options in (("a", {}), ("b", {"orders": orders}))
    )
    assert (with_them.inputs, with_them.shards) == (without.inputs, without.shards)
    assert "unit_order" not in without.model_dump()
    assert "## Unit order" not in (tmp_path / "a" / "mice" / "README.md").read_text("utf-8")
    plain, ordered = (units(tmp_path / name / "mice") for name in ("a", "b"))
    assert plain["order"].null_count == plain.num_rows
    assert ordered.drop_columns("order").equals(plain.drop_columns("order"))
    row = DATASET.model_copy(update={"unit_order": True})
    turned_on, off = (
        component_inputs(dataset, manifest_of("s1"), records, missing={}, repository="local/mice")
        for dataset in (row, DATASET)
    )
    assert turned_on == off
    assert "unit_order" not in Dataset.model_validate({**dict(DATASET), "unit_order": False}).model_dump()


def test_an_order_of_other_counts_than_are_published_is_not_used(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], orders: dict[str, UnitOrderRecord]
):
    other = {"s1": orders["s1"].model_copy(update={"counts_sha256": "of counts of before"})}
    assert written(tmp_path / "mice", store, records, orders=other).unit_order is None


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 4, 5]])
def test_a_file_that_is_no_order_of_the_units_is_refused(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], places: list[int]
):
    file, _ = put_file(store, "mice/unit_order/s1.parquet", lambda path: write_order(path, np.array(places, np.int32)))
    order = UnitOrderRecord(
        inputs="i",
        session_id="s1",
        file=file,
        counts_sha256=records["s1"].file.sha256,
        n_units=5,
        silent_units=1,
        scipy="1",
    )
    with pytest.raises(TableError, match=r"mice/unit_order/s1.parquet is not an order of units"):
        written(tmp_path / "mice", store, records, orders={"s1": order})


def test_what_is_stored_is_read_back_and_another_table_is_refused(tmp_path: Path):
    order = np.random.default_rng(0).permutation(300).astype(np.int32)
    write_order(tmp_path / "o.parquet", order)
    np.testing.assert_array_equal(read_order(pa.OSFile(str(tmp_path / "o.parquet")), "o", 300), order)
    stored = pq.read_table(tmp_path / "o.parquet")
    assert (stored.schema, stored["row"].to_pylist()) == (UNIT_ORDER_SCHEMA, list(range(300)))
    pq.write_table(stored.rename_columns(["row", "place"]), tmp_path / "other.parquet")
    with pytest.raises(TableError, match=r"other"):
        read_order(pa.OSFile(str(tmp_path / "other.parquet")), "other", 300)


def test_two_makings_give_the_same_bytes(store: LocalStore, records: dict[str, CountsRecord]):
    assert order_of(store, records, "s2") == order_of(store, records, "s2")
    assert order_of(store, records, "s2").silent_units == 1


def test_damaged_counts_are_named_instead_of_ordered(store: LocalStore, records: dict[str, CountsRecord]):
    path = store.root / records["s1"].file.key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"mice/spike_counts/s1.parquet is damaged"):
        order_of(store, records, "s1")


def test_a_session_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    store: LocalStore, records: dict[str, CountsRecord]
):
    stats = records["s1"].stats.model_copy(update={"n_units": 10_000_000})
    huge = {"s1": records["s1"].model_copy(update={"stats": stats})}
    with pytest.raises(OutOfMemory, match=r"10,000,000 units, which need 3,200,000.0 GB"):
        order_of(store, huge, "s1")


def test_a_session_that_takes_long_is_announced_with_its_time_and_memory():
    assert announcement(500) == ""
    assert "4,000 units takes about" in announcement(4_000)
    assert "min and 0.5 GB of memory" in announcement(4_000)


def test_a_pile_has_the_column_beside_components_of_earlier_versions(tmp_path: Path):
    pile = Pile(tmp_path)
    records = {key: pile._session("mice", key) for key in ("s1", "s2")}
    orders = {"s1": order_of(pile.store, records, "s1")}
    manifest = manifest_of("s1", "s2")
    mice = write(pile.staging / "mice", pile.store, records, manifest=manifest, orders=orders)
    pile.hub.publish("mice", pile.staging / "mice", silent)
    earlier(pile.hub, pile.staging / "rats")
    before, pile.records[0] = pile.records[0], mice
    tables = {name: hub_tables(pile.hub, name) for name in ("mice", "rats")}
    components = [replace(component, tables=tables[component.name]) for component in pile.components()]
    record = pile.write(tmp_path / "pile", annotations=annotations_digest({"mice": mice}), components=components)
    table = units(tmp_path / "pile")
    assert table.schema.names[-2:] == ["order", "source_dataset"]
    found = dict.fromkeys(table["session_id"].to_pylist(), 0)
    for session, place in zip(table["session_id"].to_pylist(), table["order"].to_pylist(), strict=True):
        found[session] += place is not None
    assert found == {"s1": 4, "s2": 0, "r1": 0, "r2": 0}
    assert record.annotations
    assert annotations_digest({"mice": before}) == "", "no digest of before changes"
    assert "In 1 of 4 sessions the column `order`" in (tmp_path / "pile" / "README.md").read_text("utf-8")
    assert hashlib.sha256((pile.staging / "mice" / mice.shards[0].path).read_bytes()).hexdigest() == (
        before.shards[0].sha256
    )


def earlier(hub: LocalHub, folder: Path) -> None:
    """Publish a component as the version before did: without the column."""
    path = folder / "units" / "units.parquet"
    pq.write_table(units(folder).cast(units(folder).schema).select(ANNOTATED_UNITS_SCHEMA.names), path)
    hub.publish(folder.name, folder, silent)


def test_reading_gives_it_with_the_units_of_a_session(
    tmp_path: Path, store: LocalStore, records: dict[str, CountsRecord], orders: dict[str, UnitOrderRecord]
):
    written(tmp_path / "mice", store, records, orders=orders)
    pile = PublishedPile.open(tmp_path / "mice")
    order = pile.units["order"].take(pa.array(pile.unit_index(0)))
    counts = pile.counts(0)[np.argsort(order)]
    stored = read_order(store.open(orders["s1"].file.key), "order", 5)
    np.testing.assert_array_equal(counts[stored], counts_of("s1", 5, 100)[:, :40])
