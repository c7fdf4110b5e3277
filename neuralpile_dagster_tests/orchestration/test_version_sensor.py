"""``new_dandiset_versions``: what it notices, what it asks for, and what it does about archives that are away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import TICK_BUDGET_S, TRIES, impatient, version_sensor
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.store import read_record, write_record
from neuralpile_dagster_tests.fixtures.house import MICE, House, house, trains_of
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import status
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

ALWAYS = 10_000
PINNED = [
    Dataset(name=f"pinned-{number}", title="Pinned", source=Source(id=f"99020{number}", version="0.240101.0000"))
    for number in range(2)
]
DATASETS = [MICE, *PINNED]


@contextmanager
def serving() -> Iterator[DandiServer]:
    """A DANDI server with all datasets, which is the archive of the environment."""
    with dandi_server() as server, pytest.MonkeyPatch.context() as patch:
        for dataset in DATASETS:
            server.store.add_paths(dataset.source.id, dataset.source.version, "sub-1/a.nwb")
        patch.setenv("DANDI_API_URL", server.api_url)
        yield server


@pytest.fixture
def server() -> Iterator[DandiServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def first_listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which all manifests are made."""
    home = tmp_path_factory.mktemp("listed") / "home"
    with serving(), house(home, "dandi", DATASETS) as made:
        assert made.run(*map(names.manifest_key, DATASETS)).success
    return home


@pytest.fixture
def listed(server: DandiServer, first_listed: Path, tmp_path: Path) -> Iterator[House]:
    """An instance on which all manifests are made, by runs that it does not remember."""
    home = shutil.copytree(first_listed, tmp_path / "home")
    with house(home, "dandi", DATASETS) as made:
        yield made


def tick(
    house: House, cursor: str | None = None, clock: Callable[[], float] | None = None
) -> tuple[dg.SensorResult, list[dg.RunRequest]]:
    """One tick: its result, and what it asks for."""
    sensor = version_sensor(house.datasets, clock) if clock else version_sensor(house.datasets)
    resources = {"instance": InstanceResource(house.settings)}
    with dg.build_sensor_context(instance=house.instance, cursor=cursor, resources=resources) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result, list(result.run_requests or ())


def asked(house: House) -> list[dg.AssetKey]:
    return [key for request in tick(house)[1] for key in request.asset_selection or ()]


def words(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def fail(house: House, request: dg.RunRequest) -> None:
    """A run for a request, which dies."""
    run = dg.DagsterRun(house.job.name, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    house.instance.add_run(run)
    house.instance.report_run_failed(run)


def manifest_of(house: House, dataset: Dataset) -> Manifest:
    manifest = read_record(house.store, documents.manifest_path(dataset), Manifest)
    assert manifest is not None
    return manifest


def test_a_dataset_that_nobody_started_is_left_alone(server: DandiServer, tmp_path: Path):
    with house(tmp_path, "dandi", DATASETS) as made:
        assert asked(made) == []
    assert server.http.log == []


def test_what_changed_after_a_manifest_was_made_is_noticed_by_the_first_tick(listed: House, server: DandiServer):
    assert asked(listed) == []
    server.store.dandisets[MICE.source.id].versions["draft"].modified = "2026-02-02T00:00:00Z"
    assert asked(listed) == [names.manifest_key(MICE)]
    listed.discover(MICE)
    assert asked(listed) == []


def test_a_changed_file_of_a_folder_is_noticed(listed_house: Callable[..., House]):
    house = listed_house()
    assert asked(house) == []
    write_units_nwb(house.archive / MICE.source.folder / "sub-C/sub-C_ses-4.nwb", trains_of(4))
    assert asked(house) == [names.manifest_key(MICE)]
    house.discover()
    assert asked(house) == []


def test_a_manifest_that_could_not_be_made_is_asked_for_again_but_not_for_ever(listed: House, server: DandiServer):
    draft = server.store.dandisets[MICE.source.id].versions["draft"]
    for change in ("2026-02-02T00:00:00Z", "2026-03-03T00:00:00Z"):
        draft.modified = change
        for _ in range(TRIES):
            (request,) = tick(listed)[1]
            fail(listed, request)
        assert asked(listed) == []


def test_a_manifest_from_before_states_were_kept_is_asked_for(listed: House):
    old = manifest_of(listed, MICE).model_dump(mode="json", exclude={"source_state", "newer_version", "replaced"})
    write_record(listed.store, documents.manifest_path(MICE), Manifest.model_validate(old))
    assert asked(listed) == [names.manifest_key(MICE)]
    listed.discover(MICE)
    assert asked(listed) == []


def test_a_version_newer_than_the_pinned_one_is_told_and_not_listed(listed: House, server: DandiServer):
    server.store.add_paths(PINNED[0].source.id, "0.240202.0000", "sub-1/b.nwb")
    said = "version 0.240202.0000 is published, 0.240101.0000 is pinned"
    result, requests = tick(listed)
    assert requests == []
    assert f"pinned-0: {said}" in words(result)
    listed.discover(PINNED[0])
    event = listed.instance.get_latest_materialization_event(names.manifest_key(PINNED[0]))
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.metadata["newer_version"].value == said
    assert "version_note" not in event.asset_materialization.metadata
    assert asked(listed) == []


def test_another_pin_is_another_source(listed: House, server: DandiServer):
    server.store.add_paths(PINNED[0].source.id, "0.240202.0000", "sub-1/b.nwb")
    moved = PINNED[0].model_copy(update={"source": PINNED[0].source.model_copy(update={"version": "0.240202.0000"})})
    listed.datasets = [MICE, moved]
    assert asked(listed) == [names.manifest_key(moved)]


def test_an_archive_that_is_away_costs_one_source_in_a_tick_and_the_others_have_their_turns(
    listed: House, server: DandiServer
):
    server.faults.add(status(503, retry_after=100, path="/api/", times=ALWAYS))
    cursor, first = None, []
    for number in range(1, len(DATASETS) + 1):
        result, requests = tick(listed, cursor)
        assert requests == []
        assert "503" in words(result)
        assert len(server.faults.struck) == number * impatient().attempts
        first.append(server.faults.struck[-1][2])
        cursor = result.cursor
    assert len(set(first)) == len(DATASETS)


def test_a_dandiset_that_is_in_trouble_alone_does_not_hide_the_others_for_ever(listed: House, server: DandiServer):
    server.faults.add(status(500, path=f"/{MICE.source.id}/", times=ALWAYS))
    server.store.dandisets[PINNED[0].source.id].versions["0.240101.0000"].modified = "2026-02-02T00:00:00Z"
    before = len(server.http.log)
    result, _ = tick(listed)
    tick(listed, result.cursor)
    for dataset in PINNED:
        assert [target for _, target, _, _ in server.http.log[before:] if f"/{dataset.source.id}/" in target]


def test_a_tick_ends_in_time_and_the_next_goes_on_from_there(listed: House, server: DandiServer):
    seconds = count(step=TICK_BUDGET_S / 2.5)  # of every look at the clock
    orders, cursor = [], None
    for _ in range(3):
        before = len(server.http.log)
        result, _ = tick(listed, cursor, lambda: next(seconds))
        orders.append([target for _, target, _, _ in server.http.log[before:]])
        cursor = result.cursor
    ids = [dataset.source.id for dataset in DATASETS]
    assert orders == [[f"/api/dandisets/{ids[number]}/" for number in numbers] for numbers in ([0, 1], [2, 0], [1, 2])]


def test_a_silent_archive_leaves_a_tick_alive():
    tick_s, limits = 60.0, impatient()  # Dagster's default timeout of a tick
    one_request = limits.attempts * (limits.connect_timeout_s + limits.read_timeout_s)
    assert TICK_BUDGET_S + one_request + limits.retry_after_max_s < tick_s
    assert TICK_BUDGET_S + limits.read_timeout_s < tick_s


@pytest.mark.parametrize("cursor", ['{"tiny-mice": "published 1"}', '{"noticed": {}, "next": 77}', '{"next": "x"}'])
def test_cursors_of_earlier_releases_do_no_harm(listed: House, cursor: str):
    assert tick(listed, cursor)[1] == []


def test_a_manifest_that_was_listed_a_month_ago_is_listed_again_before_it_is_called_stale(listed: House) -> None:
    assert asked(listed) == []
    path, old = documents.manifest_path(MICE), manifest_of(listed, MICE)
    write_record(listed.store, path, old.model_copy(update={"listed_at": old.listed_at - timedelta(days=29, hours=1)}))
    assert asked(listed) == [names.manifest_key(MICE)]
    listed.discover()
    assert asked(listed) == []
