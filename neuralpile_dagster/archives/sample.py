"""The sample archive: synthetic recordings, made on this machine on first use."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.archives.model import Access, ArchiveFile, Listing
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.files import explained, remove_abandoned, temporary_name
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.records import Citation

if TYPE_CHECKING:
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.net.retry import RetryPolicy


GENERATOR_VERSION = "1"  # changes whenever the generator would write other spikes; homes keep the files that they have
SAMPLES = ("sample-units", "sample-probes", "sample-rates", "sample-eight-probe")
_WRITTEN_AT = 1577880000  # 2020-01-01T12:00:00Z: the same recordings look unchanged wherever they were made


class SampleArchive:
    """An `Archive` of synthetic recordings under ``<home>/sample/``; every listing says that it is synthetic."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @classmethod
    def from_environment(cls, home: Path, limits: RetryPolicy | None = None) -> SampleArchive:
        """The sample in ``home``; it needs no network, so ``limits`` mean nothing to it."""
        return cls(home)

    def list_files(self, source: Source) -> Listing:
        """See `Archive.list_files`. Makes the recordings first (some seconds, once)."""
        if source.id not in SAMPLES:
            raise ArchiveError(
                f"{source.label} is not in the sample archive",
                found=source.id,
                expected=", ".join(SAMPLES),
                remedy="set NEURALPILE_ARCHIVE to dandi, or to a folder that holds this dataset",
            )
        listing = self._folder().list_files(source)
        return listing.model_copy(
            update={
                "archive": "sample",
                "version": GENERATOR_VERSION,
                "version_note": None,
                "frozen": True,  # a version always makes the same recordings
                "synthetic": True,
                "citation": Citation(title=f"SYNTHETIC recordings ({source.id}), made by a program", license="CC0-1.0"),
            }
        )

    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> AbstractContextManager[LocalFile]:
        """See `Archive.open`."""
        return self._folder().open(source, file, access)

    def _folder(self) -> FolderArchive:
        return FolderArchive(make_sample(self.home))


def sample_folder(home: Path) -> Path:
    """Where the recordings are once they were made."""
    return home / "sample" / f"v{GENERATOR_VERSION}"


def make_sample(home: Path) -> Path:
    """Make all synthetic recordings unless this version of them is there; return their folder.

    The folder appears complete, by one rename, and is named by the generator's
    version. When two processes make it at the same time one of them wins.
    """
    folder = sample_folder(home)
    if folder.is_dir():
        return folder
    temporary = folder.parent / temporary_name()
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent)
        try:
            _write_all(temporary)
            _appear(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_all(root: Path) -> None:
    from neuralpile_dagster.archives.synthetic import WRITERS

    for name in SAMPLES:
        WRITERS[name](root / name)
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (_WRITTEN_AT, _WRITTEN_AT))


def _appear(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # there, it is another process's, and the same
            raise
    for other in folder.parent.iterdir():
        if other != folder and other.name.startswith("v"):
            shutil.rmtree(other, ignore_errors=True)  # of an older generator; another process may be at it too
