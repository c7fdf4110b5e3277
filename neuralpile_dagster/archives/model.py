"""What an archive is: it lists the files of a pinned version and opens one for reading.

Archives know nothing of Dagster, bins or tables. Listing costs a few requests,
never one per file; opening reads no more than is asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import h5py
    import numpy as np

    from neuralpile_dagster.catalog.model import Source

Access = Literal["ranges", "download"]


class Model(BaseModel):
    """Base of what is stored as JSON: frozen, strict."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArchiveFile(Model):
    """One file of an archive (a DANDI "asset"), as listed.

    ``variables`` is DANDI's ``variableMeasured``; ``None`` means that it could
    not be known (a local file that does not open): such a file is never
    dropped for lacking a variable, it fails when it is read.
    The same holds for a DANDI file whose ``variableMeasured`` is invalid.
    ``digests`` maps an algorithm (``sha256``, ``dandi-etag``, ``md5``) to hex.
    """

    path: str
    size: int
    file_id: str
    digests: dict[str, str] = {}
    variables: tuple[str, ...] | None = ()
    modified: str | None = None
    url: str | None = None


class Citation(Model):
    """What a source's own metadata says about who made it and how it may be used."""

    title: str | None = None
    authors: tuple[str, ...] = ()
    citation: str | None = None
    license: str | None = None
    doi: str | None = None
    url: str | None = None


class Listing(Model):
    """The files of one version of a source, at one time.

    ``frozen`` is false for a mutable version (a DANDI draft);
    ``version_note`` says so when another version than the pinned one was used,
    ``newer_version`` when the pinned one was and a newer one is published.
    ``state``: see `updates.SourceState`; None where the files are all that is known.
    ``notes`` name the fields of the archive's documents that were invalid and not used.
    """

    archive: str
    source_id: str
    version: str
    version_note: str | None = None
    newer_version: str | None = None
    state: str | None = None
    frozen: bool
    synthetic: bool = False
    listed_at: datetime
    files: tuple[ArchiveFile, ...]
    citation: Citation = Citation()
    notes: tuple[str, ...] = ()


@dataclass
class ReadCost:
    """What reading cost so far (bytes as they crossed the network or the disk; seconds of waiting)."""

    bytes_read: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    def add(self, other: ReadCost) -> None:
        """Add another cost to this one."""
        self.bytes_read += other.bytes_read
        self.requests += other.requests
        self.retries += other.retries
        self.seconds += other.seconds


class OpenFile(Protocol):
    """One archive file, open for reading. Obtained from `Archive.open`, valid inside its ``with``."""

    name: str  # the path as listed; for messages
    cost: ReadCost

    def hdf5(self) -> h5py.File:
        """Open as HDF5; the caller closes it. Raises `DamagedRecording` when it is not HDF5."""
        ...

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """All values of one HDF5 dataset of this file, the fastest way this archive knows."""
        ...

    def local_path(self) -> Path:
        """A complete, verified local copy, for formats that cannot be read by ranges."""
        ...


class Archive(Protocol):
    """Where recordings come from."""

    def list_files(self, source: Source) -> Listing:
        """List the files of the source's version, in path order.

        Raises `ArchiveError` when the source does not exist, `ArchiveUnavailable`
        when the archive cannot be reached.
        """
        ...

    def open(self, source: Source, file: ArchiveFile, access: Access = "ranges") -> AbstractContextManager[OpenFile]:
        """Open one listed file for reading."""
        ...


@dataclass
class LocalFile:
    """An `OpenFile` that is a file on this machine."""

    name: str
    path: Path
    cost: ReadCost = field(default_factory=ReadCost)

    def hdf5(self) -> h5py.File:
        """Open as HDF5; see `OpenFile.hdf5`."""
        import h5py

        from neuralpile_dagster.errors import ArchiveError, DamagedRecording

        if not self.path.is_file():
            raise ArchiveError(
                f"{self.name} is not there",
                found=f"no file at {self.path}",
                remedy="restore the file, or materialize the dataset's manifest again if it is gone for good",
            )
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise DamagedRecording(
                f"{self.name} cannot be opened as HDF5",
                found=f"{self.path.stat().st_size:,} bytes, {error}",
                expected="a complete NWB (HDF5) file",
                remedy="fetch the file again; it is truncated, damaged or of another format",
            ) from error

    def read(self, dataset: h5py.Dataset) -> np.ndarray:
        """Read one dataset; see `OpenFile.read`."""
        values: np.ndarray = dataset[()]
        self.cost.bytes_read += dataset.id.get_storage_size()
        return values

    def local_path(self) -> Path:
        """The file itself."""
        return self.path
