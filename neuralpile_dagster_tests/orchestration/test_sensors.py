"""Automation: what the sensors ask for, run as Dagster would run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import dagster as dg
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import ArchiveUnavailable
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.documents import TRANSIENT_WAIT
from neuralpile_dagster.ledger.due import dataset_due, pile_due
from neuralpile_dagster.ledger.status import pile_status
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import TRIES, current_sensor, version_sensor
from neuralpile_dagster.session.build import trains_inputs
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, PILE_MANIFEST, SESSIONS, House, trains_of
from neuralpile_dagster_tests.fixtures.kept import kept
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

FIRST = "sub-A/sub-A_ses-1.nwb"


def ask(house: House, sensor: dg.SensorDefinition, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    resources = {"instance": InstanceResource(house.settings)}
    with dg.build_sensor_context(instance=house.instance, cursor=cursor, resources=resources) as context:
        return sensor(context)


def tick(house: House) -> list[list[str]]:
    """One tick of automation and the runs that it asks for, without their checks; gives what they made."""
    result = ask(house, current_sensor(house.datasets, [NEURAL_PILE]))
    if isinstance(result, dg.SkipReason):
        return []
    made = []
    for request in result.run_requests:
        job = house.job.get_subset(asset_selection=set(request.asset_selection), asset_check_selection=set())
        done = job.execute_in_process(
            instance=house.instance,
            partition_key=request.partition_key,
            tags=request.tags,
            run_config={"loggers": {"progress": {}}, **request.run_config},
            raise_on_error=False,
        )
        assert done.success
        made.append([key.to_user_string() for key in request.asset_selection])
    return made


@dataclass
class Walk:
    """The runs of each tick, what the status said of the pile before it, and the sessions that were due."""

    house: House
    steps: list[list[list[str]]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    due: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """The mice, made by automation alone once somebody listed them; tests only look."""
    with kept("listed", tmp_path_factory.mktemp("walk") / "copy") as house:
        walk = Walk(house)
        for _ in range(8):
            walk.said.append(pile_status(house.store, NEURAL_PILE, house.datasets, house.settings))
            walk.steps.append(tick(house))
        yield walk


def test_nothing_is_asked_for_before_there_is_a_manifest(new_house: Callable[..., House]):
    assert tick(new_house()) == []


def test_from_a_manifest_on_everything_is_made_in_order_and_then_nothing_more(walk: Walk):
    house = walk.house
    assert [step for steps in walk.steps for step in steps] == [
        ["tiny_mice/spike_trains", "tiny_mice/spike_counts"],
        ["tiny_mice/annotations"],
        ["tiny_mice/hub_dataset"],
        ["neural_pile/manifest"],
        ["neural_pile/shards"],
        ["neural_pile/hub_dataset"],
    ]
    assert piles.require_published(house.store, NEURAL_PILE, house.settings).components == (MICE.name,)
    assert pile_due(house.store, NEURAL_PILE, house.datasets, house.settings) is None


def test_what_the_pile_lacks_is_said_at_every_step(walk: Walk):
    said = [words.removeprefix("neural-pile: ") for words in walk.said]
    assert list(dict.fromkeys(words.rpartition("; ")[-1] for words in said)) == [
        "no component is published yet",
        "to be planned (neural_pile/manifest)",
        "2 shards to make (neural_pile/shards)",
        "to be published (neural_pile/hub_dataset)",
        "up to date",
    ]
    assert "not published yet" in said[-4]
    assert f"components: {MICE.name})" in said[-1]


CHOSEN = {"seed": 7, "split_by": "sessions", "test_size": 0.3}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Published mice and a pile planned as a person chose; one file changed, was ticked, listed and ticked thrice."""
    with kept("built", tmp_path_factory.mktemp("changed") / "copy") as house:
        walk = Walk(house)
        assert house.run(PILE_MANIFEST, ops={"neural_pile__manifest": {"config": CHOSEN}}).success
        write_units_nwb(house.archive / MICE.source.folder / FIRST, trains_of(9))
        walk.steps.append(tick(house))
        house.discover()
        walk.due = list(dataset_due(house.store, MICE, house.settings, 1.0).sessions)
        walk.steps += [tick(house) for _ in range(3)]
        yield walk


def test_only_the_session_whose_file_changed_is_made_anew(changed: Walk):
    unlisted, *steps = changed.steps
    assert unlisted == [["tiny_mice/annotations"]], "the manifest does not know yet"
    assert changed.due == ["sub-A_ses-1"]
    assert steps[:2] == [
        [["tiny_mice/annotations"], ["tiny_mice/spike_trains", "tiny_mice/spike_counts"]],
        [["tiny_mice/hub_dataset"]],
    ]


def test_a_pile_planned_anew_keeps_what_a_person_chose_for_the_last_one(changed: Walk):
    assert changed.steps[3] == [["neural_pile/manifest"]]
    store, settings = changed.house.store, changed.house.settings
    plan_id = piles.require_current(store, NEURAL_PILE, settings).plan_id
    plan = load_plan(store, piles.plan_path(NEURAL_PILE, settings, plan_id)).record
    assert {name: getattr(plan, name) for name in CHOSEN} == CHOSEN


def test_a_session_that_failed_is_not_asked_for_again_until_its_file_changes(
    broken_house: Callable[..., House], mice_files: dict[str, bytes]
):
    house = broken_house()
    annotations = [["tiny_mice/annotations"]] * 2  # of the sessions before and after it
    assert tick(house) == annotations, "neither tried again nor published without it"
    assert tick(house) == []
    path = f"{MICE.source.folder}/{FILES[1]}"
    (house.archive / path).write_bytes(mice_files[path])
    house.discover()
    assert tick(house) == [["tiny_mice/spike_trains", "tiny_mice/spike_counts"]]
    assert tick(house) == [["tiny_mice/annotations"], ["tiny_mice/hub_dataset"]]


def test_a_run_that_died_is_asked_for_again_but_not_for_ever(listed_house: Callable[..., House]):
    house = listed_house()
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


def test_a_stated_share_of_the_sessions_is_enough_to_publish(broken_house: Callable[..., House]):
    house = broken_house()
    assert tick(house) == [["tiny_mice/annotations"]] * 2
    assert tick(house) == []
    house.settings = replace(house.settings, min_session_share=0.6)
    assert tick(house) == [["tiny_mice/hub_dataset"]]


def test_a_session_whose_archive_was_away_is_asked_for_again_after_a_while(listed_house: Callable[..., House]):
    house = listed_house()
    session = documents.read_manifest(house.store, MICE).session(SESSIONS[0])
    inputs = trains_inputs(session, MICE.reader)
    documents.record_failure(house.store, MICE, house.settings, session.key, ArchiveUnavailable("away"), inputs, "run")
    assert session.key not in dataset_due(house.store, MICE, house.settings, 1.0).sessions
    failure = documents.read_failures(house.store, MICE, house.settings)[session.key]
    earlier = failure.model_copy(update={"at": failure.at - 2 * TRANSIENT_WAIT})
    write_record(house.store, f"{MICE.key}/failures/{session.key}.json", earlier)
    assert session.key in dataset_due(house.store, MICE, house.settings, 1.0).sessions
