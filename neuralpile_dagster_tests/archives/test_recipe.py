"""The recipe for another archive: one class with two methods and one row, and no other line of the package."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.archives.model import Access, ArchiveFile, Listing
from neuralpile_dagster.catalog.describe import bibtex
from neuralpile_dagster.catalog.load import check_user_catalog
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.catalog.pages import dataset_page
from neuralpile_dagster.catalog.sources import ARCHIVES, ArchiveRow
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

CATALOG = """\
datasets:
  - name: my-shelf
    title: Recordings on a shelf
    source: {archive: shelf, id: board-3}
"""


class ShelfArchive:
    """Files of a folder ``shelf`` in the home; a source is a folder in it."""

    def __init__(self, home: Path, limits: RetryPolicy | None) -> None:
        self.root = home / "shelf"

    def list_files(self, source: Source) -> Listing:
        folder = self.root / source.id
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.nwb"))
        files = tuple(
            ArchiveFile(path=name, size=(folder / name).stat().st_size, file_id=name, variables=("Units",))
            for name in names
        )
        return Listing(
            archive="shelf", source_id=source.id, version="7", frozen=True, listed_at=datetime.now(UTC), files=files
        )

    @contextmanager
    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> Iterator[LocalFile]:
        yield LocalFile(file.path, self.root / source.id / file.path)


SHELF = ArchiveRow(
    name="shelf",
    opens=f"{__name__}:ShelfArchive",
    publisher="The Shelf",
    page="https://shelf.example/{id}",
    folder="shelf-{id}",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the archive's row, a catalog row of it, and a session."""
    monkeypatch.setitem(ARCHIVES, "shelf", SHELF)  # type: ignore[arg-type]
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    write_units_nwb(tmp_path / "shelf" / "board-3" / "sub-1" / "sub-1_ses-1.nwb", poisson_trains(3, 5.0))
    return tmp_path


def test_a_catalog_row_of_an_added_archive_lists_its_sessions(home: Path) -> None:
    ran = neuralpile("sessions", "my-shelf", NEURALPILE_HOME=home)
    assert ran.code == 0, ran.err
    assert "sub-1_ses-1" in ran.out
    assert "my-shelf: 1 session; shelf board-3 version 7" in ran.out


def test_a_session_of_an_added_archive_is_built_and_published(home: Path) -> None:
    ran = neuralpile("build", "my-shelf", NEURALPILE_HOME=home)
    assert ran.code == 0, ran.out + ran.err
    card = (home / "hub" / "local" / "my-shelf" / "README.md").read_text()
    assert "[shelf board-3](https://shelf.example/board-3)" in card
    assert "The Shelf" in card


def test_pages_and_citations_state_what_the_row_states(home: Path) -> None:
    (row,) = check_user_catalog(home / "catalog.yaml")
    assert "[shelf board-3](https://shelf.example/board-3)" in dataset_page(row)
    assert "publisher = {The Shelf}" in bibtex(row)


def test_a_local_folder_holds_sources_of_an_added_archive_under_the_name_of_its_row(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "copied"
    write_units_nwb(root / "shelf-board-3" / "sub-2" / "sub-2_ses-9.nwb", poisson_trains(3, 5.0))
    ran = neuralpile("sessions", "my-shelf", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=root)
    assert "sub-2_ses-9" in ran.out
    (root / "shelf-board-3").rename(root / "other")
    ran = neuralpile("sessions", "my-shelf", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=root)
    assert f"put the files into {root}/shelf-board-3" in ran.err


def test_a_misspelled_archive_is_answered_with_the_closest_one(home: Path) -> None:
    (home / "catalog.yaml").write_text(CATALOG.replace("archive: shelf", "archive: shelv"))
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=home)
    assert ran.code == 1
    assert "field source.archive: there is no archive 'shelv'" in ran.err
    assert "'dandi', 'figshare', 'folder', 'shelf'" in ran.err
    assert "did you mean 'shelf'?" in ran.err


@pytest.mark.parametrize("name", ["dandi", "figshare", "sample"])
def test_what_opens_an_archive_of_the_package_is_there(name: str, tmp_path: Path) -> None:
    archive = pkgutil.resolve_name(ARCHIVES[name].opens)(tmp_path, None)
    assert archive.list_files
    assert not isinstance(archive, FolderArchive)
