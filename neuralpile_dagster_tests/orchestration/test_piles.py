"""Several piles of one instance: each has its own plan, shards, repository and status, whatever they share."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from neuralpile_dagster.catalog.load import load_piles
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS
from neuralpile_dagster.ledger.due import pile_due
from neuralpile_dagster.ledger.status import piles_status
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import current_sensor
from neuralpile_dagster_tests.fixtures.house import MICE, House
from neuralpile_dagster_tests.fixtures.kept import kept
from neuralpile_dagster_tests.fixtures.merging import RATS, merge, require, rows_of, write_rats

CATALOG = """\
datasets:
  - {name: tiny-mice, title: Mice, source: {archive: dandi, id: "990100"}}
  - {name: tiny-rats, title: Rats, source: {archive: dandi, id: "990200"}}
piles:
  - name: both-kinds
    title: Two datasets
    components: [tiny-mice, tiny-rats]
    seed: 5
    split_by: sessions
    test_size: 0.3
  - {name: mice-again, title: One dataset, components: [tiny-mice]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two datasets, built, published and merged into the piles of a catalog.yaml."""
    with kept("built", tmp_path_factory.mktemp("piles") / "copy", datasets=(MICE, RATS)) as opened:
        (opened.settings.home / "catalog.yaml").write_text(CATALOG)
        write_rats(opened.archive)
        require(opened.batch(opened.discover(RATS), RATS))
        for dataset in opened.datasets:  # else the sensor asks for them
            annotations = names.asset_key(dataset, ANNOTATIONS)
            require(opened.run(annotations, partitions=names.known_sessions(opened.instance, dataset)))
        require(opened.run(*map(names.hub_dataset_key, opened.datasets), checks=False))
        for name in ("both-kinds", "mice-again"):
            merge(opened, piles_in(opened)[name], checks=True)
        yield opened


def piles_in(made: House) -> dict[str, Pile]:
    return {pile.name: pile for pile in load_piles(made.settings, made.datasets)}


def test_piles_that_share_a_component_have_the_bytes_of_single_builds(made: House) -> None:
    chosen = piles_in(made)
    assert list(chosen) == ["neural-pile", "both-kinds", "mice-again"]
    both, mice = (rows_of(made.hub_folder(name)) for name in ("both-kinds", "mice-again"))
    assert rows_of(merge(made, NEURAL_PILE, seed=5, split_by="sessions", test_size=0.3)) == both
    assert rows_of(merge(made, NEURAL_PILE, components=["tiny-mice"])) == mice
    assert both != mice
    for name, components in (("both-kinds", ("tiny-mice", "tiny-rats")), ("mice-again", ("tiny-mice",))):
        pile = chosen[name]
        assert pile_due(made.store, pile, made.datasets, made.settings) is None
        record = piles.require_published(made.store, pile, made.settings)
        assert (record.repository, record.components) == (f"local/{name}", components)
        key = names.hub_dataset_key(pile)
        assert {check.asset_key for check in made.job.asset_layer.asset_graph.asset_check_keys} >= {key}
        assert made.checks(key, "every_row_exactly_once")[0].passed
    lines = piles_status(made.store, list(chosen.values()), made.datasets, made.settings)
    assert [line.split(":")[0] for line in lines] == list(chosen)
    assert all(line.endswith("; up to date") for line in lines)


def test_a_pile_whose_row_states_something_else_is_planned_again_and_the_others_are_not(made: House) -> None:
    path = made.settings.home / "catalog.yaml"
    path.write_text(CATALOG.replace("seed: 5", "seed: 6"))
    try:
        chosen = piles_in(made)
        due = {name: pile_due(made.store, pile, made.datasets, made.settings) for name, pile in chosen.items()}
        assert {name for name, what in due.items() if what is not None} - {"neural-pile"} == {"both-kinds"}
        op = piles.plan_config(made.store, chosen["both-kinds"], made.settings)["both_kinds__manifest"]
        assert (op["config"]["seed"], op["config"]["split_by"], op["config"]["test_size"]) == (6, "sessions", 0.3)
        sensor = current_sensor(made.datasets, [chosen["both-kinds"], chosen["mice-again"]])
        resources = {"instance": InstanceResource(made.settings)}
        with dg.build_sensor_context(made.instance, resources=resources) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or ()
        assert request.asset_selection == [dg.AssetKey(["both_kinds", "manifest"])]
    finally:
        path.write_text(CATALOG)


def test_only_piles_with_a_member_are_shown_and_those_with_nothing_only_when_asked(made: House) -> None:
    keys = {key.path[0] for key in made.job.asset_layer.asset_graph.get_all_asset_keys()}
    assert keys == {"neural_pile", "both_kinds", "mice_again", "tiny_mice", "tiny_rats", "overview"}
    unmade = Pile(name="unmade", title="Nothing yet", components=("nothing",))
    some = [*piles_in(made).values(), unmade]
    assert not any("unmade" in line for line in piles_status(made.store, some, made.datasets, made.settings))
    lines = piles_status(made.store, some, made.datasets, made.settings, every=True)
    assert lines[-1] == "unmade: no component is published yet"
