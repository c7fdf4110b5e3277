"""Registry of readers by name: a session's open files -> `Recording`.

How a format is read belongs in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralpile_dagster.catalog.model import ReaderName
from neuralpile_dagster.errors import CatalogError, ConfigurationError
from neuralpile_dagster.hdf5.opened import OpenFile

if TYPE_CHECKING:
    from neuralpile_dagster.recordings.model import Recording


@dataclass(frozen=True)
class Reader:
    """Reader of one file format.

    ``version`` changes whenever the same file would give another `Recording`:
    it is part of the inputs of stored spike trains.
    """

    version: str
    read: Callable[[Sequence[OpenFile]], Recording]


def _units(files: Sequence[OpenFile]) -> Recording:
    from neuralpile_dagster.recordings.nwb.units import read_nwb_units

    return read_nwb_units(files)


def _firing_rates(files: Sequence[OpenFile]) -> Recording:
    from neuralpile_dagster.recordings.nwb.firing_rates import read_nwb_firing_rates

    return read_nwb_firing_rates(_only(files))


def _eight_probe_mat(files: Sequence[OpenFile]) -> Recording:
    from neuralpile_dagster.recordings.probes_mat import read_probes_mat

    return read_probes_mat(_only(files))


READERS: Mapping[ReaderName, Reader] = {
    "units": Reader("units-2", _units),
    "firing_rates": Reader("firing-rates-2", _firing_rates),
    "eight_probe_mat": Reader("eight-probe-mat-1", _eight_probe_mat),
}


def read_session(reader: ReaderName, files: Sequence[OpenFile]) -> Recording:
    """Read a session's files, in their order.

    Parameters
    ----------
    reader : {"units", "firing_rates", "eight_probe_mat"}
    files : sequence of OpenFile
        At least one; only ``units`` takes several (probes of one session).

    Raises
    ------
    ConfigurationError
        There is no such reader, no file, or more files than the reader takes.
    RecordingError
        A file has nothing to read, or is damaged; the message names it.
    """
    if not files:
        raise ConfigurationError("a session without files cannot be read")
    return _reader(reader).read(files)


def reader_version(reader: ReaderName) -> str:
    """The reader's code version; raises `ConfigurationError` when there is no such reader."""
    return _reader(reader).version


def _reader(name: ReaderName) -> Reader:
    if name not in READERS:
        raise ConfigurationError(f"there is no reader {name!r}", expected=", ".join(READERS))
    return READERS[name]


def _only(files: Sequence[OpenFile]) -> OpenFile:
    if len(files) > 1:
        raise CatalogError(
            "this reader takes one file per session",
            found=f"{len(files)} files, the first {files[0].name}",
            remedy="change `same_session` and `several` of the dataset's session rule",
        )
    return files[0]
