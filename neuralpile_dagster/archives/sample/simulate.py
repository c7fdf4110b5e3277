"""Spike trains of made-up populations: enough rhythm, response and silence that their rasters look like something.

Nothing here is a model of anything; no number is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        onsets = np.arange(1.0, duration_s - 1.0, STIMULUS_EVERY_S) + rng.uniform(0, 0.4)
        since = self.t - onsets[np.clip(np.searchsorted(onsets, self.t, "right") - 1, 0, None)] - 0.04
        self.response = np.where(since > 0, (since / 0.06) * np.exp(1 - since / 0.06), 0.0)

    def trains(self, population: Population, n_units: int) -> list[np.ndarray]:
        """Sorted spike times (float64, seconds) of each unit; units are in the order of their place in the lap."""
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
