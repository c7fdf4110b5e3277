"""What automation and `neuralpile build --merge` leave unmade after a blocking check failed on what it is made from."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from neuralpile_dagster.catalog.load import load_piles
from neuralpile_dagster.catalog.piles import NEURAL_PILE, Pile
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks import latest_event, refusals, target_of
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import current_sensor
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_HUB_DATASET, PILE_MANIFEST, PILE_SHARDS, House
from neuralpile_dagster_tests.fixtures.merging import planned_shards

CHECK = "tiny_mice/hub_dataset hub_equals_record"


def settle(house: House) -> list[str]:
    """Make what automation would make before the pile; gives the sessions."""
    sessions = sorted(house.made(names.spike_counts_key(MICE)))
    assert house.run(dg.AssetKey([MICE.key, "annotations"]), partitions=sessions).success
    assert house.publish().success
    return sessions


def asked(house: House, pile: Pile = NEURAL_PILE) -> list[str] | str:
    """The assets that a tick of automation asks for, or why it asks for none."""
    sensor = current_sensor(house.datasets, [pile])
    resources = {"instance": InstanceResource(house.settings)}
    with dg.build_sensor_context(instance=house.instance, resources=resources) as context:
        result = sensor(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    return [key.to_user_string() for request in result.run_requests for key in request.asset_selection]


def test_no_pile_is_made_of_a_component_that_fails_a_blocking_check_until_it_passes(
    built_house: Callable[..., House],
):
    house = built_house()
    settle(house)
    assert asked(house) == ["neural_pile/manifest"]
    stranger = house.hub_folder("tiny-mice") / "data" / "train-00007-of-00008.parquet"
    stranger.write_bytes(b"of somebody else")
    house.run_checks(names.hub_dataset_key(MICE))
    reason = asked(house)
    assert f"neural-pile: waits, because the check {CHECK} failed: expected" in reason
    assert "what to do: remove the cause and publish it again, or run its checks again" in reason
    launcher = Launcher(house.settings, house.instance, house.job, datasets=house.datasets)
    launcher.pile(NEURAL_PILE)
    assert list(launcher.outcome.failed) == ["neural_pile/manifest"]
    assert launcher.outcome.failed["neural_pile/manifest"].startswith(f"waits, because the check {CHECK} failed")
    assert not house.made(PILE_MANIFEST)
    stranger.unlink()
    house.run_checks(names.hub_dataset_key(MICE))
    assert asked(house) == ["neural_pile/manifest"]


def test_a_verdict_on_an_earlier_publication_stops_nothing(built_house: Callable[..., House]):
    house = built_house()
    settle(house)
    stranger = house.hub_folder("tiny-mice") / "data" / "train-00007-of-00008.parquet"
    stranger.write_bytes(b"of somebody else")
    house.run_checks(names.hub_dataset_key(MICE))
    stranger.unlink()
    unchecked = house.job.get_subset(asset_selection={names.hub_dataset_key(MICE)}, asset_check_selection=set())
    assert unchecked.execute_in_process(instance=house.instance).success
    assert asked(house) == ["neural_pile/manifest"]


def test_a_component_that_is_not_in_the_plan_keeps_no_pile_waiting(built_house: Callable[..., House]):
    house = built_house()
    chosen = {"neural_pile__manifest": {"config": {"components": ["another"]}}}
    assert piles.planned_members(NEURAL_PILE, house.datasets, chosen) == []
    assert piles.planned_members(NEURAL_PILE, house.datasets, {}) == [MICE]


@pytest.mark.parametrize(
    ("check", "severity", "stops"),
    [
        ("hub_equals_record", dg.AssetCheckSeverity.ERROR, True),
        ("hub_equals_record", dg.AssetCheckSeverity.WARN, False),
        ("component_reads_back", dg.AssetCheckSeverity.ERROR, False),
    ],
    ids=["blocking", "warning", "not blocking"],
)
def test_a_verdict_that_does_not_block_stops_nothing(
    built_house: Callable[..., House], check: str, severity: dg.AssetCheckSeverity, stops: bool
):
    house, asset = built_house(), names.hub_dataset_key(MICE)
    verdict = dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check,
        passed=False,
        severity=severity,
        metadata={},
        target_materialization_data=target_of(latest_event(house.instance, asset)),
    )
    house.instance.report_runless_asset_event(verdict)
    assert bool(refusals(house.instance, "hub_dataset", [MICE])) == stops
    excused = MICE.model_copy(update={"severity": {check: "warn"}})
    assert refusals(house.instance, "hub_dataset", [excused]) == {}


def test_nothing_is_made_of_a_published_pile_that_fails_a_blocking_check(built_house: Callable[..., House]):
    house = built_house()
    (house.settings.home / "catalog.yaml").write_text("motif_shapes: [[1, 15]]\n")
    house.datasets = (MICE.model_copy(update={"motif_shapes": ((1, 15),)}),)
    (pile,) = load_piles(house.settings, house.datasets)
    sessions = settle(house)
    assert house.run(PILE_MANIFEST).success
    assert house.run(PILE_SHARDS, partitions=planned_shards(house.store, pile, house.settings)).success
    assert house.run(PILE_HUB_DATASET).success
    assert house.run(dg.AssetKey([MICE.key, "motifs_1x15"]), partitions=sessions).success
    assert set(asked(house, pile)) == {"neural_pile/motif_buckets_1x15"}
    (house.hub_folder("neural-pile") / "data" / "train-00007-of-00008.parquet").write_bytes(b"of somebody else")
    house.run_checks(PILE_HUB_DATASET)
    assert "neural-pile: waits, because the check neural_pile/hub_dataset " in asked(house, pile)
    launcher = Launcher(house.settings, house.instance, house.job, datasets=house.datasets)
    launcher.made_of(pile)
    assert all(name.startswith("neural_pile/hub_dataset ") for name in launcher.outcome.failed)
    assert launcher.outcome.failed
    assert not house.made(dg.AssetKey(["neural_pile", "motif_buckets_1x15"]))
