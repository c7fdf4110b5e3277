"""Several piles of one instance: each has its own plan, shards, repository and status, whatever they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from neuralpile_dagster.catalog.load import load_piles
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.hub.model import list_folder
from neuralpile_dagster.ledger import kinds, piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS
from neuralpile_dagster.ledger.due import pile_due
from neuralpile_dagster.ledger.status import piles_status
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.automation.current import current_sensor
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster_tests.fixtures.house import House, failure_of, house

UNITS, PROBES = SAMPLE[:2]
CATALOG = """\
piles:
  - name: both-samples
    title: Two samples
    components: [sample-units, sample-probes]
    seed: 5
    split_by: sessions
    test_size: 0.3
  - {name: units-again, title: One sample, components: [sample-units]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two samples, built, published and merged into the piles of a catalog.yaml."""
    home = tmp_path_factory.mktemp("piles")
    (home / "catalog.yaml").write_text(CATALOG)
    with house(home, "sample", (UNITS, PROBES)) as opened:
        for dataset in opened.datasets:
            keys = opened.discover(dataset)
            require(opened.batch(keys, dataset))
            require(opened.run(names.asset_key(dataset, ANNOTATIONS), partitions=keys))  # else the sensor asks for them
            require(opened.publish(dataset))
        for name in ("both-samples", "units-again"):
            merge(opened, piles_in(opened)[name])
        yield opened


def piles_in(made: House) -> dict[str, Pile]:
    return {pile.name: pile for pile in load_piles(made.settings, made.datasets)}


def require(result: dg.ExecuteInProcessResult) -> None:
    assert result.success, failure_of(result)


def merge(made: House, pile: Pile, **config: Any) -> list[str]:
    """Plan, make and publish a pile; digests of its files with rows, in order."""
    manifest, shards, hub_dataset = (names.asset_key(pile, kind) for kind in kinds.PILE_KINDS)
    ops = {piles.manifest_op(pile): {"config": config}} if config else None
    require(made.run(manifest, ops=ops))
    for name in piles.planned_shards(made.store, pile, made.settings):
        require(made.run(shards, partitions=[name]))
    require(made.run(hub_dataset))
    return rows_of(made, pile)


def rows_of(made: House, pile: Pile) -> list[str]:
    """Digests of the published files with rows, in order."""
    folder = made.hub_folder(piles.repository_name(pile, made.settings))
    return [file.sha256 for file in list_folder(folder.resolve()) if file.path.startswith("data/")]


def test_piles_that_share_a_component_have_the_bytes_of_single_builds(made: House) -> None:
    chosen = piles_in(made)
    assert list(chosen) == ["neural-pile", "both-samples", "units-again"]
    both, units = (rows_of(made, chosen[name]) for name in ("both-samples", "units-again"))
    assert merge(made, NEURAL_PILE, seed=5, split_by="sessions", test_size=0.3) == both
    assert merge(made, NEURAL_PILE, components=["sample-units"]) == units
    assert both != units
    for name, components in (("both-samples", ("sample-units", "sample-probes")), ("units-again", ("sample-units",))):
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
        assert {name for name, what in due.items() if what is not None} - {"neural-pile"} == {"both-samples"}
        op = piles.plan_config(made.store, chosen["both-samples"], made.settings)["both_samples__manifest"]
        assert (op["config"]["seed"], op["config"]["split_by"], op["config"]["test_size"]) == (6, "sessions", 0.3)
        sensor = current_sensor(made.datasets, [chosen["both-samples"], chosen["units-again"]])
        resources = {"instance": InstanceResource.from_settings(made.settings)}
        with dg.build_sensor_context(made.instance, resources=resources) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or ()
        assert request.asset_selection == [dg.AssetKey(["both_samples", "manifest"])]
    finally:
        path.write_text(CATALOG)


def test_only_piles_with_a_member_are_shown_and_those_with_nothing_only_when_asked(made: House) -> None:
    keys = {key.path[0] for key in made.job.asset_layer.asset_graph.get_all_asset_keys()}
    assert keys == {"neural_pile", "both_samples", "units_again", "sample_units", "sample_probes", "overview"}
    unmade = Pile(name="unmade", title="Nothing yet", components=("nothing",))
    some = [*piles_in(made).values(), unmade]
    assert not any("unmade" in line for line in piles_status(made.store, some, made.datasets, made.settings))
    lines = piles_status(made.store, some, made.datasets, made.settings, every=True)
    assert lines[-1] == "unmade: no component is published yet"
