"""The named jobs: retry what failed in one run, build a dataset, publish all that is due."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, cut, failure_of

NewHouse = Callable[..., House]
COUNTS = names.spike_counts_key(MICE)


def launch(made: House, name: str, **config: Any) -> dg.ExecuteInProcessResult:
    """Run a job as the launchpad does, with the same configuration for each of its ops."""
    job = build_definitions(made.settings, made.datasets).get_job_def(name)
    ops = {node.name: {"config": config} for node in job.graph.nodes} if config else {}
    return job.execute_in_process(
        instance=made.instance, run_config={"loggers": {"progress": {}}, "ops": ops}, raise_on_error=False
    )


def runs(made: House) -> int:
    return made.instance.get_runs_count()


def test_there_is_a_job_to_retry_one_to_publish_and_one_for_each_dataset(tmp_path: Any) -> None:
    settings = Settings(home=tmp_path, store=str(tmp_path / "store"))
    jobs = {job.name for job in build_definitions(settings).get_repository_def().get_all_jobs()}
    builds = {f"build_{row.key}" for row in load_catalog(settings).values()}
    assert {name for name in jobs if not name.startswith("__")} == {"retry_failed", "publish_all"} | builds


def test_scattered_failed_sessions_are_retried_in_one_run(new_house: NewHouse) -> None:
    made = new_house()
    folder = made.archive / MICE.source.folder
    whole = {name: (folder / name).read_bytes() for name in (FILES[0], FILES[2])}
    for name in whole:
        cut(folder / name)
    assert not made.batch(made.discover()).success
    (folder / FILES[0]).write_bytes(whole[FILES[0]])
    before = runs(made)
    result = launch(made, "retry_failed")
    assert runs(made) == before + 1
    assert "1 of 2 failed partitions failed; the others are done. tiny-mice sub-B_ses-3" in failure_of(result)
    assert made.made(COUNTS) == set(SESSIONS[:2])
    assert list(documents.read_failures(made.store, MICE, made.settings)) == [SESSIONS[2]]
    (folder / FILES[2]).write_bytes(whole[FILES[2]])
    assert launch(made, "retry_failed", datasets=[MICE.name]).success
    assert made.made(COUNTS) == set(SESSIONS)
    verdict = made.checks(COUNTS, "spikes_conserved")[0]
    assert verdict.metadata["found"].value == "3 of 3 known sessions pass"


def test_retrying_where_nothing_failed_succeeds_and_an_unknown_dataset_is_refused(new_house: NewHouse) -> None:
    made = new_house()
    assert launch(made, "retry_failed").success
    assert "tiny-mouse" in failure_of(launch(made, "retry_failed", datasets=["tiny-mouse"]))


def test_a_dataset_is_built_from_its_listing_to_its_publication_with_one_launch(new_house: NewHouse) -> None:
    made = new_house()
    result = launch(made, "build_tiny_mice")
    assert result.success
    assert made.made(COUNTS) == set(SESSIONS)
    assert documents.read_published(made.store, MICE, made.settings) is not None
    parts = made.instance.get_runs(dg.RunsFilter(tags={"neuralpile/job_run": result.run_id}))
    assert len(parts) == 3, "manifest, sessions, publication: runs of assets, with their checks"
    assert all(run.is_success for run in parts)


def test_building_a_dataset_with_a_failed_session_says_why_it_is_not_published(new_house: NewHouse) -> None:
    made = new_house()
    cut(made.archive / MICE.source.folder / FILES[1])
    message = failure_of(launch(made, "build_tiny_mice"))
    assert "1 session failed" in message
    assert "not published, because 1 of 3 sessions failed" in message
    assert launch(made, "build_tiny_mice", min_session_share=0.5).success


@pytest.fixture
def unpublished(built_house: NewHouse) -> House:
    """Mice that are done and not published, beside others that nobody started."""
    made = built_house()
    made.datasets = [MICE, MICE.model_copy(update={"name": "other-mice"})]
    made.store.delete(documents.published_path(MICE, made.settings))
    shutil.rmtree(made.settings.home / "hub")
    return made


def test_publishing_all_publishes_what_is_done_and_the_pile_and_leaves_the_rest(unpublished: House) -> None:
    made = unpublished
    assert launch(made, "publish_all").success
    assert piles.require_published(made.store, NEURAL_PILE, made.settings).components == (MICE.name,)
    before = runs(made)
    assert launch(made, "publish_all").success
    assert runs(made) == before + 1, "nothing was due"


@pytest.mark.parametrize("name", ["build_tiny_mice", "publish_all"])
def test_a_job_that_cannot_do_its_work_fails_in_words(unpublished: House, name: str) -> None:
    (unpublished.settings.home / "hub").write_text("in the way")
    shutil.rmtree(unpublished.archive)
    assert "Failure" in failure_of(launch(unpublished, name))
