"""Local folders as archives: one of dandisets, one of own recordings, and the sample, made here on first use.

Files lie at ``<root>/<dandiset id>/<path>``, as ``dandi download`` lays them out, and those of figshare datasets under
``<root>/figshare-<article id>/``. Own recordings, which are in no archive, lie in a folder that their catalog row
names. What the sample's recordings hold belongs in `synthetic`.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from neuralpile_dagster.archives.dandi_metadata import FieldReader, citation_of
from neuralpile_dagster.archives.model import Access, ArchiveFile, Listing
from neuralpile_dagster.errors import ArchiveError, DamagedRecording
from neuralpile_dagster.files import explained, remove_abandoned, temporary_name
from neuralpile_dagster.hdf5.opened import LocalFile, is_zarr
from neuralpile_dagster.records import Citation

if TYPE_CHECKING:
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.net.retry import RetryPolicy

DANDISET_FILE = "dandiset.yaml"  # `dandi download` puts the version's metadata there
HDF5_SUFFIXES = frozenset({".nwb", ".h5", ".hdf5"})
PARTIAL_SUFFIX = ".dandidownload"  # folders in which `dandi download` keeps what it has so far
GENERATOR_VERSION = "1"  # changes whenever the generator would write other spikes; homes keep the files that they have
SAMPLES = ("sample-units", "sample-probes", "sample-rates", "sample-eight-probe")
_WRITTEN_AT = 1577880000  # 2020-01-01T12:00:00Z: the same recordings look unchanged wherever they were made


class FolderArchive:
    """An `Archive` of files on this machine.

    A digest would cost a full read of terabytes, so ``digests`` is empty:
    files are told apart by ``size`` and ``modified`` (time of last change),
    and no listing counts as frozen. ``variables`` is ``("Units",)`` when the
    file has ``/units/spike_times``, ``()`` when it has not, and None when it
    does not open.

    Parameters
    ----------
    root : Path
        Folder of the sources' folders.
    holds_one_source : bool
        ``root`` itself is the folder of the one source (``source.path`` of its row).
    """

    def __init__(self, root: Path, holds_one_source: bool = False) -> None:
        self.root = root
        self.holds_one_source = holds_one_source

    def list_files(self, source: Source) -> Listing:
        """List the files of the source's folder; see `Archive.list_files`.

        Raises `ArchiveError` when the folder is not there, leaves the archive,
        cannot be listed, or holds links to other folders (they are not followed).
        """
        folder = self._folder(source)
        metadata = _dandiset_metadata(folder)
        fields = FieldReader()
        version = str(metadata["version"]) if metadata.get("version") else None
        note = None
        if version is None and not self.holds_one_source:
            # in the hashed inputs of every publication: other words would make all of them due
            note = f"a local folder that does not say its version (no {DANDISET_FILE})"
        elif version is not None and source.version not in ("latest", version):
            note = f"the local folder holds version {version}, the catalog names {source.version}"
        return Listing(
            archive="folder",
            source_id=source.id,
            version=version or "folder",
            version_note=note,
            frozen=False,
            listed_at=datetime.now(UTC),
            files=tuple(sorted(self._files(folder), key=lambda file: file.path)),
            citation=citation_of(metadata, fields, DANDISET_FILE) if metadata else Citation(),
            notes=fields.notes,
        )

    @contextmanager
    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> Iterator[LocalFile]:
        """Open one file; both kinds of access read the file itself. Raises `ArchiveError` when it lies elsewhere."""
        parts = PurePosixPath(file.path)
        path = self._folder(source) / parts
        if ".." in parts.parts or not self._is_inside(path):
            raise ArchiveError(
                f"{file.path} is not opened: it lies outside the archive's folder",
                found=str(path.resolve()),
                expected=f"a file inside {self.root}",
                remedy="replace the link with the file, or set NEURALPILE_ARCHIVE to a folder that holds both",
            )
        yield LocalFile(name=file.path, path=path)

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def _folder(self, source: Source) -> Path:
        if self.holds_one_source:
            if self.root.is_dir():
                return self.root
            raise ArchiveError(
                f"the recordings of {source.label} are missing",
                found=f"{'a file' if self.root.exists() else 'nothing'} at {self.root}",
                expected="the folder that holds them",
                remedy="correct source.path of the catalog row, or mount the disk that holds it",
            )
        folder = self.root / source.folder
        if folder.is_dir() and self._is_inside(folder):
            return folder
        there = sorted(path.name for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else []
        near = difflib.get_close_matches(source.folder, there, n=3, cutoff=0.5) or there[:5]
        download = source.facts.download.format(id=source.id, root=self.root)
        get = f"run `{download}`" if download else f"put the files into {folder}"
        raise ArchiveError(
            f"{source.label} is not in the archive folder {self.root}",
            found=_what_is_there(self.root, folder, near, len(there)),
            expected=f"a folder {folder}",
            remedy=f"{get}, or set NEURALPILE_ARCHIVE to another folder",
        )

    def _files(self, folder: Path) -> Iterator[ArchiveFile]:
        for current, folders, names in os.walk(folder, onerror=_cannot_list):
            folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(PARTIAL_SUFFIX)]
            stores = [name for name in folders if not (at := Path(current, name)).is_symlink() and is_zarr(at)]
            yield from (self._zarr(folder, Path(current, name)) for name in stores)
            folders[:] = [name for name in folders if name not in stores]
            for name in folders:
                if Path(current, name).is_symlink():
                    raise ArchiveError(
                        f"{Path(current, name)} is a link to a folder",
                        found=str(Path(current, name).readlink()),
                        expected="folders and files; links to folders are not followed",
                        remedy="replace the link with the folder, e.g. a bind mount or a copy",
                    )
            for name in names:
                if not name.startswith(".") and name != DANDISET_FILE:
                    yield self._file(folder, Path(current, name))

    def _zarr(self, folder: Path, path: Path) -> ArchiveFile:
        """A Zarr folder as one file, as DANDI lists it; it is not read."""
        relative = path.relative_to(folder).as_posix()
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        return ArchiveFile(path=relative, file_id=relative, size=size, variables=None)

    def _file(self, folder: Path, path: Path) -> ArchiveFile:
        relative = path.relative_to(folder).as_posix()
        if not _is_text(relative):
            raise ArchiveError(
                f"a file name in {path.parent} is not text",
                found=repr(path.name),
                expected="names in UTF-8",
                remedy="rename the file",
            )
        inside = path.is_file() and self._is_inside(path)
        status = path.stat() if inside else path.lstat()  # of a link that leads nowhere or away, only the link
        return ArchiveFile(
            path=relative,
            file_id=relative,
            size=status.st_size,
            modified=datetime.fromtimestamp(status.st_mtime, UTC).isoformat(),
            variables=_variables(path) if inside else None,
        )


def _is_text(name: str) -> bool:
    """Whether a name can be stored: bytes of a name that are not UTF-8 reach Python as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _variables(path: Path) -> tuple[str, ...] | None:
    """What DANDI calls ``variableMeasured``, as far as sessions are chosen by it."""
    import h5py

    from neuralpile_dagster.hdf5.careful import find

    if path.suffix.lower() not in HDF5_SUFFIXES:
        return ()
    try:
        with h5py.File(path, "r") as file:
            return ("Units",) if find(file, "/units/spike_times", path.name) is not None else ()
    except (OSError, DamagedRecording):
        return None  # not dropped: it becomes a session that fails, with the reason, when it is read


def _cannot_list(error: OSError) -> NoReturn:
    raise ArchiveError(
        f"{error.filename} cannot be listed", found=str(error.strerror), remedy="change the folder's permissions"
    ) from error


def _what_is_there(root: Path, folder: Path, near: list[str], count: int) -> str:
    if not root.is_dir():
        return f"{root} is not a folder"
    if folder.is_dir():
        return f"a link that leads out of the archive folder, to {folder.resolve()}"
    return f"{count} folders, e.g. {', '.join(near)}" if near else "an empty folder"


def _dandiset_metadata(folder: Path) -> dict[str, object]:
    import yaml

    path = folder / DANDISET_FILE
    if not path.is_file():
        return {}
    try:
        metadata = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArchiveError(
            f"{path} cannot be read", found=str(error), remedy="download it again, or remove it"
        ) from error
    return metadata if isinstance(metadata, dict) else {}


class SampleArchive:
    """An `Archive` of synthetic recordings under ``<home>/sample/``; every listing says that it is synthetic.

    It needs no network, so ``limits`` mean nothing to it.
    """

    def __init__(self, home: Path, limits: RetryPolicy | None = None) -> None:
        self.home = home

    def list_files(self, source: Source) -> Listing:
        """See `Archive.list_files`. Makes the recordings first (some seconds, once)."""
        if source.id not in SAMPLES:
            raise ArchiveError(
                f"{source.label} is not in the sample archive",
                found=source.id,
                expected=", ".join(SAMPLES),
                remedy="set NEURALPILE_ARCHIVE to dandi, or to a folder that holds this dataset",
            )
        listing = FolderArchive(make_sample(self.home)).list_files(source)
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
        return FolderArchive(make_sample(self.home)).open(source, file, access)


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
