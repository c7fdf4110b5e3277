"""The rows of the package against the document of facts they were taken from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from neuralpile_dagster.catalog.beyond import BEYOND
from neuralpile_dagster.catalog.describe import hashed_row
from neuralpile_dagster.catalog.load import PACKAGE, PUBLISHED
from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.catalog.piles import BUILT_IN, NEURAL_PILE, PRIMATE_PILE, piles_of
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.publish.component import _NOT_PUBLISHED_OF_ROW

READERS = {
    "units": "units",
    "units, grouped": "units",
    "firing rates": "firing_rates",
    "eight-probe mat": "eight_probe_mat",
}
ELSEWHERE = {"card", "lanzarini", "makin", "papale", "rajalingham", "willett", "wojcik"}
"""Datasets of the published primate pile that are on no DANDI server."""
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


def test_papers_areas_and_tasks_are_those_of_the_published_datasets_pages(shared_data: Path):
    path = shared_data / "published_facts.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    facts = {fact["name"]: fact for fact in json.loads(path.read_text())}
    assert set(facts) - ELSEWHERE == {dataset.name for dataset in PUBLISHED}
    for dataset in PUBLISHED:
        fact = facts[dataset.name]
        assert dataset.paper_doi == fact["paper_doi"], dataset.name
        stated = None if fact["paper_doi"] or fact["paper_url"] == "N/A" else fact["paper_url"]
        assert (str(dataset.paper_url) if dataset.paper_url else None) == stated, dataset.name
        for area in dataset.areas:
            assert area.lower() in fact["recorded"].lower(), (dataset.name, area)
        words = set(re.findall(r"[\w-]+", fact["recorded"].lower()))
        assert set(re.findall(r"[\w-]+", dataset.task.lower())) <= words, (dataset.name, dataset.task)
        assert dataset.areas and dataset.task


def test_a_papers_facts_are_in_no_hash_and_a_users_own_are():
    """The rows as the version before them had them: 24 without a paper, steinmetz-2 with its DOI, none with more."""
    later = {"tags", "rule_checked", "reader_checked"}  # which `component_inputs` leaves out, too
    for dataset in RODENT:
        row = hashed_row(dataset, later)
        assert not later - _NOT_PUBLISHED_OF_ROW
        assert row["paper_doi"] == ("10.1126/science.aav7893" if dataset.name == "steinmetz-2" else None)
        assert not {"paper_url", "areas", "task"} & set(row)
        assert set(row) == set(dataset.model_dump()) - {"paper_url", "areas", "task", *later}
    mine = RODENT[0].model_copy(update={"name": "mine", "task": "running"})
    assert hashed_row(mine, set())["task"] == "running"


def test_only_lemerre_is_expected_to_have_other_than_the_published_sessions():
    assert [(d.name, d.sessions_published, d.sessions_expected) for d in RODENT if d.sessions_expected] == [
        ("lemerre", 74, 50)
    ]


def test_the_primate_rows_say_what_was_tried_on_real_listings(shared_data: Path):
    path = shared_data / "primate_rows.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    tried = yaml.safe_load(path.read_text())["datasets"]
    assert [row["name"] for row in tried] == [dataset.name for dataset in PRIMATE]
    for row, dataset in zip(tried, PRIMATE, strict=True):
        assert dataset.source == Source.model_validate(row["source"])
        assert dataset.sessions == SessionRule.model_validate(row["sessions"])
        for field in ("species", "tokens_published", "sessions_published", "subjects_published"):
            assert getattr(dataset, field) == row[field], (dataset.name, field)
        assert dataset.sessions_expected == row.get("sessions_expected", "unknown" if row["name"] == "temmar" else None)
        assert not dataset.reader_checked
    assert [row.name for row in PRIMATE if not row.rule_checked] == ["xiao", "chen", "kim", "even-chen"]
    assert sum(row.tokens_published or 0 for row in PRIMATE) == 34_152_054_193


def test_the_further_rows_say_what_was_tried_on_real_listings(shared_data: Path):
    path = shared_data / "beyond_rows.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    rows = {dataset.name: dataset for dataset in BEYOND}
    for tried in yaml.safe_load(path.read_text())["datasets"]:
        dataset = rows[tried["name"]]
        assert (dataset.source.id, dataset.species) == (tried["source"]["id"], tried["species"])
        assert dataset.sessions == SessionRule.model_validate(tried["sessions"])
        assert dataset.sessions_due == tried["sessions_expected"]
    assert len(rows) == 23
    assert not any(dataset.reader_checked or dataset.tokens_published for dataset in BEYOND)
    benchmarks = {"mc-maze", "mc-rtt", "mc-maze-large", "mc-maze-medium", "mc-maze-small"}
    assert {dataset.name for dataset in BEYOND if dataset.hold_out} == benchmarks


def test_the_piles_are_the_published_ones_and_take_the_users_untagged_rows():
    mine = RODENT[0].model_copy(update={"name": "mine", "tags": ()})
    rows = [*RODENT, *PRIMATE, *BEYOND, mine]
    assert NEURAL_PILE.members(rows) == [*RODENT, mine]
    assert PRIMATE_PILE.members(rows) == list(PRIMATE)
    assert piles_of(BUILT_IN, SAMPLE) == [NEURAL_PILE]


@pytest.mark.parametrize("dataset", [*PACKAGE, *SAMPLE], ids=lambda dataset: dataset.name)
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
    rows = [*PACKAGE, *SAMPLE, *BUILT_IN]
    assert len({dataset.key for dataset in rows}) == len({dataset.name for dataset in rows}) == len(rows)
