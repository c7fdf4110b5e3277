"""Contents of the sample archive: small synthetic recordings in every form that the readers accept.

Everything written says that it is synthetic. Columns of NWB files are written flat, so that a file takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.common import VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.device import Device
from pynwb.ecephys import ElectrodeGroup
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.misc import Units

SYNTHETIC = "SYNTHETIC: made by a program, not recorded from an animal"
START_TIME = datetime(2020, 1, 1, 12, 0, tzinfo=UTC)
Trains = list[np.ndarray]
SEED = 20200101
STEP_S = 0.005
CLOCK_HZ = 30_000  # times lie on the clock of a Neuropixels probe
LAP_S = 16.0
STIMULUS_EVERY_S = 2.5


@dataclass(frozen=True)
class Population:
    """How the units of one made-up brain area fire.

    Attributes
    ----------
    area : str
    mean_rate_hz : float
        Median over units of the mean rate; units differ by a factor of about 2.
    rhythm_hz, rhythm_depth : float
        A shared oscillation, and how deep it cuts (0 to 1).
    evoked : float
        How many times its rate a unit adds after a stimulus.
    laps : float
        How much a unit prefers its own place in a lap of `LAP_S` (0 to 1); sorted, units make diagonals.
    bursts : float
        Share of spikes that further spikes follow within milliseconds.
    """

    area: str
    mean_rate_hz: float
    rhythm_hz: float = 4.0
    rhythm_depth: float = 0.2
    evoked: float = 0.0
    laps: float = 0.0
    bursts: float = 0.05


VISUAL = Population("VISp", 4.0, rhythm_hz=5.0, rhythm_depth=0.3, evoked=5.0)
HIPPOCAMPUS = Population("CA1", 2.5, rhythm_hz=8.0, rhythm_depth=0.8, laps=0.95, bursts=0.3)
THALAMUS = Population("LGd", 9.0, rhythm_hz=3.0, rhythm_depth=0.5, evoked=2.5, bursts=0.15)
MOTOR = Population("MOs", 5.0, rhythm_hz=0.8, rhythm_depth=0.7, laps=0.4)
PREFRONTAL = Population("PL", 3.5, rhythm_hz=1.2, rhythm_depth=0.6, laps=0.6)
CINGULATE = Population("ACAd", 4.5, rhythm_hz=4.0, rhythm_depth=0.5, evoked=1.5)


class Scene:
    """What all units of a session share: time, arousal, and when stimuli came.

    Parameters
    ----------
    rng : numpy.random.Generator
    duration_s : float
    """

    def __init__(self, rng: np.random.Generator, duration_s: float) -> None:
        self.rng = rng
        self.t = np.arange(0.0, duration_s, STEP_S)
        self.arousal = _slow_noise(rng, len(self.t), 12.0)
        self.onsets = onsets = np.arange(1.0, duration_s - 1.0, STIMULUS_EVERY_S) + rng.uniform(0, 0.4)
        since = self.t - onsets[np.clip(np.searchsorted(onsets, self.t, "right") - 1, 0, None)] - 0.04
        self.response = np.where(since > 0, (since / 0.06) * np.exp(1 - since / 0.06), 0.0)

    def trains(self, population: Population, n_units: int) -> list[np.ndarray]:
        """Spike times of each unit; units are in the order of their place in the lap.

        Returns
        -------
        list of numpy.ndarray, float64, shape (n_spikes,)
            Seconds, sorted; one array per unit.
        """
        rng, t = self.rng, self.t
        places = np.sort(rng.uniform(0, 1, n_units))
        lap = (t + 0.7 * np.sin(2 * np.pi * t / 47.0)) / LAP_S
        phase = 2 * np.pi * population.rhythm_hz * t + 3 * _slow_noise(rng, len(t), 1.0)
        trains = []
        for place in places:
            base = population.mean_rate_hz * rng.lognormal(0.0, 0.6)
            rhythm = 1 + population.rhythm_depth * np.cos(phase + rng.normal(0, 0.5))
            away = np.abs((lap - place + 0.5) % 1.0 - 0.5)
            field = (1 - population.laps) + population.laps * 6.0 * np.exp(-0.5 * (away / 0.05) ** 2)
            evoked = 1 + population.evoked * rng.uniform(0.2, 1.8) * self.response
            rate = base * rhythm * field * evoked * np.exp(0.5 * rng.normal(1, 0.4) * self.arousal)
            trains.append(_spikes(rng, rate, population.bursts))
        return trains


def write_units(folder: Path) -> None:
    """Four Allen-like sessions of two subjects, each with another dtype of its index, and a file without units."""
    plans: tuple[tuple[str, int, float, str], ...] = (
        ("S1", 1, 240.0, "uint32"),
        ("S1", 2, 200.0, "int32"),
        ("S2", 3, 300.0, "int64"),
        ("S2", 4, 180.0, "uint64"),
    )
    for subject, day, duration_s, index_dtype in plans:
        scene = Scene(np.random.default_rng([SEED, day]), duration_s)
        areas = ((VISUAL, 24 + 4 * day), (HIPPOCAMPUS, 30), (THALAMUS, 16 + 2 * day), (MOTOR, 12))
        trains, names = _populations(scene, areas)
        path = folder / f"sub-{subject}" / f"sub-{subject}_ses-202001{day:02}T120000.nwb"
        file = _file(subject, day)
        _add_allen_units(file, scene.rng, trains, names, duration_s)
        file.trials = _trials(scene.onsets)
        save(file, path)
        rewrite(path, "units/spike_times_index", dtype=index_dtype)
    save(_file("S2", 5), folder / "sub-S2" / "sub-S2_ses-20200105T120000_image.nwb")


def write_probes(folder: Path) -> None:
    """Two sessions of two and three probes; every probe has a file of its own and ends at another time."""
    for subject, day, n_probes in (("S1", 1, 2), ("S2", 2, 3)):
        for probe in range(n_probes):
            rng = np.random.default_rng([SEED, 10 * day + probe])
            trains, names = _populations(
                Scene(rng, 150.0 - 20 * probe), ((PREFRONTAL, 18 + 4 * probe), (CINGULATE, 14), (MOTOR, 8))
            )
            session = f"{subject}-202001{day:02}-probe{probe}"
            file = _file(subject, day)
            file.units = units_table(trains, {"location": names, "quality": ["good"] * len(trains)})
            save(file, folder / f"sub-{subject}" / f"sub-{subject}_ses-{session}_behavior+ecephys.nwb")


def write_rates(folder: Path) -> None:
    """Two sessions of firing rates, Hz in 20 ms bins: smoothed counts, with halves to round and missing bins."""
    for subject, day in (("R1", 1), ("R2", 2)):
        rng = np.random.default_rng([SEED, 100 + day])
        duration_s = 180.0
        trains, _ = _populations(Scene(rng, duration_s), ((HIPPOCAMPUS, 28), (VISUAL, 20)))
        edges = np.arange(int(duration_s * 50) + 1) / 50
        counts = np.stack([np.histogram(train, edges)[0] for train in trains], axis=1)
        smoothed = np.apply_along_axis(np.convolve, 0, counts.astype(float), [0.25, 0.5, 0.25], "same")
        rates = smoothed * 50.0
        rates[rng.uniform(size=rates.shape) < 1e-4] = np.nan
        rates[:3, 0] = (25.0, 75.0, 125.0)  # halves: 0, 2 and 2
        file = _file(subject, day)
        file.add_acquisition(TimeSeries(name="firing_rates", data=rates, unit="Hz", rate=50.0, description=SYNTHETIC))
        save(file, folder / f"sub-{subject}" / f"sub-{subject}_ses-202001{day:02}_behavior+ecephys.nwb")


def write_eight_probe(folder: Path) -> None:
    """Two MATLAB files of eight probes: cluster ids from 1 with gaps, times that do not begin at 0."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    areas = (VISUAL, HIPPOCAMPUS, THALAMUS, MOTOR, PREFRONTAL, CINGULATE, VISUAL, THALAMUS)
    for letter, number in (("A", 1), ("B", 2)):
        rng = np.random.default_rng([SEED, 1000 + number])
        scene = Scene(rng, 120.0)
        spks = np.empty((1, len(areas)), dtype=[("st", object), ("clu", object), ("Wheights", object)])
        for probe, area in enumerate(areas):
            trains = scene.trains(area, 7 + probe)
            ids = np.sort(rng.permutation(len(trains) + 3)[: len(trains)]) + 1
            times = np.concatenate(trains)
            order = np.argsort(times, kind="stable")
            clusters = np.repeat(ids, [len(train) for train in trains])
            spks["st"][0, probe] = (times[order] + 5.0)[:, None]
            spks["clu"][0, probe] = clusters[order].astype(float)[:, None]
            spks["Wheights"][0, probe] = rng.uniform(0, 3840, (ids.max(), 1))
        contents = {"spks": spks, "note": SYNTHETIC}
        savemat(folder / f"spksSample{letter}_Feb18.mat", contents, do_compression=True)


WRITERS: dict[str, Callable[[Path], None]] = {
    "sample-units": write_units,
    "sample-probes": write_probes,
    "sample-rates": write_rates,
    "sample-eight-probe": write_eight_probe,
}


def _file(subject_id: str, day: int) -> NWBFile:
    """An NWB file in memory without any data; the identifier is fixed by subject and day, so files repeat."""
    return NWBFile(
        session_description=SYNTHETIC,
        identifier=f"synthetic-{subject_id}-{day}",
        session_start_time=START_TIME + timedelta(days=day - 1),
        session_id=str(day),
        subject=Subject(subject_id=subject_id, sex="U", species="none (synthetic)", description=SYNTHETIC),
    )


def _populations(scene: Scene, areas: Sequence[tuple[Population, int]]) -> tuple[Trains, list[str]]:
    """Spike trains of several populations, the last unit silent; and each unit's area."""
    trains = [train for population, n_units in areas for train in scene.trains(population, n_units)]
    names = [population.area for population, n_units in areas for _ in range(n_units)]
    return [*trains[:-1], np.empty(0)], names


def _add_allen_units(
    file: NWBFile, rng: np.random.Generator, trains: Trains, names: list[str], duration_s: float
) -> None:
    """Add units with the columns of an Allen file, and the electrodes of their peak channels, one an area."""
    n_units = len(trains)
    areas = list(dict.fromkeys(names))
    channels = {area: 850_000_000 + 2 * number for number, area in enumerate(areas)}
    device = Device(name="synthetic probe", description=SYNTHETIC)
    file.add_device(device)
    groups = [
        ElectrodeGroup(name=name, description=SYNTHETIC, location="unknown", device=device)
        for name in ("probeA", "probeB")
    ]
    file.add_electrode_group(groups)
    for number, (area, channel) in enumerate(channels.items()):
        place = {"x": 8_000.0 + 20 * number, "y": 1_500.0 + 400 * number, "z": 7_500.0}
        file.add_electrode(id=channel, location=area, group=groups[number >= 2], **place)
    sizes = [len(train) for train in trains]
    columns = {
        "quality": ["good" if good else "noise" for good in rng.uniform(size=n_units) < 0.8],
        "firing_rate": [size / duration_s for size in sizes],
        "presence_ratio": rng.uniform(0.8, 1, n_units).tolist(),
        "isi_violations": rng.exponential(0.1, n_units).tolist(),
        "amplitude_cutoff": rng.uniform(0, 0.2, n_units).tolist(),
        "snr": rng.uniform(1, 6, n_units).tolist(),
        "waveform_duration": rng.uniform(0.2, 0.8, n_units).tolist(),
        "cluster_id": list(range(n_units)),
        "peak_channel_id": [channels[name] for name in names],
        "spike_amplitudes": [rng.lognormal(-9, 0.2, size) for size in sizes],
        "waveform_mean": list(rng.normal(0, 1e-5, (n_units, 20, 4))),
    }
    file.units = units_table(trains, columns, (950_000_000 + 3 * np.arange(n_units)).tolist())


def _trials(onsets: np.ndarray) -> TimeIntervals:
    """Trials of 1 s from each stimulus on; ``onsets`` are seconds, float64, shape (n_trials,)."""
    numbers = np.arange(len(onsets))
    columns = {
        "start_time": onsets.tolist(),
        "stop_time": (onsets + 1.0).tolist(),
        "orientation": (45.0 * (numbers * 7 % 8)).tolist(),
        "rewarded": (numbers % 3 > 0).tolist(),
        "stimulus_name": ["drifting_gratings"] * len(onsets),
    }
    return TimeIntervals(name="trials", description=SYNTHETIC, columns=flat_columns(columns), id=numbers.tolist())


def _slow_noise(rng: np.random.Generator, n_steps: int, time_constant_s: float) -> np.ndarray:
    """Gaussian noise smoothed over ``time_constant_s``, of unit variance, shape (n_steps,)."""
    step_s = time_constant_s / 4
    knots = rng.normal(size=int(n_steps * STEP_S / step_s) + 6)
    smooth = np.convolve(knots, np.hanning(7)[1:-1], "same")
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.asarray(np.interp(np.arange(n_steps) * STEP_S, np.arange(len(smooth)) * step_s, smooth))


def _spikes(rng: np.random.Generator, rate_hz: np.ndarray, bursts: float) -> np.ndarray:
    """Spike times of an inhomogeneous Poisson process with bursts, on the clock; shape (n_spikes,)."""
    counts = rng.poisson(rate_hz * STEP_S)
    times = (np.repeat(np.arange(len(counts)), counts) + rng.uniform(size=counts.sum())) * STEP_S
    first = times[rng.uniform(size=len(times)) < bursts]
    followers = [first + rng.uniform(0.003, 0.006, len(first)) * n for n in (1, 2)]
    times = np.concatenate([times, *followers])
    return np.unique(np.rint(times[times < len(counts) * STEP_S] * CLOCK_HZ)) / CLOCK_HZ


def units_table(
    trains: Sequence[np.ndarray], columns: Mapping[str, Sequence[Any]], unit_ids: Sequence[int] | None = None
) -> Units:
    """A units table.

    Parameters
    ----------
    trains : sequence of numpy.ndarray, float, shape (n_spikes,)
        Spike times of each unit, seconds; stored as float64.
    columns : mapping
        As of `flat_columns`.
    unit_ids : sequence of int, optional
        By default 0, 1, 2, ...
    """
    ids = list(range(len(trains))) if unit_ids is None else list(unit_ids)
    written = [*ragged("spike_times", trains, np.empty(0)), *flat_columns(columns)]
    return Units(name="units", description="synthetic units", columns=written, id=ids)


def flat_columns(columns: Mapping[str, Sequence[Any]]) -> list[VectorData]:
    """Columns of one value per row, or ragged ones of one float array per row."""
    written: list[VectorData] = []
    for name, values in columns.items():
        if len(values) and isinstance(values[0], np.ndarray) and name != "waveform_mean":
            written.extend(ragged(name, values, np.empty(0)))
        else:
            data = np.stack(values) if name == "waveform_mean" else list(values)
            written.append(VectorData(name=name, description=f"synthetic {name}", data=data))
    return written


def ragged(name: str, parts: Sequence[Any], empty: np.ndarray) -> tuple[VectorData, VectorIndex]:
    """A column that holds several values per unit, and its index.

    Parameters
    ----------
    name : str
    parts : sequence of array_like, shape (n_values, ...)
        The values of each unit.
    empty : numpy.ndarray, shape (0, ...)
        Of the column's dtype; its further dimensions are those of one value.

    Returns
    -------
    VectorData, VectorIndex
        The flat values, and where each unit's values end.
    """
    flat = np.concatenate([empty, *[np.asarray(part, empty.dtype).reshape(-1, *empty.shape[1:]) for part in parts]])
    data = VectorData(name=name, description=f"synthetic {name}", data=flat)
    ends = np.cumsum([len(part) for part in parts], dtype=np.uint64)
    dtype = np.min_scalar_type(int(ends[-1]) if len(ends) else 0)  # as pynwb chooses it
    return data, VectorIndex(name=f"{name}_index", target=data, data=ends.astype(dtype))


def save(nwb: NWBFile, path: Path) -> None:
    """Write the file, contiguous (as Allen's are); make its folder first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb, expandable=[])


def rewrite(path: Path, dataset: str, values: Any = None, **create: Any) -> None:
    """Replace a dataset of an HDF5 file, where pynwb fixes its form; attributes and references to it are kept.

    Parameters
    ----------
    dataset : str
        Path inside the file, e.g. ``"units/spike_times_index"``.
    values : array, optional
        The new values; by default the old ones.
    **create
        For `h5py.Group.create_dataset`: ``dtype``, ``chunks``, ``compression``, ``shuffle``, ...
    """
    with h5py.File(path, "r+") as file:
        old = file[dataset]
        attributes = dict(old.attrs)
        values = old[()] if values is None else values
        if "dtype" in create:
            values = np.asarray(values).astype(create["dtype"])
        del file[dataset]
        new = file.create_dataset(dataset, data=values, **create)
        new.attrs.update(attributes)
        index = file.get(f"{dataset}_index")
        if index is not None:
            index.attrs["target"] = new.ref
