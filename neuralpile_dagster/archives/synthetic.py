"""Contents of the sample archive: small synthetic recordings in every form that the readers accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import TimeSeries

from neuralpile_dagster.archives import synthetic_nwb

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
        synthetic_nwb.add_units(file, trains, **_allen_columns(scene.rng, trains, names, duration_s))
        synthetic_nwb.add_intervals(file, "trials", **_trials(scene.onsets))
        synthetic_nwb.save(file, path)
        synthetic_nwb.rewrite(path, "units/spike_times_index", dtype=index_dtype)
    synthetic_nwb.save(_file("S2", 5), folder / "sub-S2" / "sub-S2_ses-20200105T120000_image.nwb")


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
            synthetic_nwb.add_units(file, trains, columns={"location": names, "quality": ["good"] * len(trains)})
            synthetic_nwb.save(file, folder / f"sub-{subject}" / f"sub-{subject}_ses-{session}_behavior+ecephys.nwb")


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
        file.add_acquisition(
            TimeSeries(name="firing_rates", data=rates, unit="Hz", rate=50.0, description=synthetic_nwb.SYNTHETIC)
        )
        synthetic_nwb.save(file, folder / f"sub-{subject}" / f"sub-{subject}_ses-202001{day:02}_behavior+ecephys.nwb")


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
        contents = {"spks": spks, "note": synthetic_nwb.SYNTHETIC}
        savemat(folder / f"spksSample{letter}_Feb18.mat", contents, do_compression=True)


WRITERS: dict[str, Callable[[Path], None]] = {
    "sample-units": write_units,
    "sample-probes": write_probes,
    "sample-rates": write_rates,
    "sample-eight-probe": write_eight_probe,
}


def _file(subject: str, day: int) -> Any:
    start = synthetic_nwb.START_TIME + timedelta(days=day - 1)
    return synthetic_nwb.new_file(subject, session_id=str(day), start_time=start, species="none (synthetic)")


def _populations(scene: Scene, areas: Sequence[tuple[Population, int]]) -> tuple[Trains, list[str]]:
    """Spike trains of several populations, the last unit silent; and each unit's area."""
    trains = [train for population, n_units in areas for train in scene.trains(population, n_units)]
    names = [population.area for population, n_units in areas for _ in range(n_units)]
    return [*trains[:-1], np.empty(0)], names


def _allen_columns(rng: np.random.Generator, trains: Trains, names: list[str], duration_s: float) -> dict[str, Any]:
    """Keywords of `synthetic_nwb.add_units`: the columns of an Allen file, with areas by each unit's peak channel."""
    n_units = len(trains)
    areas = list(dict.fromkeys(names))
    channels = {area: 850_000_000 + 2 * number for number, area in enumerate(areas)}
    electrodes = synthetic_nwb.Electrodes(
        ids=list(channels.values()),
        locations=areas,
        group_names=["probeA" if number < 2 else "probeB" for number in range(len(areas))],
        positions=[(8_000.0 + 20 * number, 1_500.0 + 400 * number, 7_500.0) for number in range(len(areas))],
    )
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
    unit_ids = (950_000_000 + 3 * np.arange(n_units)).tolist()
    return {"unit_ids": unit_ids, "columns": columns, "electrodes": electrodes}


def _trials(onsets: np.ndarray) -> dict[str, Any]:
    """Keywords of `synthetic_nwb.add_intervals`: a trial of 1 s from each stimulus on (``onsets``: (n_trials,))."""
    numbers = np.arange(len(onsets))
    return {
        "start_time": onsets.tolist(),
        "stop_time": (onsets + 1.0).tolist(),
        "columns": {
            "orientation": (45.0 * (numbers * 7 % 8)).tolist(),
            "rewarded": (numbers % 3 > 0).tolist(),
            "stimulus_name": ["drifting_gratings"] * len(onsets),
        },
    }


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
