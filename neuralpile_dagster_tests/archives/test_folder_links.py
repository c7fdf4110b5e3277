"""The folder archive opens nothing outside its folder: links, paths, names."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster_tests.fixtures.archive_folders import SOURCE, listing, touch
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb


def test_a_link_that_leads_out_of_the_archive_is_listed_but_not_opened(root: Path, folder: Path, tmp_path: Path):
    secret = write_units_nwb(tmp_path / "secret.nwb", poisson_trains(2, 5))
    (folder / "a.nwb").symlink_to(secret)
    archive = FolderArchive(root)
    (file,) = archive.list_files(SOURCE).files
    assert file.variables is None
    with pytest.raises(ArchiveError, match=r"outside the archive's folder.*secret\.nwb"), archive.open(SOURCE, file):
        pass


def test_a_link_inside_the_archive_is_a_file_like_others(root: Path, folder: Path):
    write_units_nwb(folder / ".git" / "annex" / "a.nwb", poisson_trains(2, 5))
    (folder / "a.nwb").symlink_to(".git/annex/a.nwb")
    (folder / "missing.nwb").symlink_to(".git/annex/b.nwb")
    found = {file.path: file for file in listing(root).files}
    assert found["a.nwb"].variables == ("Units",)
    assert found["a.nwb"].size == (folder / "a.nwb").stat().st_size
    assert found["missing.nwb"].variables is None
    archive = FolderArchive(root)
    with archive.open(SOURCE, found["missing.nwb"]) as opened, pytest.raises(ArchiveError, match="is not there"):
        opened.hdf5()


def test_links_to_folders_are_refused(root: Path, folder: Path, tmp_path: Path):
    touch(tmp_path / "elsewhere" / "a.nwb")
    (folder / "sub-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="sub-1 is a link to a folder"):
        listing(root)
    (folder / "sub-1").unlink()
    (folder / "a.nwb.zarr").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match=r"a\.nwb\.zarr is a link to a folder"):
        listing(root)
    (root / "000018").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="leads out of the archive folder"):
        listing(root, Source(id="000018"))


@pytest.mark.parametrize("path", ["../000018/a.nwb", "/etc/passwd", "sub/../../../x", "..", "a/../b.nwb"])
def test_paths_that_leave_the_folder_are_refused(root: Path, path: str):
    touch(root / "000018" / "a.nwb")
    file = ArchiveFile(path=path, size=1, file_id=path)
    with pytest.raises(ArchiveError, match="outside"), FolderArchive(root).open(SOURCE, file):
        pass


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_path_opens_anything_outside(root: Path, path: str):
    file = ArchiveFile(path=path, size=1, file_id=path)
    try:
        with FolderArchive(root).open(SOURCE, file) as opened:
            assert opened.path.resolve().is_relative_to(root.resolve())
    except ArchiveError as error:
        assert "outside" in str(error)


def test_a_name_that_is_not_text_is_refused(root: Path, folder: Path):
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.nwb")).write_text("x")
    with pytest.raises(ArchiveError, match="is not text"):
        listing(root)


def test_a_folder_that_may_not_be_listed_is_an_error(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    touch(folder / "sub-1" / "a.txt")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if os.fspath(path).endswith("sub-1"):  # root may list every folder
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ArchiveError, match="sub-1 cannot be listed"):
        listing(root)
