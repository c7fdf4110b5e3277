"""Open archive files: the protocol that readers use, local files, and what a file that is not HDF5 is instead.

The error for such a file names it by its first bytes, with a remedy that fits. Remote files belong in `ranged`, files
that open and hold no units in `recordings.nwb`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuralpile_dagster.errors import ArchiveError, DamagedRecording
from neuralpile_dagster.files import ReadCost

if TYPE_CHECKING:
    import h5py
    import numpy as np

HEAD_BYTES = 512
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZARR_FILES = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")

_FETCH = "fetch the file again from its page in the archive; a server's page was saved in its place"
_ZARR = "export it to HDF5 with hdmf-zarr (NWBZarrIO, NWBHDF5IO.export), or exclude it with the session rule"
_GET = "get the content that it stands for (git lfs pull, git annex get, datalad get)"
_MATLAB = (
    "read it with --reader eight_probe_mat (`reader` of the catalog row) if it is of that form, or convert it to NWB"
)
_OTHER = "exclude the file with the dataset's session rule, or convert it to NWB"
_KINDS = (
    ((b"<!doctype html", b"<html"), "an HTML page", _FETCH),
    ((b"<?xml",), "an XML document", _FETCH),
    ((b"matlab",), "a MATLAB 5 file", _MATLAB),
    ((b"version https://git-lfs",), "a Git LFS pointer", _GET),
    ((b"/annex/objects", b".git/annex", b"../.git/annex"), "a git-annex pointer", _GET),
    ((b"pk\x03\x04",), "a ZIP archive", "unpack it; if it holds Zarr, export that to HDF5 with hdmf-zarr"),
    ((b"\x1f\x8b",), "a gzip file", "unpack it with gunzip"),
    ((b"par1",), "a Parquet file", _OTHER),
)


class OpenFile(Protocol):
    """One archive file, open for reading. Obtained from `Archive.open`, valid inside its ``with``."""

    name: str  # path as listed, for messages
    cost: ReadCost
    unverified: bool  # whether values were read that neither a digest nor a checksum covers

    def hdf5(self) -> h5py.File:
        """Open as HDF5; the caller closes it. Raises `DamagedRecording` when it is not HDF5."""
        ...

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """All values of one HDF5 dataset of this file, the fastest way this archive knows.

        Returns
        -------
        numpy.ndarray
            Of the dataset's shape and dtype.
        """
        ...

    def read_part(self, dataset: h5py.Dataset, place: tuple[slice, ...]) -> np.ndarray:
        """Some values of a dataset that is too large to be read at once; chunk after chunk as HDF5 reads them.

        Returns
        -------
        numpy.ndarray
            Of the dataset's dtype and the shape of ``place``.
        """
        ...

    def local_path(self) -> Path:
        """Path of a complete, verified local copy, for formats that cannot be read by ranges."""
        ...


@dataclass
class LocalFile:
    """`OpenFile` for a file on this machine."""

    name: str
    path: Path
    cost: ReadCost = field(default_factory=ReadCost)
    unverified: bool = False

    def hdf5(self) -> h5py.File:
        """Open as HDF5; see `OpenFile.hdf5`."""
        import h5py

        if self.path.is_dir() and is_zarr(self.path):
            raise zarr_folder(self.name)
        if not self.path.is_file():
            raise ArchiveError(
                f"{self.name} is not there",
                found=f"no file at {self.path}",
                remedy="restore the file, or materialize the dataset's manifest again if it was removed",
            )
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            remedy = "fetch the file again; it is truncated, damaged or of another format"
            raise not_hdf5(self.name, self.path.stat().st_size, head, error, remedy) from error

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """Read one dataset; see `OpenFile.read`."""
        values: np.ndarray = dataset[()]
        self.cost.bytes_read += dataset.id.get_storage_size()
        return values

    def read_part(self, dataset: h5py.Dataset, place: tuple[slice, ...]) -> np.ndarray:
        """Read some values; see `OpenFile.read_part`."""
        values: np.ndarray = dataset[place]
        self.cost.bytes_read += round(dataset.id.get_storage_size() * values.size / max(dataset.size, 1))
        return values

    def local_path(self) -> Path:
        """The file itself."""
        return self.path


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return folder.suffix.lower() == ".zarr" or any((folder / name).is_file() for name in _ZARR_FILES)


def zarr_folder(name: str) -> DamagedRecording:
    """The error for a Zarr folder where a file is expected."""
    return DamagedRecording(f"{name} is a Zarr folder", expected="an NWB file of the HDF5 form", remedy=_ZARR)


def not_hdf5(name: str, size: int, head: bytes, error: OSError, damaged: str) -> DamagedRecording:
    """The error for a file that HDF5 does not open.

    Parameters
    ----------
    name : str
        The file's.
    size : int
        Bytes.
    head : bytes
        The first `HEAD_BYTES` of the file, or all.
    error : OSError
        HDF5's.
    damaged : str
        Remedy for a file that is an HDF5 file, but not all of it.
    """
    found, remedy = f"{size:,} bytes, {error}", damaged
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((row for row in _KINDS if start.startswith(row[0])), None)
    if not size:
        found = "0 bytes, an empty file"
    elif not head.strip(b"\0"):
        found = f"{size:,} bytes that begin with zeros: space that was reserved and never filled"
    elif kind:
        found, remedy = f"{kind[1]} of {size:,} bytes: {head[:60].decode(errors='replace')!a}", kind[2]
    elif start.startswith(b"{") and b"zarr" in start:
        found, remedy = f"{size:,} bytes of Zarr's metadata", _ZARR
    elif not head.startswith(_SIGNATURE) and len(head) == HEAD_BYTES:
        found = f"{size:,} bytes that begin with {head[:8]!r}, {error}"
    return DamagedRecording(
        f"{name} cannot be opened as HDF5", found=found, expected="a complete NWB (HDF5) file", remedy=remedy
    )
