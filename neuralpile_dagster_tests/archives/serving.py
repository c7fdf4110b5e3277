"""What the tests of archives on the network share: quick limits, a served session, its counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from neuralpile_dagster.archives.dandi.archive import DandiArchive
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.model import Access, Archive, ArchiveFile
from neuralpile_dagster.binning.binner import Binner
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hdf5.opened import LocalFile, OpenFile
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.recordings.model import SpikeTrains
from neuralpile_dagster.recordings.readers import read_session
from neuralpile_dagster_tests.nwb import poisson_trains, write_units_nwb
from neuralpile_dagster_tests.servers.dandi_server import DandiServer

QUICK = RetryPolicy(attempts=3, read_timeout_s=30.0, backoff_s=0.01, backoff_max_s=0.05, retry_after_max_s=0.05)
IMPATIENT = replace(QUICK, read_timeout_s=0.6)  # only where the server is silent: it makes a busy machine look silent
SOURCE = Source(id="990002", version="0.240101.0000")
PATH = "sub-S1/sub-S1_ses-1_ecephys.nwb"
BLOBS = r"^/(blobs|signed)/"


def write_session(path: Path, compression: str | None = None, seed: int = 0) -> Path:
    """A synthetic session of 40 units whose spike times fill several blocks."""
    trains = poisson_trains(40, 400.0, 30.0, seed)
    return write_units_nwb(path, trains, compression=compression, chunks=(20_000,) if compression else None)


def serve_session(server: DandiServer, file: Path) -> None:
    """Publish a file as the only one of `SOURCE`."""
    server.store.add_file(SOURCE.id, SOURCE.version, PATH, file)


def limits_for(fault: str) -> RetryPolicy:
    """`IMPATIENT` for faults named silence, else `QUICK`."""
    return IMPATIENT if "silence" in fault else QUICK


def archive_of(
    server: DandiServer,
    folder: Path,
    api_key: str | None = None,
    limits: RetryPolicy = QUICK,
    connections: int = 4,
) -> DandiArchive:
    """The archive under test, with its cache in ``folder``."""
    return DandiArchive(server.api_url, api_key, DownloadCache(folder / "cache"), connections, limits)


def counts(opened: OpenFile) -> np.ndarray:
    """Spike counts of the one session in a file, uint8, units x bins."""
    data = read_session("units", [opened]).data
    assert isinstance(data, SpikeTrains)
    binner = Binner(data, 0.02)
    return binner.counts(0, binner.n_bins)


def local_counts(path: Path) -> np.ndarray:
    """The same from a local file."""
    return counts(LocalFile(path.name, path))


def only_file(archive: Archive, source: Source = SOURCE) -> ArchiveFile:
    """The one file of a source."""
    (file,) = archive.list_files(source).files
    return file


def read_counts(archive: Archive, access: Access, file: ArchiveFile | None = None) -> tuple[np.ndarray, ReadCost]:
    """Counts of `SOURCE`'s file, listed now unless it is given, and what they cost."""
    with archive.open(SOURCE, file or only_file(archive), access) as opened:
        return counts(opened), opened.cost


def listed(content: bytes, name: str = "sub-1/a.nwb") -> ArchiveFile:
    digest = hashlib.sha256(content).hexdigest()
    return ArchiveFile(path=name, size=len(content), file_id=name, digests={"sha256": digest})
