"""Recordings of one's own in a folder that a catalog row names: published with what the row states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from neuralpile_dagster.archives import open_archive
from neuralpile_dagster.catalog.load import check_user_catalog
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.catalog.pages import dataset_page
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster.records import Citation
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.archive_folders import touch
from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.servers.listings import listing_of
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

ROW: dict[str, Any] = {
    "name": "my-mice",
    "title": "What we recorded",
    "source": {"archive": "folder", "path": "Our Lab/mice 2021"},
    "license": "CC-BY-4.0",
    "authors": ["Prefect, Ford", "McMillan, Tricia"],
    "citation": "Prefect and McMillan (2021). What we recorded.",
    "species": "mouse",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose catalog names a folder of two sessions, beside a dandiset.yaml that is not theirs."""
    folder = tmp_path / "Our Lab" / "mice 2021"
    for session in ("a", "b"):
        write_units_nwb(folder / f"sub-1/ses-{session}/sub-1_ses-{session}.nwb", poisson_trains(3, 5.0), subject_id="1")
    write_catalog(tmp_path, ROW)
    return tmp_path


def write_catalog(home: Path, *rows: dict[str, Any]) -> None:
    (home / "catalog.yaml").write_text(yaml.safe_dump({"datasets": list(rows)}))


def test_own_recordings_are_published_with_their_own_metadata_and_not_that_of_a_dandiset_yaml(home: Path) -> None:
    content = "name: Another\ndoi: 10.48324/dandi.000017/1\nurl: https://dandiarchive.org/dandiset/000017\n"
    touch(home / "Our Lab/mice 2021/dandiset.yaml", content)
    ran = neuralpile("build", "my-mice", NEURALPILE_HOME=home)
    assert ran.code == 0, ran.out + ran.err
    card = (home / "hub/local/my-mice/README.md").read_text()
    assert "dandi" not in card.lower()
    assert "license: cc-by-4.0" in card and "CC-BY-4.0" in card
    assert "Prefect, Ford; McMillan, Tricia" in card
    assert "> Prefect and McMillan (2021). What we recorded." in card
    assert "| archive | folder mice-2021 |" in card
    assert "@misc{my-mice_mice-2021," in card
    assert "author = {{Prefect, Ford} and {McMillan, Tricia}}" in card
    assert "publisher" not in card and "version = " not in card and str(home) not in card


def test_a_local_folder_of_dandisets_does_not_replace_the_folder_of_own_recordings(home: Path) -> None:
    ran = neuralpile("sessions", "my-mice", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=home / "elsewhere")
    assert ran.code == 0, ran.err
    assert "sub-1_ses-a" in ran.out and "my-mice: 2 sessions; folder mice-2021" in ran.out


def test_a_path_may_be_absolute_or_a_link_and_is_named_when_nothing_is_there(home: Path, tmp_path: Path) -> None:
    (home / "link").symlink_to(home / "Our Lab/mice 2021")
    for path in (str(home / "Our Lab/mice 2021"), "link"):
        source = Source(archive="folder", path=path)  # type: ignore[call-arg]
        archive = open_archive(Settings(home=home, store=str(home / "store")), source)
        listing = archive.list_files(source)
        assert [file.path for file in listing.files] == [
            "sub-1/ses-a/sub-1_ses-a.nwb",
            "sub-1/ses-b/sub-1_ses-b.nwb",
        ]
        assert listing.version_note is None
        with archive.open(source, listing.files[0]) as opened:
            assert opened.local_path().is_file()
    write_catalog(home, ROW | {"source": {"archive": "folder", "path": "gone"}})
    ran = neuralpile("sessions", "my-mice", NEURALPILE_HOME=home)
    assert ran.code == 1
    assert f"found: nothing at {home}/gone" in ran.err and "correct source.path" in ran.err


@pytest.mark.parametrize(
    "source",
    [{"archive": "folder", "id": "1"}, {"id": "000017", "path": "/data"}, {"archive": "folder", "path": ""}],
    ids=["no path", "a path of a dandiset", "an empty path"],
)
def test_a_folder_and_its_path_belong_together(home: Path, source: dict[str, str]) -> None:
    write_catalog(home, ROW | {"source": source})
    with pytest.raises(CatalogError, match=r"field source.*(belong together|must not be empty)"):
        check_user_catalog(home / "catalog.yaml")


def test_a_source_without_an_id_still_lacks_it(home: Path) -> None:
    write_catalog(home, ROW | {"source": {"archive": "dandi"}})
    with pytest.raises(CatalogError, match=r"field source\.id: is missing"):
        check_user_catalog(home / "catalog.yaml")


def test_a_row_completes_what_an_archive_states_and_never_replaces_it() -> None:
    row = Dataset(name="mine", title="Mine", source=Source(id="000017"), license="MIT", authors=("Me",))
    stated = Citation(title="Theirs", license="CC-BY-4.0", url="https://dandiarchive.org/dandiset/000017")
    listing = listing_of("sub-1/a.nwb").model_copy(update={"citation": stated})
    citation = choose_sessions(row, listing).citation
    assert citation == stated.model_copy(update={"authors": ("Me",)})


def test_fields_that_were_added_later_are_in_no_dump_of_a_row_without_them() -> None:
    for row in RODENT:
        content = row.model_dump(mode="json")
        assert not {"license", "authors", "citation"} & set(content)
        assert "path" not in content["source"]
    own = Dataset.model_validate(ROW)
    assert own.model_dump(mode="json")["source"]["path"] == "Our Lab/mice 2021"
    assert Dataset.model_validate_json(own.model_dump_json()) == own


def test_the_page_of_own_recordings_has_no_link() -> None:
    page = dataset_page(Dataset.model_validate(ROW))
    assert "- Archive: folder mice-2021\n" in page
    assert "- Version: the files as they lie in the folder\n" in page
