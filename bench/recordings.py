"""Synthetic recordings of any size, laid out like an Allen session: contiguous, with columns that nobody needs.

``python -m bench.recordings PATH N_UNITS N_BINS N_SPIKES [SEED]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

BIN_WIDTH_S = 0.02


def spike_trains(n_units: int, n_bins: int, n_spikes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bursty trains of units of log-normal rates, on a 30 kHz clock aligned to another (float64 s), with ends."""
    rng = np.random.default_rng(seed)
    duration = n_bins * BIN_WIDTH_S - 0.01
    rates = np.clip(rng.lognormal(0.9, 1.2, n_units), 0.05, 80)
    ends = np.cumsum(np.floor(rates / rates.sum() * n_spikes).astype(np.int64))
    times = np.empty(ends[-1])
    start = 0
    for end in ends:
        intervals = rng.standard_gamma(0.6, end - start)
        train = np.cumsum(intervals)
        if end > start:
            ticks = np.rint(train * (duration * 0.9995 / train[-1]) * 30_000)
            times[start:end] = ticks / 29_999.95 + 0.0123
        start = end
    times[-1] = duration  # the latest spike decides the number of bins
    return times, ends


def write_recording(path: Path, n_units: int, n_bins: int, n_spikes: int, seed: int = 0) -> None:
    """Write an NWB file with amplitudes as big as the spike times, and mean waveforms (82 samples of 374 channels)."""
    # pynwb, which who wants spike trains alone does not need
    from neuralpile_dagster_tests.servers.nwb_files import add_units, new_file, save

    times, ends = spike_trains(n_units, n_bins, n_spikes, seed)
    trains = np.split(times, ends[:-1])
    file = new_file("synthetic")
    waveforms = np.zeros((n_units, 82 * 374))
    add_units(file, trains, columns={"spike_amplitudes": trains, "waveform_mean": waveforms})
    save(file, path, contiguous=True)


if __name__ == "__main__":
    write_recording(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))
