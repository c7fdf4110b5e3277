"""Pages of the UI that no run fills: the overview, verdicts that a run has hidden, datasets that were never listed."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import dagster as dg
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger.analyses import ANNOTATIONS
from neuralpile_dagster.ledger.due import dataset_due
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.names import OVERVIEW, session_partitions
from neuralpile_dagster.orchestration.overview import pages_sensor, refresh_pages
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import current_sensor
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, failure_of

NewHouse = Callable[..., House]
OTHERS = MICE.model_copy(update={"name": "other-mice"})


def overview(made: House) -> dict[str, str]:
    """The overview's metadata as texts."""
    event = made.instance.get_latest_materialization_event(OVERVIEW)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: str(value.value) for name, value in event.asset_materialization.metadata.items()}


def tick(made: House, cursor: str | None = None) -> tuple[str, str | None]:
    """What the sensor says in a tick, and its cursor."""
    context = dg.build_sensor_context(
        made.instance, cursor=cursor, resources={"instance": InstanceResource(made.settings)}
    )
    result = pages_sensor(made.datasets, [NEURAL_PILE])(context)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests == []
    assert isinstance(result.skip_reason, dg.SkipReason)
    return str(result.skip_reason.skip_message), result.cursor or cursor


def test_the_overview_is_filled_before_anything_is_built_and_says_what_to_do(new_house: NewHouse) -> None:
    made = new_house(datasets=[MICE, OTHERS])
    assert refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE])
    assert "2 datasets not started: launch the job build of one, or list its sessions" in overview(made)["next"]
    assert overview(made)["not_started"].startswith("[tiny-mice](/assets/tiny_mice/manifest) · [other-mice](")
    assert not refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE]), (
        "an event for each tick would bury the log"
    )


def test_the_sensor_refreshes_once_when_a_run_has_ended(new_house: NewHouse) -> None:
    made = new_house()
    said, cursor = tick(made)
    assert said == "Refreshed."
    assert tick(made, cursor)[0] == "No run has ended since the last refresh."
    made.discover()
    said, later = tick(made, cursor)
    assert said == "Refreshed."
    assert "3 of 3 sessions to make" in overview(made)["next"]
    assert tick(made, later)[0] == "No run has ended since the last refresh."


def test_the_overview_says_why_nothing_happens_to_a_dataset_and_links_to_its_sessions(broken_house: NewHouse) -> None:
    made = broken_house()
    refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE])
    line = overview(made)["next"]
    assert line.startswith("- [tiny-mice](/assets/tiny_mice/spike_counts?view=partitions): not published: 1 of 3 sess")
    assert "tries them now" in line


def test_the_overview_does_not_say_that_a_dataset_published_in_part_is_all_published_or_never(
    broken_house: NewHouse,
) -> None:
    made = broken_house()
    assert made.publish(checks=False, min_session_share=0.5).success
    refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE])
    assert "not published again: 1 of 3 sessions failed" in overview(made)["next"]
    event = made.instance.get_latest_materialization_event(OVERVIEW)
    assert event is not None
    assert event.asset_materialization is not None
    table = event.asset_materialization.metadata["datasets"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = [record.data for record in table.records]
    assert row["state"] == "some failed"
    assert row["published"] == row["tokens"]


def test_a_tick_of_automation_that_requests_nothing_says_why_for_each_dataset(broken_house: NewHouse) -> None:
    made = broken_house(datasets=[MICE, OTHERS])
    made.run(names.asset_key(MICE, ANNOTATIONS), partitions=SESSIONS)
    context = dg.build_sensor_context(made.instance, resources={"instance": InstanceResource(made.settings)})
    skip = current_sensor(made.datasets, [NEURAL_PILE])(context)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message is not None
    assert skip.skip_message.startswith("Nothing is due; tiny-mice: not published: 1 of 3 sessions failed and wait")
    assert skip.skip_message.endswith("1 dataset not started, for want of a manifest.")


def test_a_dataset_that_is_published_is_up_to_date(built: House) -> None:
    assert dataset_due(built.store, MICE, built.settings, 1.0).why == "up to date"


def test_a_dataset_that_was_never_listed_has_a_partition_that_says_what_to_do(new_house: NewHouse) -> None:
    made = new_house()
    refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE])
    partitions = session_partitions(MICE).name
    assert partitions is not None
    assert made.instance.get_dynamic_partitions(partitions) == ["_materialize_the_manifest_first"]
    assert names.known_sessions(made.instance, MICE) == []
    message = failure_of(made.batch([names.NO_SESSIONS]))
    assert "tiny-mice has no manifest yet" in message
    assert "materialize tiny_mice/manifest" in message
    assert made.discover() == list(SESSIONS), "listing the sessions removes it"
    refresh_pages(made.instance, made.settings, made.datasets, [NEURAL_PILE])
    assert made.instance.get_dynamic_partitions(partitions) == list(SESSIONS)


def test_partitions_of_no_session_are_removed_and_the_log_says_so(listed_house: NewHouse) -> None:
    made = listed_house()
    partitions = session_partitions(MICE).name
    assert partitions is not None
    assert made.batch(SESSIONS[:1]).success
    made.instance.add_dynamic_partitions(partitions, ["by-hand"])
    for number in (0, 2):  # of the first session results are stored, of the last nothing
        (made.archive / MICE.source.folder / FILES[number]).unlink()
    stored = sorted(made.store.keys(MICE.key))
    result = made.run(names.manifest_key(MICE))
    assert made.instance.get_dynamic_partitions(partitions) == list(SESSIONS[:2])
    (said,) = [
        e.user_message for e in made.instance.all_logs(result.run_id) if "removed 2 partitions" in e.user_message
    ]
    assert f"{SESSIONS[2]}, by-hand; nothing stored was deleted" in said
    assert sorted(made.store.keys(MICE.key)) == stored
    assert made.made(names.spike_counts_key(MICE)) >= {SESSIONS[0]}


@pytest.mark.parametrize("asset", ["manifest", "hub_dataset"])
def test_errors_of_single_assets_come_in_words_without_a_trace(new_house: NewHouse, asset: str) -> None:
    made = new_house()
    if asset == "manifest":
        shutil.rmtree(made.archive / MICE.source.folder)
    result = made.run(dg.AssetKey([MICE.key, asset]))
    (failed,) = [event for event in result.all_events if event.is_step_failure][:1]
    data = failed.step_failure_data
    assert data.user_failure_data is not None, "Dagster shows its description, and no trace"
    assert MICE.name in str(data.user_failure_data.description) or "990100" in str(data.user_failure_data.description)
    assert data.error is not None
    assert data.error.cause is None


def test_the_page_of_a_failed_session_has_the_reason_in_its_parts(broken_house: NewHouse) -> None:
    made = broken_house()
    for asset in (names.spike_trains_key(MICE), names.spike_counts_key(MICE)):
        chosen = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[SESSIONS[1]])
        (record,) = made.instance.fetch_observations(chosen, limit=5).records
        assert record.asset_observation is not None
        said = {name: str(value.value) for name, value in record.asset_observation.metadata.items()}
        assert said["failed"].endswith(f"{SESSIONS[1]}.nwb cannot be opened as HDF5")
        assert said["expected"] == "a complete NWB (HDF5) file"
        assert "fetch the file again" in said["what_to_do"]


@pytest.mark.parametrize("asset", ["manifest", "spike_trains", "spike_counts", "hub_dataset"])
def test_few_numbers_are_plotted_and_tables_fit_the_page(built: House, asset: str) -> None:
    event = built.instance.get_latest_materialization_event(dg.AssetKey([MICE.key, asset]))
    assert event is not None
    assert event.asset_materialization is not None
    values = event.asset_materialization.metadata
    numbers = {name for name, value in values.items() if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)}
    plotted = {name for name in numbers if not name.startswith("dagster/")}
    assert 2 <= len(plotted) <= 7, plotted
    tables = [value for value in values.values() if isinstance(value, dg.TableMetadataValue)]
    assert all(len(table.schema.columns) <= 5 for table in tables)
