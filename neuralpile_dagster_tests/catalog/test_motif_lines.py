"""The lines of a catalog.yaml that turn motifs on: which datasets and piles have them, and errors about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralpile_dagster.catalog import model
from neuralpile_dagster.catalog.load import check_user_catalog, load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import CatalogError, ConfigurationError
from neuralpile_dagster.motifs import records
from neuralpile_dagster.publish.component import _NOT_PUBLISHED_OF_ROW
from neuralpile_dagster.settings import Settings

ROW = 'datasets:\n  - {name: mine, title: Mine, source: {id: "990001"}, tags: [own]}\n'
PILE = "piles:\n  - {name: ours, title: Ours, tags: [own]%s}\n"


def write(home: Path, text: str) -> Settings:
    (home / "catalog.yaml").write_text(text)
    return Settings(home=home, store=str(home / "store"), archive="dandi")


def loaded(home: Path, text: str) -> tuple[dict[str, Dataset], dict[str, Pile]]:
    settings = write(home, text)
    catalog = load_catalog(settings)
    return catalog, {pile.name: pile for pile in load_piles(settings, catalog.values())}


def test_without_a_line_no_dataset_and_no_pile_has_motifs(tmp_path: Path):
    catalog, piles = loaded(tmp_path, ROW + PILE % "")
    assert not any(row.motif_shapes for row in catalog.values())
    assert not any(pile.motif_shapes or pile.vocabulary_sizes for pile in piles.values())


def test_a_top_level_line_holds_for_every_pile_and_its_members(tmp_path: Path):
    catalog, piles = loaded(tmp_path, f"motif_shapes: [[1, 15]]\nvocabulary_sizes: [32000, 1_000]\n{ROW}{PILE % ''}")
    assert {row.motif_shapes for row in catalog.values()} == {((1, 15),)}
    assert {(p.motif_shapes, p.vocabulary_sizes) for p in piles.values()} == {(((1, 15),), (32_000, 1_000))}
    assert not any(pile.planned_with for pile in piles.values()), "no plan depends on them"


def test_a_table_may_have_fewer_rows_but_not_fewer_than_a_vocabulary(tmp_path: Path):
    lines = "motif_shapes: [[1, 15]]\nmotif_table_rows: 500\nvocabulary_sizes: [501]\n"
    _, piles = loaded(tmp_path, f"{lines}{ROW}{PILE % ', motif_table_rows: 600'}")
    assert (piles["ours"].motif_table_rows, piles["neural-pile"].motif_table_rows) == (600, 500)
    assert not any(pile.planned_with for pile in piles.values())
    for text in (lines.replace("[501]", "[502]") + ROW, lines + ROW + PILE % ", motif_table_rows: 499"):
        write(tmp_path, text)
        with pytest.raises(CatalogError, match="needs motif_table_rows of 50"):
            check_user_catalog(tmp_path / "catalog.yaml")


def test_a_top_level_line_holds_for_the_synthetic_samples(tmp_path: Path):
    settings = write(tmp_path, "motif_shapes: [[1, 15]]\n" + ROW)
    sample = Settings(home=tmp_path, store=settings.store, archive="sample")
    assert {row.motif_shapes for row in load_catalog(sample).values()} == {((1, 15),)}
    assert [pile.motif_shapes for pile in load_piles(sample, load_catalog(sample).values())] == [((1, 15),)]


def test_a_pile_states_its_own_lines_instead_and_only_its_members_have_them(tmp_path: Path):
    stated = ", seed: 3, motif_shapes: [[2, 4], [1, 15]], vocabulary_sizes: [500]"
    catalog, piles = loaded(tmp_path, ROW + PILE % stated)
    assert (piles["ours"].motif_shapes, piles["ours"].vocabulary_sizes) == (((2, 4), (1, 15)), (500,))
    assert {name for name, row in catalog.items() if row.motif_shapes} == {"mine"}
    assert piles["ours"].planned_with == {"seed": 3}
    catalog, piles = loaded(
        tmp_path, f"motif_shapes: [[1, 15]]\nvocabulary_sizes: [9]\n{ROW}{PILE % ', motif_shapes: []'}"
    )
    assert (piles["ours"].motif_shapes, piles["ours"].vocabulary_sizes) == ((), ())
    assert catalog["mine"].motif_shapes == ()
    assert catalog["vbn"].motif_shapes == ((1, 15),)


def test_a_dataset_has_the_shapes_of_its_row_and_of_its_piles_once(tmp_path: Path):
    row = ROW.replace("tags:", "motif_shapes: [[3, 3], [1, 15]], tags:")
    catalog, _ = loaded(tmp_path, "motif_shapes: [[1, 15], [2, 2]]\n" + row + PILE % "")
    assert catalog["mine"].motif_shapes == ((3, 3), (1, 15), (2, 2))


def test_shapes_of_a_row_enter_no_hash_of_what_is_published(tmp_path: Path):
    (plain,) = check_user_catalog(write(tmp_path, ROW).home / "catalog.yaml")
    shaped = plain.model_copy(update={"motif_shapes": ((1, 15),)})
    assert "motif_shapes" not in plain.model_dump()
    assert shaped.model_dump(exclude=_NOT_PUBLISHED_OF_ROW) == plain.model_dump(exclude=_NOT_PUBLISHED_OF_ROW)


def test_the_catalog_and_the_motifs_agree_on_the_largest_shape():
    assert model.MAX_MOTIF_CELLS == records.MAX_CELLS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("motif_shapes: 1x15", "catalog.yaml, field motif_shapes; found: '1x15'; expected: a list."),
        ("motif_shapes: [1, 15]", "field motif_shapes.0: 1 is not a shape of motifs; expected: [units, bins]"),
        ("motif_shapes: [[1, 15, 2]]", "is not a shape of motifs; expected: [units, bins], e.g. [1, 15]"),
        ("motif_shapes: [[1, x]]", "is not a shape of motifs; expected: [units, bins], e.g. [1, 15]"),
        ("motif_shapes: [[0, 15]]", "[0, 15] is not a shape of motifs; expected: units x bins of 1 to 64"),
        ("motif_shapes: [[5, 13]]", "[5, 13] is not a shape of motifs; expected: units x bins of 1 to 64"),
        ("motif_shapes: [[1, 15], [1, 15]]", "field motif_shapes: [1, 15] is there twice"),
        ("motif_shapes: [[1, 15]]\nvocabulary_sizes: [2]", "field vocabulary_sizes.0; found: '2'; expected: greater"),
        (
            "motif_shapes: [[1, 15]]\nvocabulary_sizes: [32k]",
            "field vocabulary_sizes.0; found: '32k'; expected: a whole",
        ),
        ("vocabulary_sizes: [32000]", "catalog.yaml: vocabulary_sizes needs motif_shapes, e.g. [[1, 15]]"),
        (
            "motif_shapes: [[4, 10]]\nvocabulary_sizes: [32000]",
            "a vocabulary of motifs of [4, 10] is impossible; expected: shapes of at most 32 cells",
        ),
        ("motif_shape: [[1, 15]]", "unknown top-level keys: 'motif_shape'; expected: one top-level key `datasets`"),
        ("motif_shape: [[1, 15]]", "did you mean 'motif_shapes'?"),
        (PILE % ", vocabulary_sizes: [32000]", "pile 1 ('ours'): vocabulary_sizes needs motif_shapes"),
        (PILE % ", motif_shapes: [15]", "pile 1 ('ours'), field motif_shapes.0: 15 is not a shape of motifs"),
        (
            "motif_shapes: [[5, 8]]\n" + PILE % ", vocabulary_sizes: [32000]",
            "pile 1 ('ours'): a vocabulary of motifs of [5, 8] is impossible",
        ),
        (ROW.replace("tags:", "motif_shapes: [[1]], tags:"), "row 1 ('mine'), field motif_shapes.0: [1] is not"),
    ],
)
def test_a_wrong_line_is_refused_in_words(tmp_path: Path, text: str, said: str):
    settings = write(tmp_path, text if "datasets:" in text else f"{text}\n{ROW}")
    with pytest.raises(CatalogError) as caught:
        check_user_catalog(settings.home / "catalog.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        ROW.replace("name: mine", "name: neural-pile-1x15-9"),
        ROW + PILE.replace("name: ours", "name: neural-pile-1x15-9") % "",
    ],
)
def test_a_name_that_the_motifs_of_a_pile_are_published_under_is_taken(tmp_path: Path, text: str):
    lines = "motif_shapes: [[1, 15]]\nvocabulary_sizes: [9]\n"
    with pytest.raises(CatalogError, match=r"the name neural-pile-1x15-9 is taken.*motifs of the pile neural-pile,"):
        loaded(tmp_path, lines + text)
    loaded(tmp_path, text)  # without motifs nothing is published there


def test_another_name_of_the_pile_may_not_meet_one_with_its_motifs(tmp_path: Path):
    settings = write(tmp_path, "motif_shapes: [[1, 15]]\n" + ROW.replace("name: mine", "name: other-1x15"))
    named = Settings(home=tmp_path, store=settings.store, archive="dandi", pile_name="other")
    with pytest.raises(ConfigurationError, match=r"NEURALPILE_PILE_NAME is invalid"):
        load_piles(named, load_catalog(named).values())
