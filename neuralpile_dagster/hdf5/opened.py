"""The protocol of open archive files that readers use, and its implementation for local files.

Remote files belong in `ranged`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuralpile_dagster.files import ReadCost

if TYPE_CHECKING:
    import h5py
    import numpy as np


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

        from neuralpile_dagster.errors import ArchiveError
        from neuralpile_dagster.hdf5.foreign import HEAD_BYTES, is_zarr, not_hdf5, zarr_folder

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
