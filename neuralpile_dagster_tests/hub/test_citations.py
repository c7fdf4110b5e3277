"""What a pile says of how to cite its components: CITATION.bib and the card's section."""

from __future__ import annotations

from pathlib import Path

import bibtexparser
import pytest

from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.publish.card_parts import bibliography, cite_dataset, cite_lines, cite_repository
from neuralpile_dagster.records import Citation, ComponentCitation, PileRecord
from neuralpile_dagster_tests.fixtures.piles import Pile

NASTY = Citation(
    title="50% of\n{us} & #1 @misc{x, \\ *bold* <b>",
    authors=("Doe, Jane", "A_B", "Näme, Ünï {x", "Fourth, The"),
    doi="10.48324/dandi.000409",
)


def entries(text: str) -> dict[str, dict[str, str]]:
    """The entries of a bibliography, by key; whatever the reader could not understand is an error."""
    library = bibtexparser.parse_string(text)
    assert library.failed_blocks == []
    return {entry.key: {field.key: field.value for field in entry.fields} for entry in library.entries}


def cited(*extra: tuple[str, ComponentCitation]) -> dict[str, ComponentCitation]:
    return {row.name: cite_dataset(row, NASTY, "0.1") for row in RODENT} | dict(extra)


def test_the_bibliography_has_an_entry_for_every_component_and_a_bibtex_reader_reads_it():
    foreign = (
        "théir @pile",
        cite_repository("théir @pile", "other-lab/their_pile", "https://hub/other-lab/their_pile"),
    )
    found = entries(bibliography(cited(foreign)))
    assert [key for key in found if key.startswith("th")] == ["th-ir-pile_other-lab_their-pile"]
    assert found.pop("th-ir-pile_other-lab_their-pile")["url"] == "https://hub/other-lab/their_pile"
    assert list(found) == [f"{row.name}_{row.source.id}" for row in RODENT]
    for row in RODENT:
        entry = found[f"{row.name}_{row.source.id}"]
        assert entry["doi"] == "10.48324/dandi.000409"
        assert "Doe, Jane" in entry["author"] and "Fourth, The" in entry["author"]
        if row.paper:
            assert row.paper in entry["note"]


def test_synthetic_components_are_named_as_such_and_have_no_entry():
    text = bibliography({row.name: cite_dataset(row, Citation(), "1") for row in SAMPLE})
    assert entries(text) == {}
    for row in SAMPLE:
        assert f"% {row.name}: synthetic" in text


def test_the_card_names_three_authors_then_et_al_the_title_and_the_doi():
    (line,) = cite_lines({"ibl": cite_dataset(next(row for row in RODENT if row.name == "ibl"), NASTY, "0.1")})[2:]
    assert line == (
        r"- ibl: Doe, Jane; A\_B; Näme, Ünï {x et al. 50% of {us} &amp; #1 @misc{x, \\ \*bold\* &lt;b&gt;"
        ". [10.48324/dandi.000409](https://doi.org/10.48324/dandi.000409)"
    )


def test_without_metadata_the_catalogs_row_is_cited():
    row = next(row for row in RODENT if row.name == "illusion")
    citation = cite_dataset(row, Citation(), "0.1")
    assert (citation.title, citation.doi, citation.url) == (row.title, row.doi, row.source.url)


@pytest.mark.parametrize("page", [None, "https://hub/other-lab/pile"])
def test_a_repository_of_another_owner_is_cited_by_its_readme(page: str | None):
    (line,) = cite_lines({"aa": cite_repository("aa", "other-lab/pile", page)})[2:]
    words = "the README of other-lab/pile"
    assert line == f"- aa: see {f'[{words}]({page}#readme)' if page else words}"


def test_the_piles_repository_holds_the_bibliography_and_its_card_the_lines(tmp_path: Path):
    record = Pile(tmp_path).write(tmp_path / "pile")
    assert set(entries((tmp_path / "pile" / "CITATION.bib").read_text())) == {"mice_990002", "rats_990002"}
    card = (tmp_path / "pile" / "README.md").read_text()
    section = card.split("## Cite")[1].split("##")[0]
    assert "- mice: Doe, Jane; Roe, Richard. Mice that run. [10.48324/mice](https://doi.org/10.48324/mice)" in section
    assert set(record.citations) == {"mice", "rats"}


def test_a_record_of_before_has_no_citations_and_stays_as_it_is(tmp_path: Path):
    record = Pile(tmp_path).write(tmp_path / "pile").model_copy(update={"citations": {}})
    stored = record.model_dump_json()
    assert "citations" not in stored
    assert PileRecord.model_validate_json(stored) == record
