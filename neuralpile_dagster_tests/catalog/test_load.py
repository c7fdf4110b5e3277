"""The user's own datasets, and the errors that a wrong row gives."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.beyond import BEYOND
from neuralpile_dagster.catalog.load import (
    PUBLISHED,
    check_user_catalog,
    find_dataset,
    get_dataset,
    load_catalog,
    load_piles,
    read_user_catalog,
)
from neuralpile_dagster.catalog.piles import BUILT_IN, NEURAL_PILE, PRIMATE_PILE
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.errors import CatalogError, ConfigurationError
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.servers.listings import listing_of

GOOD = """\
datasets:
  - name: mine
    title: My recordings
    source: {id: "990001", version: draft}
"""


def settings(home: Path, archive: str = "dandi") -> Settings:
    return Settings(home=home, store=str(home / "store"), archive=archive)


def write(home: Path, text: str | bytes) -> Path:
    path = home / "catalog.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(home: Path, text: str | bytes) -> str:
    write(home, text)
    with pytest.raises(CatalogError) as caught:
        load_catalog(settings(home))
    assert str(home / "catalog.yaml") in str(caught.value)
    return str(caught.value)


def test_without_a_file_the_catalog_is_the_datasets_of_the_published_piles_in_order(tmp_path: Path):
    assert list(load_catalog(settings(tmp_path)).values()) == [*RODENT, *PRIMATE]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "datasets:\n", "datasets: []\n"])
def test_a_file_without_rows_adds_none(tmp_path: Path, text: str):
    write(tmp_path, text)
    assert len(load_catalog(settings(tmp_path))) == len(PUBLISHED)


def test_a_row_of_the_user_comes_last(tmp_path: Path):
    write(tmp_path, GOOD)
    catalog = load_catalog(settings(tmp_path, "/data/dandisets"))
    assert list(catalog)[-1] == "mine"
    assert len(catalog) == len(PUBLISHED) + 1
    assert catalog["mine"].source.id == "990001"


def test_the_sample_archive_shows_only_synthetic_rows(tmp_path: Path):
    write(tmp_path, GOOD)
    assert list(load_catalog(settings(tmp_path, "sample")).values()) == list(SAMPLE)


def test_ids_and_versions_need_no_quotes_and_are_not_numbers(tmp_path: Path):
    (row,) = check_user_catalog(
        write(tmp_path, "datasets:\n  - {name: no, title: 12, source: {id: 000017, version: 0.240329.10}, doi: null}\n")
    )
    assert (row.name, row.title, row.source.id, row.source.version, row.doi) == (
        "no",
        "12",
        "000017",
        "0.240329.10",
        None,
    )


def test_numbers_and_truth_values_are_read_where_the_form_has_them(tmp_path: Path):
    (row,) = check_user_catalog(
        write(
            tmp_path,
            GOOD.replace("name: mine", "name: sample-mine\n    synthetic: true\n    tokens_published: 1_000"),
        )
    )
    assert (row.synthetic, row.tokens_published) == (True, 1000)


def test_every_row_of_the_package_can_be_written_as_yaml(tmp_path: Path):
    import yaml

    rows = [dataset.model_dump(mode="json") | {"name": f"my-{dataset.name}"} for dataset in RODENT]
    read = check_user_catalog(write(tmp_path, yaml.safe_dump({"datasets": rows})))
    assert [row.model_copy(update={"name": row.name[3:]}) for row in read] == list(RODENT)


def test_the_documented_example_is_a_good_catalog(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "datasets" / "adding.md").read_text()
    (example,) = re.findall(r"```yaml\n(datasets:.*?)```", page, re.DOTALL)
    simple, grouped, moved, rasters, own = check_user_catalog(write(tmp_path, example))
    assert moved.reader_options == {"table": "/processing/ecephys/units"}
    assert get_reader(rasters.reader).configured(rasters.reader_options).bins_of("sub-slow").sum_bins == 2
    assert (own.source.label, own.license, own.authors[0]) == ("folder 2021", "CC-BY-4.0", "Prefect, Ford")
    paths = ["sub-1/sub-1_ses-a_behavior+ecephys.nwb", "sub-1/sub-1_ses-a_test.nwb"]
    assert len(choose_sessions(simple, listing_of(*paths, source_id=simple.source.id), None).sessions) == 1
    probes = [f"sub-1/sub-1_ses-a_probe{probe}.nwb" for probe in range(3)]
    (session,) = choose_sessions(grouped, listing_of(*probes, source_id=grouped.source.id), None).sessions
    assert (session.subject_id, session.session_id, len(session.files)) == ("sub-1", "ses-a", 3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: mine", "name: Mine!", ["row 1 ('Mine!')", "field name", "found: 'Mine!'"]),
        ("name: mine", "name: neural-pile", ["merged pile"]),
        ("name: mine", "name: sample-mine", ["'sample-'", "synthetic"]),
        ("name: mine", "name: vbn", ["field name", "taken", "comes with the package"]),
        ("name: mine", "name: sample-units\n    synthetic: true", ["taken"]),
        (
            "title: My recordings",
            "titel: x",
            ["field titel", "unknown field", "did you mean 'title'", "field title: is missing"],
        ),
        ("title: My recordings", "title: ' '", ["field title", "must not be empty"]),
        ("title: My recordings", 'title: "a\\u202eb"', ["field title", "control characters"]),
        ("version: draft", "verson: draft", ["field source.verson", "did you mean 'version'"]),
        ('id: "990001"', 'id: "../../etc"', ["field source.id", "'../../etc'"]),
        ("source: {", "source: {archive: zenodo, ", ["field source.archive", "'zenodo'", "'dandi'"]),
        ("source: {", "source: {archive: sample, ", ["field source.archive", "'dandi' or 'figshare'"]),
        ('{id: "990001", version: draft}', "{archive: folder}", ["field source", "belong together"]),
        ("title:", "reader: matlab\n    title:", ["field reader", "'matlab'", "'firing_rates'"]),
        ("title:", "reader_options: {tabel: /a}\n    title:", ["reader_options.tabel", "did you mean 'table'"]),
        ("title:", "reader: binned_series\n    title:", ["row 1 ('mine')", "missing bin_width_s and path"]),
        (
            "title:",
            "reader: unit\n    titel: x\n    title:",
            ["field titel", "field reader: there is no reader 'unit'; expected: one of 'units',", "mean 'units'?"],
        ),
        (
            "title:",
            "tokens_published: many\n    title:",
            ["field tokens_published", "found: 'many'; expected: a whole number."],
        ),
        ("title:", "synthetic: maybe\n    title:", ["field synthetic", "expected: true or false."]),
        ("title: My recordings", "title: [a, b]", ["field title", "found: ['a', 'b']; expected: a text."]),
        ("title:", "notes: just one\n    title:", ["field notes; found: 'just one'; expected: a list."]),
        ("title:", "severity: [no_doubles]\n    title:", ["field severity", "expected: a mapping, `key: value` on"]),
        ("title:", "sessions: all\n    title:", ["field sessions; found: 'all'; expected: a mapping, `key: value` on"]),
        ("title:", "sessions: {include: .nwb}\n    title:", ["field sessions.include", "expected: a list."]),
        ("title:", "sessions: {include: []}\n    title:", ["sessions.include", "expected: a list of at least 1."]),
        ("title:", "tokens_published: -1\n    title:", ["field tokens_published", "greater than or equal to 0"]),
        ("title:", "sessions: {include: ['(']}\n    title:", ["field sessions.include.0", "not a regular expression"]),
        (
            "title:",
            "sessions: {include: ['a{99999999999}']}\n    title:",
            ["sessions.include.0", "not a regular expression"],
        ),
        ("title:", "sessions: {include: ['']}\n    title:", ["sessions.include.0"]),
        ("title:", "sessions: {include: []}\n    title:", ["sessions.include", "at least 1"]),
        ("title:", "sessions: {include: nwb}\n    title:", ["field sessions.include", "'nwb'", "expected: a list."]),
        ("title:", "sessions: {several: stack}\n    title:", ["field sessions", "needs same_session"]),
        ("title:", "sessions: {same_session: abc}\n    title:", ["field sessions", "at least one (group)"]),
        ("title:", "sessions: {same_session: '(?P<sesion>a)'}\n    title:", ["'sesion'", "only subject and session"]),
        ("title:", "doi: https://doi.org/10.1/x\n    title:", ["field doi"]),
        ("title:", "severity: {sessions_expected: fatal}\n    title:", ["field severity.sessions_expected", "'warn'"]),
    ],
)
def test_a_wrong_row_is_refused_by_file_row_and_field(tmp_path: Path, old: str, new: str, said: list[str]):
    message = complaint(tmp_path, GOOD.replace(old, new, 1))
    assert "row 1" in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "name: mine",
            "name: My recordings (2024)",
            "small letters and digits, with single hyphens between them, e.g. 'my-recordings-2024'.",
        ),
        ("name: mine", "name: mine_2", "single hyphens between them, e.g. 'mine-2'."),
        ("name: mine", "name: '---'", "single hyphens between them."),
        ("title:", "tags: [My lab]\n    title:", "single hyphens between them, e.g. 'my-lab'."),
        ('id: "990001"', "id: day_1", "letters, digits and hyphens, a letter or digit first, e.g. 'day-1'."),
        ("version: draft", "version: v 1", "dots, hyphens and underscores, a letter or digit first, e.g. 'v-1'."),
        (
            "title:",
            "doi: https://doi.org/10.1038/nn.4637\n    title:",
            "a DOI without the address before it, e.g. '10.1038/nn.4637'.",
        ),
    ],
)
def test_a_text_of_the_wrong_form_is_answered_with_words_and_a_valid_one(
    tmp_path: Path, old: str, new: str, expected: str
):
    message = complaint(tmp_path, GOOD.replace(old, new, 1))
    assert message.endswith(expected)
    assert "pattern" not in message and "^" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: [1]", "row 1; found: '1'; expected: a row"),
        ("datasets: {name: x}", "expected: a list of rows"),
        ("- name: x", "one top-level key `datasets`"),
        ("datasets: []\nsettings: {}", "'settings'"),
        ("just words", "one top-level key"),
        ("datasets: [", "line 1"),
        ("datasets:\n\t- x", "line 2"),
        ("datasets: []\ndatasets: []", "'datasets' is there twice"),
        ("datasets:\n  - {name: a, name: b}", "line 2, column 15: 'name' is there twice"),
        ("datasets: !!python/object/apply:os.system [touch pwned]", "line 1"),
        ("datasets: !!int x", "not readable as YAML"),
        ("a: &a [x]\nb: [*a, *a]", "line 2, column 5: aliases"),
        ("datasets: &a [*a]", "aliases"),
        ("datasets: " + "[" * 5_000, "nested too deeply"),
        ("datasets: " + "{a: " * 5_000, "nested too deeply"),
        ("? [a, b]\n: c", "a key must be a word"),
        (b"datasets: \xff\xfe", "not text"),
        ("datasets: \x00", "not readable as YAML"),
        ("--- {}\n--- {}", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_plain_small_catalog_is_refused(tmp_path: Path, text: str | bytes, said: str):
    assert said in complaint(tmp_path, text)
    assert not Path("pwned").exists()


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path):
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in complaint(tmp_path, "\n".join(["l0: &l0 [lol]", *levels]))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path):
    (tmp_path / "catalog.yaml").mkdir()
    with pytest.raises(CatalogError, match=r"cannot be read; found: .*directory"):
        load_catalog(settings(tmp_path))


def test_huge_values_are_not_repeated_in_the_error(tmp_path: Path):
    message = complaint(tmp_path, GOOD.replace("name: mine", f"name: {'X' * 100_000}"))
    assert len(message) < 2_000


def test_two_rows_of_one_name_are_refused(tmp_path: Path):
    message = complaint(tmp_path, GOOD + GOOD.split("\n", 1)[1])
    assert "row 2 ('mine'), field name" in message
    assert "is row 1 ('mine') of the same file" in message


def test_everything_that_is_wrong_is_told_at_once_and_good_rows_are_kept(tmp_path: Path):
    rows = GOOD + (
        "  - name: second\n    source: {}\n    readr: units\n"
        "  - 3\n"
        "  - {name: vbn, title: x, source: {id: '1', version: '/'}}\n"
    )
    path = write(tmp_path, rows)
    result = read_user_catalog(path)
    assert [dataset.name for dataset in result.datasets] == ["mine"]
    with pytest.raises(CatalogError) as caught:
        check_user_catalog(path)
    message = str(caught.value)
    assert f"{path} has 6 problems" in message
    fields = re.findall(r"\((\d)\) \S+catalog.yaml, (row \d)(?: \(\S+\))?(?:, field ([\w.]+))?", message)
    assert fields == [
        ("1", "row 2", "title"),
        ("2", "row 2", "source.id"),
        ("3", "row 2", "readr"),
        ("4", "row 3", ""),
        ("5", "row 4", "source.version"),
        ("6", "row 4", "name"),
    ]


@pytest.mark.parametrize(
    ("asked", "offered"), [("vcn2", "vcn-2"), ("Steinmetz_2", "steinmetz-2"), ("giacomo", "giocomo")]
)
def test_an_unknown_name_is_answered_with_close_ones(asked: str, offered: str):
    catalog = {dataset.name: dataset for dataset in RODENT}
    with pytest.raises(ConfigurationError) as caught:
        get_dataset(catalog, asked)
    assert repr(asked) in str(caught.value)
    assert offered in str(caught.value)
    assert get_dataset(catalog, offered).name == offered


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(ConfigurationError, match="vbn, ibl, shield"):
        get_dataset({dataset.name: dataset for dataset in RODENT}, "zzzzzz")


def test_the_pile_cannot_have_the_name_of_a_dataset(tmp_path: Path):
    with pytest.raises(
        ConfigurationError, match=r"NEURALPILE_PILE_NAME is invalid.*vbn, which is the name of a dataset"
    ):
        load_catalog(Settings(home=tmp_path, store=str(tmp_path), pile_name="vbn"))
    assert load_catalog(Settings(home=tmp_path, store=str(tmp_path), pile_name="our-pile"))


PILES = """\
piles:
  - {name: mine-too, title: Mine, components: [vbn, mine], tags: [primate], seed: 3,
     hold_out: ['dataset:vbn'], order: hash}
"""


def test_a_pile_of_the_user_has_its_components_and_tags_and_comes_after_the_built_in_ones(tmp_path: Path):
    write(tmp_path, GOOD + PILES)
    catalog = load_catalog(settings(tmp_path))
    *built_in, pile = load_piles(settings(tmp_path), catalog.values())
    assert built_in == list(BUILT_IN)
    assert [row.name for row in pile.members(catalog.values())] == ["vbn", *(row.name for row in PRIMATE), "mine"]
    assert pile.planned_with == {"seed": 3, "hold_out": ["dataset:vbn"], "order": "hash"}
    assert load_piles(settings(tmp_path, "sample"), SAMPLE) == [NEURAL_PILE]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: mine-too", "name: vbn", ["pile 1 ('vbn'), field name: the name is taken"]),
        ("name: mine-too", "name: kim", ["pile 1 ('kim'), field name: the name is taken"]),
        ("name: mine-too", "name: neural-pile", ["the name is taken", "comes with the package"]),
        ("name: mine-too", "name: mine", ["the name is taken", "row 1 ('mine') of the same file"]),
        ("[vbn, mine]", "[vbm]", ["field components", "'vbm'", "did you mean 'vbn'?"]),
        ("[primate]", "[primates]", ["field tags", "'primates'", "did you mean 'primate'?"]),
        ("seed: 3", "sead: 3", ["field sead: unknown field", "did you mean 'seed'?"]),
        ("components: [vbn, mine], tags: [primate], ", "", ["a pile needs `components` or `tags`"]),
    ],
)
def test_a_wrong_pile_is_refused_by_file_pile_and_field(tmp_path: Path, old: str, new: str, said: list[str]):
    message = complaint(tmp_path, GOOD + PILES.replace(old, new))
    for words in said:
        assert words in message


def test_a_row_of_the_user_may_have_the_name_of_a_later_row_of_the_package_and_replaces_it(tmp_path: Path):
    own = GOOD.replace("name: mine", "name: kim")
    write(tmp_path, own)
    catalog = load_catalog(settings(tmp_path))
    assert (len(catalog), list(catalog)[-1], catalog["kim"].title) == (len(PUBLISHED), "kim", "My recordings")
    assert catalog["kim"] in NEURAL_PILE.members(catalog.values()), "as before the package had one"
    assert "kim" not in {row.name for row in PRIMATE_PILE.members(catalog.values())}


@pytest.mark.parametrize(
    ("catalog", "shown"),
    [("all", {row.name for row in BEYOND}), ("icms", {"icms"}), ("published, icms mc-maze", {"icms", "mc-maze"})],
)
def test_further_datasets_are_shown_when_asked_for(tmp_path: Path, catalog: str, shown: set[str]):
    chosen = replace(settings(tmp_path), catalog=catalog)
    assert set(load_catalog(chosen)) - set(load_catalog(settings(tmp_path))) == shown


def test_a_further_dataset_is_shown_when_a_pile_or_a_command_names_it(tmp_path: Path):
    few = load_catalog(settings(tmp_path))
    assert find_dataset(settings(tmp_path), few, "icms").source.id == "000774"
    write(tmp_path, PILES.replace("[vbn, mine]", "[icms]"))
    assert set(load_catalog(settings(tmp_path))) - set(few) == {"icms"}


@pytest.mark.parametrize("name", ["mine", "steinmetz", "icms"])
def test_a_dataset_that_the_sample_archive_does_not_have_is_refused_by_its_cause(tmp_path: Path, name: str):
    (tmp_path / "catalog.yaml").write_text(GOOD)
    chosen = settings(tmp_path, "sample")
    with pytest.raises(ConfigurationError) as refused:
        find_dataset(chosen, load_catalog(chosen), name)
    assert f"{name} is not in the sample archive" in str(refused.value)
    assert "leave NEURALPILE_ARCHIVE out" in str(refused.value)


def test_a_wrong_choice_of_further_datasets_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"NEURALPILE_CATALOG is invalid; found: icm.*did you mean 'icms'\?"):
        load_catalog(replace(settings(tmp_path), catalog="icm"))
