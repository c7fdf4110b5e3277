"""Annotations as Dagster makes them: a failure costs only them, and they make nothing else again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS, read_annotations
from neuralpile_dagster.ledger.due import PileDue, dataset_due, pile_due
from neuralpile_dagster.ledger.standing import analysis_standing
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.store import write_record
from neuralpile_dagster.testing.nwb import rewrite, write_units_nwb
from neuralpile_dagster_tests.fixtures.house import (
    FILES,
    MICE,
    PILE_HUB_DATASET,
    SESSIONS,
    House,
    failure_of,
    neuralpile,
    trains_of,
)
from neuralpile_dagster_tests.orchestration.checks.test_pile import merge

KEY = names.asset_key(MICE, ANNOTATIONS)


@pytest.fixture
def archive(new_archive: Callable[[], Path]) -> Path:
    """The mice, with two trials each."""
    root = new_archive()
    for number, name in enumerate(FILES):
        trials = {"start_time": [1.0, 3.0], "stop_time": [2.0, 4.0], "columns": {"choice": ["left", "right"]}}
        columns = {"snr": [float(number)] * len(trains_of(number))}
        path = root / MICE.source.folder / name
        write_units_nwb(path, trains_of(number), subject_id=name[4], intervals={"trials": trials}, columns=columns)
    return root


def stored(house: House) -> dict[str, int]:
    """Modification times of what was read, binned, planned and sent."""
    return {
        str(path.relative_to(house.settings.home)): path.stat().st_mtime_ns
        for path in house.settings.home.rglob("*")
        if path.is_file() and ("spike_" in str(path) or "/plans/" in str(path) or "/shards/" in str(path))
    }


def test_they_make_a_publication_due_once_and_nothing_else_again(
    archive: Path, new_house: Callable[..., House]
) -> None:
    house = new_house(archive=archive)
    house.build()
    merge(house)
    before, published = stored(house), documents.require_published(house.store, MICE, house.settings)
    assert published.annotations is None, "publishing does not wait for them"
    assert dataset_due(house.store, MICE, house.settings, 1.0).publish is None
    assert house.run(KEY, partitions=SESSIONS).success
    due = dataset_due(house.store, MICE, house.settings, 1.0)
    assert (due.sessions, due.analyses, due.why) == ({}, {}, "to publish with its annotations")
    assert house.publish().success
    assert dataset_due(house.store, MICE, house.settings, 1.0).publish is None
    annotated = documents.require_published(house.store, MICE, house.settings)
    assert (annotated.inputs, annotated.shards) == (published.inputs, published.shards)
    assert annotated.annotations is not None
    assert (annotated.annotations.sessions, annotated.annotations.tables) == (3, {"trials": 6})
    pile = pile_due(house.store, NEURAL_PILE, house.datasets, house.settings)
    assert pile == PileDue(False, (), True, pile.inputs if pile else "")
    assert house.run(PILE_HUB_DATASET).success
    assert pile_due(house.store, NEURAL_PILE, house.datasets, house.settings) is None
    assert piles.require_published(house.store, NEURAL_PILE, house.settings).annotations
    assert (house.hub_folder("neural-pile") / "intervals" / "intervals.parquet").is_file()
    assert stored(house) == before


def test_a_table_that_cannot_be_read_costs_the_annotations_of_its_session_only(
    archive: Path, new_house: Callable[..., House]
) -> None:
    rewrite(archive / MICE.source.folder / FILES[1], "intervals/trials/stop_time", [2.0])
    house = new_house(archive=archive)
    keys = house.discover()
    assert house.batch(keys).success
    result = house.run(KEY, partitions=keys)
    assert "1 of 3 sessions of tiny-mice annotations failed; the others are done" in failure_of(result)
    assert "1 values in stop_time for 2 rows" in failure_of(result)
    assert documents.read_failures(house.store, MICE, house.settings) == {}
    assert house.publish().success
    published = documents.require_published(house.store, MICE, house.settings)
    assert (published.totals.sessions, published.missing) == (3, {})
    assert published.annotations is not None
    assert published.annotations.sessions == 2
    assert "2 of 3 sessions are annotated" in (house.hub_folder(MICE.name) / "README.md").read_text("utf-8")


def test_sessions_of_an_earlier_version_are_annotated_only_when_a_person_asks(
    archive: Path, new_house: Callable[..., House]
) -> None:
    house = new_house(archive=archive)
    house.build()
    for key in SESSIONS:
        record = documents.read_trains_record(house.store, MICE, house.settings, key)
        assert record is not None
        assert record.annotate
        path = f"{documents.trains_folder(MICE, house.settings)}/{key}.json"
        write_record(house.store, path, record.model_copy(update={"annotate": False}))
    due = dataset_due(house.store, MICE, house.settings, 1.0)
    assert (due.analyses, due.publish) == ({}, None)
    manifest = documents.read_manifest(house.store, MICE)
    standing = analysis_standing(house.store, MICE, house.settings, ANNOTATIONS, manifest)
    assert (standing.due, standing.on_request) == ({}, frozenset(SESSIONS))
    assert house.run(KEY, partitions=[SESSIONS[0]]).success
    assert list(read_annotations(house.store, MICE, house.settings, SESSIONS)) == [SESSIONS[0]]


def test_the_command_line_makes_them_on_request_and_says_where_they_stand(archive: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    source = f"{{archive: dandi, id: '{MICE.source.id}', version: draft}}"
    (home / "catalog.yaml").write_text(f"datasets:\n  - {{name: tiny-mice, title: Mice, source: {source}}}\n")
    places = {"NEURALPILE_HOME": home, "NEURALPILE_ARCHIVE": archive}
    assert neuralpile("build", "tiny-mice", "--limit", "1", **places).code == 0
    before = neuralpile("status", "tiny-mice", **places).out
    assert "tiny-mice annotations: 0 done, 0 failed, 3 to do (neuralpile build tiny-mice --annotations)" in before
    assert neuralpile("build", "tiny-mice", "--limit", "1", "--annotations", **places).code == 0
    assert "tiny-mice annotations: 1 done, 0 failed, 2 to do" in neuralpile("status", "tiny-mice", **places).out
