"""Automation: what the sensors ask for, run as Dagster would run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import dagster as dg

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import ArchiveUnavailable
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.due import TRANSIENT_WAIT, dataset_due, pile_due
from neuralpile_dagster.ledger.status import pile_status
from neuralpile_dagster.orchestration.automation.current import TRIES, current_sensor
from neuralpile_dagster.orchestration.automation.versions import version_sensor
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.session.build import trains_inputs
from neuralpile_dagster.store import write_record
from neuralpile_dagster.testing.nwb import write_units_nwb
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_MANIFEST, House, cut, trains_of

FIRST = "sub-A/sub-A_ses-1.nwb"


def ask(house: House, sensor: dg.SensorDefinition, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    resources = {"instance": InstanceResource.from_settings(house.settings)}
    with dg.build_sensor_context(instance=house.instance, cursor=cursor, resources=resources) as context:
        return sensor(context)


def tick(house: House, succeed: bool = True) -> list[list[str]]:
    """One tick of automation and the runs that it asks for; gives what they made."""
    result = ask(house, current_sensor(house.datasets, [NEURAL_PILE]))
    if isinstance(result, dg.SkipReason):
        return []
    made = []
    for request in result.run_requests:
        done = house.job.execute_in_process(
            instance=house.instance,
            asset_selection=request.asset_selection,
            partition_key=request.partition_key,
            tags=request.tags,
            run_config=request.run_config,
            raise_on_error=False,
        )
        assert done.success == succeed
        made.append([key.to_user_string() for key in request.asset_selection])
    return made


def test_from_a_manifest_on_everything_is_made_in_order_and_then_nothing_more(new_house: Callable[..., House]):
    house = new_house()
    assert tick(house) == [], "nothing is asked for before there is a manifest"
    house.discover()
    steps = [step for _ in range(8) for step in tick(house)]
    assert steps == [
        ["tiny_mice/spike_trains", "tiny_mice/spike_counts"],
        ["tiny_mice/annotations"],
        ["tiny_mice/hub_dataset"],
        ["neural_pile/manifest"],
        ["neural_pile/shards"],
        ["neural_pile/hub_dataset"],
    ]
    assert piles.require_published(house.store, NEURAL_PILE, house.settings).components == (MICE.name,)
    assert pile_due(house.store, NEURAL_PILE, house.datasets, house.settings) is None


def test_what_the_pile_lacks_is_said_at_every_step(new_house: Callable[..., House]):
    house = new_house()
    house.discover()
    said = []
    for _ in range(8):
        said.append(pile_status(house.store, NEURAL_PILE, house.datasets, house.settings).removeprefix("neural-pile: "))
        tick(house)
    assert list(dict.fromkeys(words.rpartition("; ")[-1] for words in said)) == [
        "no component is published yet",
        "to be planned (neural_pile/manifest)",
        "2 shards to make (neural_pile/shards)",
        "to be published (neural_pile/hub_dataset)",
        "up to date",
    ]
    assert "not published yet" in said[-4]
    assert f"components: {MICE.name})" in said[-1]


def test_only_the_session_whose_file_changed_is_made_anew(built_house: Callable[..., House]):
    house = built_house()
    write_units_nwb(house.archive / MICE.source.folder / FIRST, trains_of(9))
    assert tick(house)[:1] != [["tiny_mice/spike_trains", "tiny_mice/spike_counts"]], "the manifest does not know yet"
    house.discover()
    due = dataset_due(house.store, MICE, house.settings, 1.0)
    assert list(due.sessions) == ["sub-A_ses-1"]
    assert tick(house) == [["tiny_mice/annotations"], ["tiny_mice/spike_trains", "tiny_mice/spike_counts"]]
    assert tick(house) == [["tiny_mice/hub_dataset"]]


def test_a_session_that_failed_is_not_asked_for_again_until_its_file_changes(new_house: Callable[..., House]):
    house = new_house()
    damaged = house.archive / MICE.source.folder / FIRST
    whole = cut(damaged)
    house.discover()
    assert len(tick(house, succeed=False)) == 1
    assert tick(house) == [["tiny_mice/annotations"]], "neither tried again nor published without it"
    assert tick(house) == []
    damaged.write_bytes(whole)
    house.discover()
    assert tick(house) == [["tiny_mice/spike_trains", "tiny_mice/spike_counts"]]
    assert tick(house) == [["tiny_mice/annotations"], ["tiny_mice/hub_dataset"]]


def test_a_run_that_died_is_asked_for_again_but_not_for_ever(new_house: Callable[..., House]):
    house = new_house()
    house.discover()
    for _ in range(TRIES):
        result = ask(house, current_sensor(house.datasets, [NEURAL_PILE]))
        assert isinstance(result, dg.SensorResult)
        run = dg.DagsterRun(house.job.name, tags=result.run_requests[0].tags, status=dg.DagsterRunStatus.STARTED)
        house.instance.add_run(run)
        assert isinstance(ask(house, current_sensor(house.datasets, [NEURAL_PILE])), dg.SkipReason), "it is under way"
        house.instance.report_run_failed(run)
    assert isinstance(ask(house, current_sensor(house.datasets, [NEURAL_PILE])), dg.SkipReason)


def test_both_sensors_are_off_until_a_person_turns_them_on():
    for sensor in (version_sensor([MICE]), current_sensor([MICE], [NEURAL_PILE])):
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_a_pile_planned_anew_keeps_what_a_person_chose_for_the_last_one(built_house: Callable[..., House]):
    house = built_house()
    chosen = {"seed": 7, "split_by": "sessions", "test_size": 0.3}
    assert house.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": chosen}}).success
    write_units_nwb(house.archive / MICE.source.folder / FIRST, trains_of(9))
    house.discover()
    steps = [step for _ in range(8) for step in tick(house)]
    assert ["neural_pile/manifest"] in steps
    plan = piles.require_published(house.store, NEURAL_PILE, house.settings)
    assert (plan.seed, plan.split_by, plan.test_size) == (7, "sessions", 0.3)


def test_a_stated_share_of_the_sessions_is_enough_to_publish(new_house: Callable[..., House]):
    house = new_house()
    cut(house.archive / MICE.source.folder / FIRST)
    house.discover()
    assert tick(house, succeed=False) == [["tiny_mice/spike_trains", "tiny_mice/spike_counts"]]
    assert tick(house) == [["tiny_mice/annotations"]]
    assert tick(house) == []
    house.settings = replace(house.settings, min_session_share=0.6)
    assert tick(house) == [["tiny_mice/hub_dataset"]]


def test_a_session_whose_archive_was_away_is_asked_for_again_after_a_while(new_house: Callable[..., House]):
    house = new_house()
    manifest_key = house.discover()[0]
    session = documents.read_manifest(house.store, MICE).session(manifest_key)
    inputs = trains_inputs(session, MICE.reader)
    documents.record_failure(house.store, MICE, house.settings, session.key, ArchiveUnavailable("away"), inputs, "run")
    assert session.key not in dataset_due(house.store, MICE, house.settings, 1.0).sessions
    failure = documents.read_failures(house.store, MICE, house.settings)[session.key]
    earlier = failure.model_copy(update={"at": failure.at - 2 * TRANSIENT_WAIT})
    write_record(house.store, f"{MICE.key}/failures/{session.key}.json", earlier)
    assert session.key in dataset_due(house.store, MICE, house.settings, 1.0).sessions
