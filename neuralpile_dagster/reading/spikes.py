"""A session's spike times, which are published beside its spike counts: as arrays, and in the form of torch_brain.

Bins of another width start from them; binning as the pile does it is in `binning`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.recordings.model import Recording, SpikeTrains
from neuralpile_dagster.tables.spike_trains import read_recording


def spike_times(file: str | Path) -> list[np.ndarray]:
    """Spike times of every unit of a session, as the lab's file has them, to the last bit.

    Parameters
    ----------
    file : str or Path
        ``spike_trains/<session>.parquet`` of a store, or ``spikes/<session>.parquet`` of a published repository.

    Returns
    -------
    list of numpy.ndarray, float64, shape (n_spikes,)
        Seconds, in the file's order, one array for each unit in the order of the session's spike counts. NaN and
        negative times are kept where the file has them.

    Raises
    ------
    ConfigurationError
        There is no such file.
    TableError
        The file is damaged, is of another kind, or holds the counts of a session that was published without times.
    """
    trains = _trains(Path(file))[1]
    return np.split(trains.spike_times, trains.ends[:-1]) if trains.n_units else []


def to_brainset(file: str | Path, target: str | Path) -> None:
    """Convert a session's spike times to the HDF5 form of temporaldata, which torch_brain trains on.

    ``spikes`` (``timestamps`` in seconds, sorted; ``unit_index``), ``units`` (``id``, ``brain_area``, ``probe``,
    ``quality``, ``cell_type``; empty texts where unknown), ``subject`` and ``domain``, from the first spike to the
    last. NaN times are left out.

    Parameters
    ----------
    file : str or Path
        See `spike_times`.
    target : str or Path
        HDF5 file to write; appears complete or not at all.

    Raises
    ------
    ConfigurationError
        There is no such file, or the package temporaldata is not installed.
    TableError
        See `spike_times`; or there is no spike.
    """
    try:
        from temporaldata import ArrayDict, Data, Interval, IrregularTimeSeries
    except ImportError as error:
        raise ConfigurationError(
            "temporaldata is not installed", remedy="pip install temporaldata (or pytorch_brain, which needs it)"
        ) from error
    import h5py

    recording, trains = _trains(Path(file))
    unit_index = np.repeat(np.arange(trains.n_units), np.diff(trains.ends, prepend=0))
    order = np.argsort(trains.spike_times, kind="stable")
    order = order[~np.isnan(trains.spike_times[order])]
    times = trains.spike_times[order]
    if not len(times):
        raise TableError(f"{file} has no spikes to convert")
    domain = Interval(float(times[0]), float(times[-1]))
    labels = {
        name: np.array([getattr(unit, name) or "" for unit in recording.units], dtype=object).astype(str)
        for name in ("brain_area", "probe", "quality", "cell_type")
    }
    data = Data(
        spikes=IrregularTimeSeries(timestamps=times, unit_index=unit_index[order], domain=domain),
        units=ArrayDict(id=np.array([str(unit.unit_id) for unit in recording.units]), **labels),
        subject=Data(id=recording.facts.subject or "", species=recording.facts.species or ""),
        domain=domain,
    )
    with atomic_write(Path(target)) as aside, h5py.File(aside, "w") as opened:
        data.to_hdf5(opened)


def _trains(file: Path) -> tuple[Recording, SpikeTrains]:
    if not file.is_file():
        raise ConfigurationError(
            f"the spike times {file} cannot be read",
            found="a folder" if file.is_dir() else "no such file",
            expected="spike_trains/<session>.parquet of a store, or spikes/<session>.parquet of a published repository",
            remedy="correct the path, or copy the file to this machine first",
        )
    recording = read_recording(file)
    if not isinstance(recording.data, SpikeTrains):
        raise TableError(f"{file} holds ready-made counts", expected="spike times, which the lab did not publish")
    return recording, recording.data
