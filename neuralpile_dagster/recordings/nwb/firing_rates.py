"""Reader ``firing_rates``: NWB files that hold binned firing rates instead of spike times (docs/binning.md)."""

from __future__ import annotations

from pathlib import PurePosixPath

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording, EmptyRecording, NoUnits
from neuralpile_dagster.hdf5.careful import find_dataset, names_in, read_array, shape_of
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import read_attribute
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, Unit
from neuralpile_dagster.recordings.nwb.table import read_facts

RATES = "/acquisition/firing_rates"
BINS_PER_SECOND = 50  # the bins of these files are 20 ms
BIN_WIDTH_S = 1 / BINS_PER_SECOND
MAX_TOKENS = 2_000_000_000  # of one session, 16 GB as float64; the dataset's sessions have 1.3 million on average
MAX_RATE_HZ = 1e12  # above any real rate; below it all sums of counts are exact integers
BLOCK_TOKENS = 1 << 20


def read_nwb_firing_rates(opened: OpenFile) -> Recording:
    """Read ``/acquisition/firing_rates/data`` (bins, units), in Hz, and turn it into counts.

    A count is the rate divided by 50, in the file's own precision, rounded half
    to even, at most 255. NaN counts 0 and is reported as missing. Units are
    known by their row numbers only. Holds the rates as stored and the counts.

    Raises
    ------
    NoUnits
        There are no firing rates, or no units.
    EmptyRecording
        There are no bins.
    DamagedRecording
        The file cannot be read, or a rate is negative or infinite.
    """
    name = opened.name
    with opened.hdf5() as file:
        dataset = find_dataset(file, f"{RATES}/data", name)
        if dataset is None:
            raise NoUnits(
                f"{name} has no firing rates",
                found=names_in(file, name),
                expected=f"a dataset {RATES}/data",
                remedy="exclude the file with the dataset's session rule, or choose another reader",
            )
        n_bins, n_units = shape_of(dataset, name, n_dims=2, max_values=MAX_TOKENS)
        if n_units == 0:
            raise NoUnits(f"{name} has firing rates without units", found=f"shape {(n_bins, n_units)} (bins, units)")
        if n_bins == 0:
            raise EmptyRecording(
                f"{name} has firing rates without bins", found=f"shape {(n_bins, n_units)} (bins, units)"
            )
        facts = read_facts(file, name)
        stated_hz = _stated_rate(file, name)
        rates = read_array(opened, dataset, kinds="fiu", n_dims=2, max_values=MAX_TOKENS)
    disagrees = stated_hz is not None and stated_hz != BINS_PER_SECOND
    note = f"{name}: {RATES} states {stated_hz} bins per second; they are taken as {BINS_PER_SECOND}"
    file_name = PurePosixPath(name).name
    return Recording(
        data=counts_of_rates(rates, name),
        units=tuple(Unit(unit_id=row, file=file_name) for row in range(n_units)),
        facts=facts,
        notes=(note,) if disagrees else (),
    )


def counts_of_rates(rates: np.ndarray, name: str) -> BinnedCounts:
    """Counts of a matrix of rates, block by block.

    Parameters
    ----------
    rates : numpy.ndarray, float or integer, shape (n_bins, n_units)
        Hz.
    name : str
        The file's, for messages.

    Returns
    -------
    BinnedCounts
        Its counts are uint8, shape (n_units, n_bins).

    Raises
    ------
    DamagedRecording
        A rate is negative, infinite, or above `MAX_RATE_HZ`.
    """
    n_bins, n_units = rates.shape
    counts = np.empty((n_units, n_bins), dtype=np.uint8)
    spikes = missing = saturated = lost = 0
    step = max(1, BLOCK_TOKENS // n_units)
    for start in range(0, n_bins, step):
        block = rates[start : start + step]
        wrong = (block < 0) | (block > MAX_RATE_HZ)
        if wrong.any():
            row, unit = np.argwhere(wrong)[0].tolist()
            raise DamagedRecording(
                f"{name}: {RATES}/data contains invalid firing rates",
                found=f"{block[row, unit]} Hz in bin {start + row} of unit {unit}",
                expected=f"rates from 0 to {MAX_RATE_HZ:g} Hz, or NaN where missing",
            )
        is_missing = np.isnan(block)
        rounded = np.where(is_missing, 0, np.rint(block / BINS_PER_SECOND)).astype(np.int64)
        above = np.maximum(rounded - 255, 0)
        counts[:, start : start + step] = (rounded - above).T
        spikes += int(rounded.sum())
        missing += int(is_missing.sum())
        saturated += int(np.count_nonzero(above))
        lost += int(above.sum())
    return BinnedCounts(counts, BIN_WIDTH_S, spikes, missing, saturated, lost)


def _stated_rate(file: h5py.File, name: str) -> float | None:
    """Samples per second, where the time series states them."""
    starting_time = find_dataset(file, f"{RATES}/starting_time", name)
    rate = read_attribute(starting_time, "rate", name) if starting_time is not None else None
    return float(rate) if isinstance(rate, int | float | np.integer | np.floating) else None
