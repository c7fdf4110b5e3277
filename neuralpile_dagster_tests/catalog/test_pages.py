"""README's table of datasets and the pages under docs/datasets/."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.describe import bibtex, code, rule_in_words
from neuralpile_dagster.catalog.load import PACKAGE
from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.catalog.pages import (
    BEGIN,
    END,
    dataset_page,
    main,
    readme_table,
    stale,
    with_table,
    write_pages,
)
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.records import Citation

ROOT = Path(__file__).parents[2]
NEW = Dataset(
    name="new-one",
    title="A | title <b>with</b> [marks](x)",
    source=Source(id="990001", version="0.1.2"),
    species="mouse",
    tokens_published=1234,
)


def named(name: str) -> Dataset:
    return next(dataset for dataset in (*PACKAGE, *SAMPLE) if dataset.name == name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The README and pages, where a test may change them."""
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    shutil.copytree(ROOT / "docs" / "datasets", tmp_path / "docs" / "datasets")
    return tmp_path


def test_readme_and_pages_are_current():
    assert stale(ROOT, PACKAGE) == [], "run `python -m neuralpile_dagster.catalog.pages`"


def test_every_dataset_has_a_page_that_the_readme_links_to():
    readme = (ROOT / "README.md").read_text("utf-8")
    for dataset in PACKAGE:
        assert f"[{dataset.name}](docs/datasets/{dataset.name}.md)" in readme
        assert (ROOT / "docs" / "datasets" / f"{dataset.name}.md").is_file()


def test_the_check_changes_nothing_and_says_what_is_old(copy: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--check", "--root", str(copy)]) == 0
    (copy / "docs" / "datasets" / "vbn.md").write_text("old")
    (copy / "docs" / "datasets" / "ibl.md").unlink()
    assert main(["--check", "--root", str(copy)]) == 1
    assert capsys.readouterr().out.split("\n")[:2] == [
        "docs/datasets/vbn.md is not current",
        "docs/datasets/ibl.md is not current",
    ]
    assert (copy / "docs" / "datasets" / "vbn.md").read_text() == "old"
    assert main(["--root", str(copy)]) == 0
    assert main(["--check", "--root", str(copy)]) == 0


def test_one_more_row_gets_a_page_and_a_row_in_the_readme(copy: Path):
    rows = [*PACKAGE, NEW]
    page = copy / "docs" / "datasets" / "new-one.md"
    assert stale(copy, rows) == [copy / "README.md", page]
    assert write_pages(copy, rows) == [copy / "README.md", page]
    assert stale(copy, rows) == []
    (row,) = [line for line in (copy / "README.md").read_text().splitlines() if line.startswith("| [new-one]")]
    assert row == (
        r"| [new-one](docs/datasets/new-one.md) | A \| title &lt;b&gt;with&lt;/b&gt; \[marks\](x) "
        "| [dandi 990001](https://dandiarchive.org/dandiset/990001/0.1.2) | mouse | not known | 1,234 |"
    )
    assert "neuralpile build new-one" in page.read_text()


def test_the_page_of_a_dataset_that_is_gone_goes_and_pages_by_people_stay(copy: Path):
    write_pages(copy, [*PACKAGE, NEW])
    assert write_pages(copy, PACKAGE) == [copy / "README.md", copy / "docs" / "datasets" / "new-one.md"]
    assert not (copy / "docs" / "datasets" / "new-one.md").exists()
    assert (copy / "docs" / "datasets" / "adding.md").is_file()


def test_the_table_keeps_what_stands_around_it_and_is_appended_when_there_are_no_markers():
    around = f"# T\n\nbefore {BEGIN}old{END} after\n"
    updated = with_table(around, RODENT)
    assert updated.startswith("# T\n\nbefore <!--")
    assert updated.endswith("--> after\n")
    assert "old<" not in updated
    assert with_table(updated, RODENT) == updated
    appended = with_table("# T\n", RODENT)
    assert appended.startswith("# T\n\n## Datasets\n")
    assert with_table(appended, RODENT) == appended


@pytest.mark.parametrize("readme", [BEGIN, END, END + BEGIN, BEGIN + END + BEGIN + END])
def test_markers_that_are_no_pair_are_refused(readme: str):
    with pytest.raises(ConfigurationError, match="markers"):
        with_table(readme, RODENT)


def test_a_missing_readme_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"README\.md is not there"):
        main(["--root", str(tmp_path)])


def test_the_table_says_the_totals():
    rodents, primates = readme_table(PACKAGE).split("### `neural-pile-primate`")
    assert "25 datasets, 1,884 sessions, 452,793,851,799 tokens" in rodents
    assert "23 datasets, " in primates.split("### In no pile")[1]
    assert "18 datasets, 1,194 sessions, 34,152,054,193 tokens" in primates


@pytest.mark.parametrize("dataset", PACKAGE, ids=lambda dataset: dataset.name)
def test_a_page_says_where_from_which_files_how_many_and_how_to_cite(dataset: Dataset):
    page = dataset_page(dataset)
    assert f"({dataset.source.url})" in page
    for pattern in (*dataset.sessions.include, *dataset.sessions.exclude):
        assert f"`{pattern}`" in page
    for number in (dataset.tokens_published, dataset.sessions_due, dataset.subjects_published):
        assert number is None or f"| {number:,} |" in page
    assert ("the session rule was not tried" in page) != dataset.rule_checked
    assert ("none of its files was read yet" in page) != dataset.reader_checked
    assert f"neuralpile build {dataset.name}\n" in page
    assert page.count("@misc{") == 1
    assert page.count("\n- ") >= 5 + len(dataset.notes)


def test_the_page_of_a_draft_says_that_it_may_change():
    assert "may still change" in dataset_page(named("ibl"))
    assert "may still change" not in dataset_page(named("li"))


def test_the_page_of_synthetic_recordings_says_so_and_has_nothing_to_cite():
    page = dataset_page(named("sample-units"))
    assert "**SYNTHETIC" in page
    assert "bibtex" not in page
    assert bibtex(named("sample-units")) == ""


def test_bibtex_is_made_of_title_version_and_doi():
    assert bibtex(named("illusion")) == (
        "@misc{illusion_000248,\n"
        "  title = {{Allen Institute Openscope - Illusion project}},\n"
        "  publisher = {DANDI Archive},\n"
        "  version = {0.240502.2344},\n"
        "  doi = {10.48324/dandi.000248/0.240502.2344},\n"
        "  url = {https://doi.org/10.48324/dandi.000248/0.240502.2344},\n"
        "  note = {Paper: \\url{https://doi.org/10.1101/2023.06.05.543698}},\n"
        "}"
    )


def test_bibtex_prefers_the_metadata_of_the_source_and_cannot_be_broken_by_it():
    said = Citation(title="50% of\n{us} & #1\\", authors=("Doe, Jane", "A_B"), doi="10.1/x}y", url="https://a/{b}")
    entry = bibtex(named("ibl"), said, "0.1.2")
    assert r"author = {{Doe, Jane} and {A\_B}}" in entry
    assert r"title = {{50\% of \{us\} \& \#1\textbackslash{}}}" in entry
    assert "version = {0.1.2}" in entry
    assert "doi = {10.1/xy}" in entry
    assert "url = {https://a/b}" in entry


def test_a_paper_is_cited_beside_its_data():
    assert r"note = {Paper: \url{https://doi.org/10.1126/science.aav7893}}" in bibtex(named("steinmetz-2"))
    assert "](https://doi.org/10.1126/science.aav7893)" in dataset_page(named("steinmetz-2"))
    assert r"\url{https://www.cell.com/neuron/abstract/S0896-6273(24)00450-1}" in bibtex(named("shield"))
    assert "](https://www.cell.com/neuron/abstract/S0896-6273%2824%2900450-1)" in dataset_page(named("shield"))


def test_a_page_says_where_and_during_what_was_recorded():
    page = dataset_page(named("illusion"))
    assert "- Recorded areas: V1, LM, RL, AL, PM, AM\n- Recorded task: illusory contour stimuli\n" in page


def test_rules_are_told_in_words():
    rule = SessionRule(include=("a`b", "c"), exclude=("d",), requires=("Units", "LFP"))
    assert rule_in_words(rule) == [
        "The path matches ``a`b`` or `c`.",
        "It does not match `d`.",
        "The archive's metadata (`variableMeasured`) list `Units` and `LFP` for the file.",
        "`subject_id` is the nearest `sub-*` folder of the path, else the file's folder, "
        "`session_id` the file's name without extension.",
    ]
    grouped = " ".join(rule_in_words(named("lemerre").sessions))
    assert "units stacked" in grouped
    assert "`session` captures" in grouped
    assert "only one is read" in " ".join(rule_in_words(named("ibl").sessions))
    assert code("`a") == "`` `a ``"
