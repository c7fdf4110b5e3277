"""Annotations as Dagster makes them: a failure costs only them, and they make nothing else again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS, read_annotations
from neuralpile_dagster.ledger.due import PileDue, analysis_standing, dataset_due, pile_due
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.store import write_record
from neuralpile_dagster_tests.fixtures.house import (
    FILES,
    MICE,
    PILE_HUB_DATASET,
    SESSIONS,
    House,
    copy_of,
    failure_of,
    house,
    trains_of,
)
from neuralpile_dagster_tests.orchestration.checks.test_pile import merge
from neuralpile_dagster_tests.servers.nwb_files import rewrite, write_units_nwb

KEY = names.asset_key(MICE, ANNOTATIONS)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, new_archive: Callable[[], Path]) -> Iterator[House]:
    """The mice with two trials each, built and published; a table of the second session cannot be read."""
    archive = new_archive()
    for number, name in enumerate(FILES):
        trials = {"start_time": [1.0, 3.0], "stop_time": [2.0, 4.0], "columns": {"choice": ["left", "right"]}}
        columns = {"snr": [float(number)] * len(trains_of(number))}
        path = archive / MICE.source.folder / name
        write_units_nwb(path, trains_of(number), subject_id=name[4], intervals={"trials": trials}, columns=columns)
    rewrite(archive / MICE.source.folder / FILES[1], "intervals/trials/stop_time", [2.0])
    with house(tmp_path_factory.mktemp("annotated") / "home", archive) as made:
        made.build(checks=False)
        yield made


@pytest.fixture
def made(first: House, tmp_path: Path) -> Iterator[House]:
    """A copy to change."""
    with copy_of(first, tmp_path / "copy") as copied:
        yield copied


def stored(house: House) -> dict[str, int]:
    """Modification times of what was read, binned, planned and sent."""
    return {
        str(path.relative_to(house.settings.home)): path.stat().st_mtime_ns
        for path in house.settings.home.rglob("*")
        if path.is_file() and ("spike_" in str(path) or "/plans/" in str(path) or "/shards/" in str(path))
    }


def test_they_make_a_publication_due_once_and_nothing_else_again_and_an_unreadable_table_costs_only_its_session(
    made: House,
) -> None:
    merge(made)
    before, published = stored(made), documents.require_published(made.store, MICE, made.settings)
    assert published.annotations is None, "publishing does not wait for them"
    assert dataset_due(made.store, MICE, made.settings, 1.0).publish is None
    result = made.run(KEY, partitions=SESSIONS)
    assert "1 of 3 sessions of tiny-mice annotations failed; the others are done" in failure_of(result)
    assert "1 values in stop_time for 2 rows" in failure_of(result)
    assert documents.read_failures(made.store, MICE, made.settings) == {}, "the session itself did not fail"
    due = dataset_due(made.store, MICE, made.settings, 1.0)
    assert (due.sessions, due.analyses, due.why) == ({}, {}, "to publish with its annotations")
    assert made.publish().success
    assert dataset_due(made.store, MICE, made.settings, 1.0).publish is None
    annotated = documents.require_published(made.store, MICE, made.settings)
    assert (annotated.inputs, annotated.shards) == (published.inputs, published.shards)
    assert (annotated.totals.sessions, annotated.missing) == (3, {})
    assert annotated.annotations is not None
    assert (annotated.annotations.sessions, annotated.annotations.tables) == (2, {"trials": 4})
    assert "2 of 3 sessions are annotated" in (made.hub_folder(MICE.name) / "README.md").read_text("utf-8")
    pile = pile_due(made.store, NEURAL_PILE, made.datasets, made.settings)
    assert pile == PileDue(False, (), True, pile.inputs if pile else "")
    assert made.run(PILE_HUB_DATASET, checks=False).success
    assert pile_due(made.store, NEURAL_PILE, made.datasets, made.settings) is None
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).annotations
    assert (made.hub_folder("neural-pile") / "intervals" / "intervals.parquet").is_file()
    assert stored(made) == before


def test_sessions_of_an_earlier_version_are_annotated_only_when_a_person_asks(made: House) -> None:
    for key in SESSIONS:
        record = documents.read_trains_record(made.store, MICE, made.settings, key)
        assert record is not None
        assert record.annotate
        path = f"{documents.trains_folder(MICE, made.settings)}/{key}.json"
        write_record(made.store, path, record.model_copy(update={"annotate": False}))
    due = dataset_due(made.store, MICE, made.settings, 1.0)
    assert (due.analyses, due.publish) == ({}, None)
    manifest = documents.read_manifest(made.store, MICE)
    standing = analysis_standing(made.store, MICE, made.settings, ANNOTATIONS, manifest)
    assert (standing.due, standing.on_request) == ({}, frozenset(SESSIONS))
    assert made.run(KEY, partitions=[SESSIONS[0]]).success
    assert list(read_annotations(made.store, MICE, made.settings, SESSIONS)) == [SESSIONS[0]]
