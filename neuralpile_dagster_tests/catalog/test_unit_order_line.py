"""The line of a catalog.yaml that turns the order of units on: for which datasets, and errors about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralpile_dagster.catalog.load import check_user_catalog, find_dataset, load_catalog
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.settings import Settings

ROWS = """\
datasets:
  - {name: mine, title: Mine, source: {id: "990001"}}
  - {name: ours, title: Ours, source: {id: "990002"}, unit_order: %s}
"""


def settings_of(home: Path, text: str, archive: str = "dandi") -> Settings:
    (home / "catalog.yaml").write_text(text)
    return Settings(home=home, store=str(home / "store"), archive=archive)


def ordered(settings: Settings) -> set[str]:
    return {name for name, row in load_catalog(settings).items() if row.unit_order}


def test_it_is_off_without_a_line_and_on_where_a_row_says_so(tmp_path: Path):
    assert ordered(settings_of(tmp_path, ROWS % "false")) == set()
    assert ordered(settings_of(tmp_path, ROWS % "true")) == {"ours"}


def test_one_line_turns_it_on_for_every_dataset_but_those_whose_row_turns_it_off(tmp_path: Path):
    settings = settings_of(tmp_path, "unit_order: true\n" + ROWS % "false")
    catalog = load_catalog(settings)
    assert ordered(settings) == set(catalog) - {"ours"}
    assert {"mine", "vbn", "xiao"} <= ordered(settings)
    assert find_dataset(settings, catalog, "claar").unit_order, "also for those that are not shown"


def test_it_holds_for_the_synthetic_samples(tmp_path: Path):
    settings = settings_of(tmp_path, "unit_order: true\n", archive="sample")
    assert ordered(settings) == set(load_catalog(settings))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unit_order: ward\n" + ROWS % "true", "field unit_order; found: 'ward'; expected: true or false"),
        ("unit_orders: true\n" + ROWS % "true", "did you mean 'unit_order'?"),
        (ROWS % "ward", "row 2 ('ours'), field unit_order; found: 'ward'; expected: true or false"),
    ],
)
def test_another_value_is_refused_in_words(tmp_path: Path, text: str, said: str):
    with pytest.raises(CatalogError) as caught:
        check_user_catalog(settings_of(tmp_path, text).home / "catalog.yaml")
    assert said in str(caught.value)
