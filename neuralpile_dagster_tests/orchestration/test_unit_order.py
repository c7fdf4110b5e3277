"""The order of units as Dagster makes it: where one line turns it on, for all sessions, and nothing else again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS, UNIT_ORDER, analyses_of, read_unit_orders
from neuralpile_dagster.ledger.due import DatasetDue, dataset_due, pile_due
from neuralpile_dagster.ledger.samples import order_samples
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.plots.raster import glance_markdown
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_HUB_DATASET, SESSIONS, House, copy_of, house
from neuralpile_dagster_tests.orchestration.checks.test_pile import merge
from neuralpile_dagster_tests.orchestration.test_annotations import stored

ORDERED = MICE.model_copy(update={"unit_order": True})
KEY = names.asset_key(ORDERED, UNIT_ORDER)


def due_of(made: House, dataset: Dataset = ORDERED) -> DatasetDue:
    return dataset_due(made.store, dataset, made.settings, 1.0)


def turned_on(made: House) -> House:
    """The same home after its owner wrote ``unit_order: true``."""
    return House(made.settings, made.instance, (ORDERED,))


def published_order(made: House, name: str = MICE.name) -> list[int | None]:
    path = made.hub_folder(name) / "units" / "units.parquet"
    return list(pq.read_table(path)["order"].to_pylist())


def metadata_of(made: House, partition: str) -> dict[str, Any]:
    (event,) = [
        record.asset_materialization
        for record in made.instance.fetch_materializations(KEY, 20).records
        if record.partition_key == partition
    ]
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


def test_without_the_line_there_is_no_asset_and_nothing_is_due(built: House) -> None:
    assert analyses_of(MICE) == (ANNOTATIONS,)
    assert KEY not in built.job.asset_layer.asset_graph.get_all_asset_keys()
    assert published_order(built) == [None] * 21
    due = due_of(built, MICE)
    assert (due.sessions, due.publish, "unit_order" in due.analyses) == ({}, None, False)


def test_turning_it_on_makes_exactly_the_sessions_due_then_the_publications_and_nothing_again(
    built_house: Callable[..., House],
) -> None:
    before_it = built_house()
    merge(before_it)
    made, before = turned_on(before_it), stored(before_it)
    published = documents.require_published(made.store, MICE, made.settings)
    due = due_of(made)
    assert (due.sessions, due.publish, set(due.analyses["unit_order"])) == ({}, None, set(SESSIONS))
    assert made.run(KEY, partitions=SESSIONS[:2]).success
    due = due_of(made)
    assert (set(due.analyses["unit_order"]), due.publish) == ({SESSIONS[2]}, None), "one publication for all of them"
    assert made.run(KEY, partitions=SESSIONS[2:]).success
    due = due_of(made)
    assert (due.analyses.get("unit_order"), due.why) == (None, "to publish with its unit order")
    assert made.publish(ORDERED, checks=False).success
    assert due_of(made).publish is None
    ordered = documents.require_published(made.store, MICE, made.settings)
    assert (ordered.inputs, ordered.shards) == (published.inputs, published.shards)
    assert ordered.unit_order is not None
    assert ordered.unit_order.sessions == 3
    assert None not in published_order(made)
    pile = pile_due(made.store, NEURAL_PILE, made.datasets, made.settings)
    assert pile is not None
    assert (pile.plan, pile.shards, pile.publish) == (False, (), True)
    assert made.run(PILE_HUB_DATASET, checks=False).success
    assert pile_due(made.store, NEURAL_PILE, made.datasets, made.settings) is None
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).annotations
    assert None not in published_order(made, "neural-pile")
    assert stored(made) == before
    assert due_of(made, MICE).publish is None, "turned off again, what is published stays"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """The mice with the order of their units, which is not published."""
    with copy_of(first_built, tmp_path_factory.mktemp("order") / "copy") as copied:
        ordered = turned_on(copied)
        assert ordered.run(KEY, partitions=SESSIONS).success
        yield ordered


def test_its_page_shows_the_same_window_in_both_orders(made: House) -> None:
    facts = metadata_of(made, SESSIONS[1])
    assert (facts["units"], facts["silent_units"], facts["reused"]) == (7, 1, False)
    assert facts["rasters"].startswith(f"![rasters of {SESSIONS[1]}](data:image/png;base64,")
    counts = documents.read_counts_record(made.store, ORDERED, made.settings, SESSIONS[1])
    order = read_unit_orders(made.store, ORDERED, made.settings, SESSIONS)[SESSIONS[1]]
    assert counts is not None
    before, after = order_samples(made.store, counts, order, synthetic=False)
    assert facts["glance"] == glance_markdown(after)
    assert (before.start, before.title, before.strip.window) == (after.start, after.title, after.strip.window)  # type: ignore[union-attr]
    assert sorted(map(bytes, before.counts)) == sorted(map(bytes, after.counts)), "the same rows"


def test_it_follows_counts_that_are_made_again(made: House) -> None:
    assert documents.require_published(made.store, ORDERED, made.settings).unit_order is None, "publishing never waits"
    assert due_of(made).analyses.keys() == {"annotations"}
    with house(made.settings.home, made.archive, (ORDERED,), bin_width_s=0.05) as other:
        assert other.batch(other.discover(ORDERED), ORDERED).success
        assert set(due_of(other).analyses["unit_order"]) == set(SESSIONS), "of these bins there is none"
    assert due_of(made).analyses.keys() == {"annotations"}
