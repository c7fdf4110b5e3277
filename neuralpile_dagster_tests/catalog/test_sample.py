"""The rows of the sample against the sample archive itself."""

from __future__ import annotations

import pytest

from neuralpile_dagster.archives.folder import SampleArchive
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions
from neuralpile_dagster_tests.fixtures.once import put_sample


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SampleArchive:
    home = tmp_path_factory.mktemp("home")
    put_sample(home)
    return SampleArchive(home)


@pytest.mark.parametrize("dataset", SAMPLE, ids=lambda dataset: dataset.name)
def test_the_sample_has_the_sessions_that_its_rows_expect(archive: SampleArchive, dataset: Dataset):
    manifest = choose_sessions(dataset, archive.list_files(dataset.source), None)
    assert len(manifest.sessions) == dataset.sessions_expected
    assert manifest.synthetic
    assert manifest.chosen + sum(manifest.dropped.values()) == manifest.considered


def test_the_sample_shows_stacked_probes_a_dropped_file_and_subjects_by_name(archive: SampleArchive):
    made: dict[str, Manifest] = {
        dataset.name: choose_sessions(dataset, archive.list_files(dataset.source), None) for dataset in SAMPLE
    }
    assert [len(session.files) for session in made["sample-probes"].sessions] == [2, 3]
    assert made["sample-units"].dropped == {"metadata has no Units": 1}
    assert len({session.subject_id for session in made["sample-units"].sessions}) == 2
    assert [session.subject_id for session in made["sample-eight-probe"].sessions] == ["SampleA", "SampleB"]
