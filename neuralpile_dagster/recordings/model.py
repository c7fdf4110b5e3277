"""Reading a session: its open files -> the `Recording` that every reader returns, whatever the lab's file format.

Which readers there are is in `catalog.readers`; how each reads is in a module of its own, imported when it is needed.
Storing recordings belongs in `tables.spike_trains`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neuralpile_dagster.errors import CatalogError, ConfigurationError

if TYPE_CHECKING:
    from neuralpile_dagster.hdf5.opened import OpenFile

BinRule = Literal["histogram", "from_first_spike"]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Unit:
    """One sorted unit: one row of ``spike_counts``, in the same order.

    Attributes
    ----------
    unit_id : int
        Id in the file's units table (for the eight-probe files: cluster id within the probe).
    file : str
        Base name of the archive file that the unit comes from.
    brain_area : str or None
        As named in the file; None if not stated.
    brain_area_from : str or None
        Column it was read from, e.g. ``"units.location"`` or
        ``"units.peak_channel_id -> electrodes.location"``.
    probe : str or None
        Probe or electrode group.
    quality, cell_type : str or None
        The lab's own labels, not interpreted.
    obs_intervals : tuple of (start_s, stop_s), or None
        When the unit was observed; silence outside is not "no spikes".
    """

    unit_id: int
    file: str
    brain_area: str | None = None
    brain_area_from: str | None = None
    probe: str | None = None
    quality: str | None = None
    cell_type: str | None = None
    obs_intervals: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class SessionFacts:
    """Session metadata stated by the file; None where not stated.

    ``start_time`` and ``reference_time`` (when the session clock that spike times are on
    was 0) are ISO 8601 text as stored; ``age`` ISO 8601 duration or the lab's own text.
    ``description`` is the file's session description.
    """

    subject: str | None = None
    sex: str | None = None
    age: str | None = None
    species: str | None = None
    start_time: str | None = None
    reference_time: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class SpikeTrains:
    """Ragged spike times: unit k has ``spike_times[ends[k-1]:ends[k]]`` (first start 0).

    Attributes
    ----------
    spike_times : numpy.ndarray, float64, shape (n_spikes,)
        Seconds, in the file's order; may hold NaN and negative times.
    ends : numpy.ndarray, int64, shape (n_units,)
        Monotone; ``ends[-1] == n_spikes``.
    bin_rule : {"histogram", "from_first_spike"}
        How bins are placed (see `neuralpile_dagster.binning`).
    """

    spike_times: np.ndarray
    ends: np.ndarray
    bin_rule: BinRule = "histogram"

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.ends)

    @property
    def n_spikes(self) -> int:
        """Number of spikes read, of all units."""
        return len(self.spike_times)


@dataclass(frozen=True)
class BinnedCounts:
    """Ready-made counts, from a file that holds binned rates instead of spike times.

    Attributes
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    bin_width_s : float
        The file's bin width in seconds.
    spikes_read : int
        Sum of the rounded rates, before saturation.
    missing_bins : int
        NaN bins, stored as 0.
    saturated_bins, lost_to_saturation : int
        Bins above 255, and the spikes above 255 in them.
    bins_dropped : int
        Last bins of the file that did not fill a bin.
    """

    counts: np.ndarray
    bin_width_s: float
    spikes_read: int
    missing_bins: int = 0
    saturated_bins: int = 0
    lost_to_saturation: int = 0
    bins_dropped: int = 0

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.counts.shape[0])


@dataclass(frozen=True)
class Recording:
    """Contents of one session: data, units in row order, facts.

    ``notes`` lists contents of the file that were ignored because they contradict each
    other (never spikes: invalid spikes fail the session).
    """

    data: SpikeTrains | BinnedCounts
    units: tuple[Unit, ...]
    facts: SessionFacts
    notes: tuple[str, ...] = ()


def read_session(reader: str, files: Sequence[OpenFile], options: Mapping[str, Any] = NO_OPTIONS) -> Recording:
    """Read a session's files, in their order.

    Parameters
    ----------
    reader : str
        Its name (`catalog.readers`), e.g. ``"units"``.
    files : sequence of OpenFile
        At least one; several (e.g. the probes of one session) only for a reader that takes several.
    options : mapping
        ``reader_options`` of the catalog row.

    Raises
    ------
    ConfigurationError
        There is no such reader, no file, more files than the reader takes, or an option that it does not have.
    RecordingError
        A file has nothing to read, or is damaged; the message names it.
    """
    from neuralpile_dagster.catalog.readers import Options, get_reader  # pydantic, which who trains does not need

    row = get_reader(reader)
    if not files:
        raise ConfigurationError("a session without files cannot be read")
    if len(files) > 1 and not row.several_files:
        raise CatalogError(
            f"the reader {row.name} takes one file per session",
            found=f"{len(files)} files, the first {files[0].name}",
            remedy="change `same_session` and `several` of the dataset's session rule",
        )
    read = pkgutil.resolve_name(row.reads)
    what = files if row.several_files else files[0]
    configured = row.configured(options)
    recording: Recording = read(what) if type(configured) is Options else read(what, configured)
    return recording


def reader_version(reader: str, options: Mapping[str, Any] = NO_OPTIONS) -> str:
    """The reader's code version, with its options; raises `ConfigurationError` when there is no such reader."""
    from neuralpile_dagster.catalog.readers import get_reader

    return get_reader(reader).version_of(options)
