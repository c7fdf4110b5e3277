"""Public lists of sessions: the files they are taken from, the real listing of the IBL's dandiset, a user's own."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.benchmarks import Benchmark, load_benchmarks
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.settings import Settings

IBL = next(dataset for dataset in RODENT if dataset.name == "ibl")
LISTED = {
    "bwb_eval": ("bwb_eval_eids.txt", 17),
    "neds_test": ("neds_test.txt", 5),
    "neds_train": ("neds_train.txt", 44),
}
"""File of the real list, and how many of its sessions the published pile has."""


@pytest.fixture(scope="module")
def ours() -> dict[str, Benchmark]:
    return load_benchmarks(Settings.from_environment({"NEURALPILE_HOME": "/nowhere"}))


@pytest.mark.parametrize("name", LISTED)
def test_ids_are_those_of_the_authors_and_meet_the_sessions_of_the_published_pile(
    ours: dict[str, Benchmark], name: str, shared_data: Path
):
    path, listing = shared_data / "benchmarks" / LISTED[name][0], shared_data / "dandi" / "000409.assets.json.gz"
    if not path.is_file() or not listing.is_file():
        pytest.skip(f"{path} or {listing} is absent")
    assert list(ours[name].ids) == path.read_text().split()
    response = json.loads(gzip.decompress(listing.read_bytes()))
    files = [Path(file["path"]) for file in (response["results"] if isinstance(response, dict) else response)]
    chosen = [file for file in files if any(re.search(rule, str(file)) for rule in IBL.sessions.include)]
    sessions = {re.search(IBL.sessions.same_session or "", str(file)): file for file in chosen}
    held = {file for file in sessions.values() if ours[name].holds("ibl", file.parent.name, file.stem)}
    assert len(held) == LISTED[name][1]


def test_patterns_are_searched_in_folder_and_name_and_a_list_of_datasets_holds_all_of_them(ours: dict[str, Benchmark]):
    assert ours["falcon"].holds("m1-a", "sub-T5-held-in-minival", "ses-1")
    assert not ours["falcon"].holds("m1-a", "sub-T5-held-in-calib", "ses-1")
    assert not ours["falcon"].holds("mine", "sub-T5-held-in-minival", "ses-1")
    assert ours["nlb"].holds("area2-bump", "sub-Han", "sub-Han_desc-test_behavior+ecephys")
    assert ours["ibrain_eval"].holds("perich", "sub-C", "any")
    assert ours["spikeprophecy"].holds("steinmetz", "sub-Cori", "any")


def test_releases_that_are_not_copied_hold_nothing_and_say_where_they_are(ours: dict[str, Benchmark]):
    for name in ("bwm_2022_10", "bwm_2023_12"):
        assert ours[name].ids == () and "eid" in ours[name].not_included
        assert not ours[name].holds("ibl", "sub-1", f"sub-1_ses-{ours['neds_test'].ids[0]}_behavior")


def test_a_users_list_is_added_and_one_of_the_same_name_replaces_ours(tmp_path: Path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    text = "title: Mine\nurl: https://lab.org\nkind: eval\ndatasets: [mice]\n"
    (folder / "mine.yaml").write_text(text)
    (folder / "bwm_2023_12.yaml").write_text(text + "id: 'ses-(.)'\nids: [a, b]\n")
    lists = load_benchmarks(Settings.from_environment({"NEURALPILE_HOME": str(tmp_path)}))
    assert lists["mine"].holds("mice", "sub-1", "x") and not lists["mine"].holds("rats", "sub-1", "x")
    assert [lists["bwm_2023_12"].holds("mice", "sub-1", name) for name in ("ses-a", "ses-c", "a")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a list of sessions"),
        ("title: t\nurl: https://lab.org\nkind: eval\n", "field datasets"),
        ("title: t\nurl: https://lab.org\nkind: exam\ndatasets: [a]\n", "field kind"),
        ("title: t\nurl: https://lab.org\nkind: eval\ndatasets: [a]\nids: [x]\n", "ids needs id"),
        ("title: t\nurl: https://lab.org\nkind: eval\ndatasets: [a]\nid: 'no group'\nids: [x]\n", "ids needs id"),
    ],
)
def test_an_invalid_list_is_refused_by_file_and_field(tmp_path: Path, text: str, message: str):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.yaml").write_text(text)
    with pytest.raises(CatalogError, match=message) as refused:
        load_benchmarks(Settings.from_environment({"NEURALPILE_HOME": str(tmp_path)}))
    assert "mine.yaml" in str(refused.value)


def test_a_list_whose_file_name_is_invalid_is_answered_with_a_valid_one(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "my list.yaml").write_text("title: t\nurl: https://lab.org\nkind: eval\ndatasets: [a]\n")
    with pytest.raises(CatalogError, match=r"field name; found: 'my list'; .* underscores, e\.g\. 'my-list'"):
        load_benchmarks(Settings.from_environment({"NEURALPILE_HOME": str(tmp_path)}))
