"""A setting is one field: what is read, refused and documented follows from it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from neuralpile_dagster.cli import main
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.settings import ProcessSettings, Settings, documented

README = Path(__file__).parents[1] / "README.md"
CHOSEN = {
    "NEURALPILE_HOME": "/home/pile",
    "NEURALPILE_STORE": "s3://bucket/prefix",
    "NEURALPILE_ARCHIVE": "/recordings",
    "NEURALPILE_HUB": "hf",
    "NEURALPILE_NAMESPACE": "lab",
    "NEURALPILE_BIN_WIDTH": "0.01",
    "NEURALPILE_MAX_TOKENS": "1e6",
    "NEURALPILE_MIN_SESSION_SHARE": "0.5",
    "NEURALPILE_PILE_NAME": "our-pile",
    "NEURALPILE_CATALOG": "all",
    "NEURALPILE_THREADS": "3",
    "NEURALPILE_CONNECTIONS": "5",
    "NEURALPILE_CACHE_BYTES": "1000",
    "NEURALPILE_PRIVATE": "yes",
}


def test_the_readme_has_a_row_for_every_setting_and_none_that_is_no_setting():
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `NEURALPILE_")]
    assert rows == [f"| `{variable}` | {default} | {text} |" for variable, default, text in documented()]


def test_the_help_names_every_setting():
    said = CliRunner().invoke(main, ["--help"]).output
    assert [variable for variable, _, _ in documented() if variable not in said] == []


def test_every_setting_is_read_from_the_environment_that_is_given(monkeypatch: pytest.MonkeyPatch):
    assert set(CHOSEN) == {variable for variable, _, _ in documented()}
    for variable in CHOSEN:
        monkeypatch.setenv(variable, "not this one")
    assert Settings.from_environment(CHOSEN) == Settings(
        Path("/home/pile"), "s3://bucket/prefix", "/recordings", "hf", "lab", 0.01, 1_000_000, 0.5, "our-pile", "all"
    )
    assert ProcessSettings.from_environment(CHOSEN) == ProcessSettings(3, 5, 1000, True)


def test_a_variable_that_is_set_to_nothing_counts_as_not_set():
    empty = dict.fromkeys(CHOSEN, "")
    home = Path("~/.neuralpile").expanduser()
    assert Settings.from_environment(empty) == Settings(home, str(home / "store"))
    assert ProcessSettings.from_environment(empty) == ProcessSettings()


@pytest.mark.parametrize(
    ("variable", "wrong", "expected"),
    [
        ("NEURALPILE_HUB", "github", "'local' or 'hf'"),
        ("NEURALPILE_BIN_WIDTH", "wide", "a number from 0.0001 to 3600"),
        ("NEURALPILE_BIN_WIDTH", "nan", "a number from"),
        ("NEURALPILE_MAX_TOKENS", "10.5", "a whole number from 1 to 1,000,000,000"),
        ("NEURALPILE_MIN_SESSION_SHARE", "2", "a number from 0 to 1"),
        ("NEURALPILE_PILE_NAME", "lab/pile", "at most 60 letters"),
        ("NEURALPILE_PILE_NAME", "our--pile", "without '--'"),
        ("NEURALPILE_NAMESPACE", "our lab", "at most 96 letters"),
        ("NEURALPILE_NAMESPACE", "lab/pile", "at most 96 letters"),
        ("NEURALPILE_ARCHIVE", "dandy", "'dandi', 'sample', or a folder"),
        ("NEURALPILE_THREADS", "0", "a whole number from 1 to 1,024"),
        ("NEURALPILE_CONNECTIONS", "65", "a whole number from 1 to 64"),
        ("NEURALPILE_CACHE_BYTES", "50 GB", "a whole number from 0"),
        ("NEURALPILE_PRIVATE", "perhaps", "1 or 0"),
    ],
)
def test_an_invalid_value_is_refused_with_its_variable_and_what_is_expected(variable: str, wrong: str, expected: str):
    with pytest.raises(ConfigurationError, match=f"{variable} is invalid") as caught:
        Settings.from_environment({variable: wrong})
        ProcessSettings.from_environment({variable: wrong})
    assert wrong in str(caught.value)
    assert expected in str(caught.value)


def test_spaces_around_a_value_are_none_of_it_and_spaces_alone_count_as_not_set():
    spaced = {variable: f" {text}\t\r" for variable, text in CHOSEN.items()}
    assert Settings.from_environment(spaced) == Settings.from_environment(CHOSEN)
    assert ProcessSettings.from_environment(spaced) == ProcessSettings.from_environment(CHOSEN)
    blank = dict.fromkeys(CHOSEN, "  ")
    assert Settings.from_environment(blank) == Settings.from_environment({})
    assert ProcessSettings.from_environment(blank) == ProcessSettings.from_environment({})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NEURALPILE_BINWIDTH", "NEURALPILE_BIN_WIDTH"),
        ("NEURALPILE_ARCHIV", "NEURALPILE_ARCHIVE"),
        ("NEURALPILE_THREAD", "NEURALPILE_THREADS"),
        ("NEURALPILE_NAME_SPACE", "NEURALPILE_NAMESPACE"),
    ],
)
def test_a_name_that_is_nearly_a_variables_is_refused_with_the_one_meant(name: str, meant: str):
    for of in (Settings, ProcessSettings):
        with pytest.raises(ConfigurationError, match=f"{name} is not a setting; expected: {meant};"):
            of.from_environment({name: "x"})
        assert of.from_environment({name: ""}) == of.from_environment({})


def test_variables_of_deployments_tests_and_the_user_are_left_alone():
    text = "".join(path.read_text() for path in Path(__file__).parents[1].glob("deploy/**/*") if path.suffix == ".yaml")
    others = set(re.findall(r"NEURALPILE_[A-Z_]+", text)) - set(CHOSEN)
    assert others
    others |= {"NEURALPILE_SHARED", "NEURALPILE_TEST_ALL", "NEURALPILE_ALERT_MAIL", "NEURALPILE_STARTED_BY"}
    assert Settings.from_environment(dict.fromkeys(others, "x")) == Settings.from_environment({})


def test_an_archive_is_a_known_one_or_a_folder_though_that_may_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    given = {"recordings": f"{tmp_path}/recordings", "./later": f"{tmp_path}/later", "sample": "sample"}
    found = {text: Settings.from_environment({"NEURALPILE_ARCHIVE": text}).archive for text in given}
    assert found == given


def test_publishing_to_the_hugging_face_hub_needs_a_namespace():
    with pytest.raises(ConfigurationError, match="NEURALPILE_NAMESPACE is not set"):
        Settings.from_environment({"NEURALPILE_HUB": "hf"})


def test_settings_are_values_that_can_be_compared_and_hashed():
    first, second = (Settings.from_environment({"NEURALPILE_HOME": "/home/pile"}) for _ in range(2))
    assert len({first, second}) == 1
    assert {each.name for each in fields(Settings)} >= {"home", "store"}


@pytest.mark.parametrize(
    ("environment", "variant"),
    [
        ({}, ""),
        ({"NEURALPILE_BIN_WIDTH": "0.02", "NEURALPILE_MAX_TOKENS": "10000000"}, ""),
        ({"NEURALPILE_BIN_WIDTH": "0.01", "NEURALPILE_MAX_TOKENS": "1000000"}, "-bin10ms-max1000000"),
    ],
)
def test_the_variant_names_binning_that_is_not_the_default(environment: dict[str, str], variant: str):
    assert Settings.from_environment(environment).variant == variant
