"""The rows of the package against the document of facts they were taken from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE

READERS = {
    "units": "units",
    "units, grouped": "units",
    "firing rates": "firing_rates",
    "eight-probe mat": "eight_probe_mat",
}
ROW = re.compile(r"^\| ([a-z0-9-]+) \| (dandi|figshare) (\d+) \| (.*) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def facts(shared_data: Path) -> str:
    path = shared_data.parent / "datasets.md"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return path.read_text()


def number(cell: str) -> int:
    return int(re.sub(r"\([abc]\)|,", "", cell))


def test_the_totals_are_those_of_the_published_pile():
    assert len(RODENT) == 25
    assert sum(dataset.tokens_published or 0 for dataset in RODENT[:18]) == 441_465_416_046
    assert sum(dataset.tokens_published or 0 for dataset in RODENT) == 452_793_851_799
    assert sum(dataset.sessions_published or 0 for dataset in RODENT) == 1_908
    assert sum(dataset.sessions_due or 0 for dataset in RODENT) == 1_884
    assert max(dataset.sessions_due or 0 for dataset in RODENT) == 349


def test_every_row_says_what_the_table_of_facts_says_in_its_order(facts: str):
    rows = ROW.findall(facts)
    assert [row[0] for row in rows] == [dataset.name for dataset in RODENT]
    for dataset, (_, archive, source_id, rest) in zip(RODENT, rows, strict=True):
        # the rule's own cell may hold a |, so the columns are taken from both ends
        version, *_, reader, tokens, sessions, subjects, species = rest.split(" | ")
        expected_version = version if version[0] == "0" or version == "draft" else "latest"
        assert (dataset.source.archive, dataset.source.id) == (archive, source_id)
        assert dataset.source.version == expected_version, dataset.name
        assert dataset.reader == READERS[reader]
        assert dataset.tokens_published == number(tokens)
        assert dataset.sessions_published == number(sessions)
        assert dataset.subjects_published == number(subjects)
        assert dataset.species == species
        assert bool(re.search(r"\([abc]\)", rest)) == any(
            "published" in note or "number" in note for note in dataset.notes if "S3" not in note
        ), dataset.name


def test_titles_and_dois_are_those_of_the_facts_and_no_other_doi_is_claimed(facts: str):
    titled = re.findall(r'(\d{6}) "([^"]+)" (10\.48324/\S+?)[;.]', facts.split("## Titles and DOIs")[1])
    dois = {
        source_id: (title, doi)
        for source_id, title, doi in re.findall(r'(\d{6}) "([^"]+)" (10\.48324/dandi\.\d{6}/[\d.]*\d)', facts)
    }
    assert len(dois) == len(titled) == 14
    for dataset in RODENT:
        if dataset.source.id in dois:
            assert (dataset.title, dataset.doi) == dois[dataset.source.id]
            assert dataset.doi is not None and dataset.doi.endswith(dataset.source.version)
        else:
            assert dataset.doi is None
        assert dataset.paper_doi == ("10.1126/science.aav7893" if dataset.name == "steinmetz-2" else None)


def test_only_lemerre_is_expected_to_have_other_than_the_published_sessions():
    assert [(d.name, d.sessions_published, d.sessions_expected) for d in RODENT if d.sessions_expected] == [
        ("lemerre", 74, 50)
    ]


@pytest.mark.parametrize("dataset", [*RODENT, *SAMPLE], ids=lambda dataset: dataset.name)
def test_a_row_survives_being_written_down(dataset: Dataset):
    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset


def test_synthetic_rows_say_so_wherever_they_are_named():
    for dataset in SAMPLE:
        assert dataset.synthetic
        assert dataset.source.archive == "sample"
        assert dataset.name.startswith("sample-")
        assert dataset.title.startswith("SYNTHETIC")
        assert dataset.description.startswith("SYNTHETIC")
        assert dataset.tokens_published is None
    assert not any(dataset.synthetic for dataset in RODENT)
    assert {d.source.id for d in SAMPLE}.isdisjoint(d.source.id for d in RODENT)


def test_names_and_keys_are_unique():
    rows = [*RODENT, *SAMPLE]
    assert len({dataset.key for dataset in rows}) == len({dataset.name for dataset in rows}) == len(rows)
