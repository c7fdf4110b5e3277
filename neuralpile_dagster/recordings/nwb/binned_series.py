"""Readers ``binned_series`` and ``firing_rates``: NWB files that hold binned counts or rates, not spike times.

Exactly how values become counts is in docs/binning.md. Summing them further, to an instance's bin width, belongs in
`binning.source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import h5py
import numpy as np

from neuralpile_dagster.catalog.readers import SeriesBins, SeriesOptions
from neuralpile_dagster.errors import DamagedRecording, EmptyRecording, NoUnits
from neuralpile_dagster.hdf5.careful import (
    find,
    find_dataset,
    groups_with,
    names_in,
    read_array,
    reading,
    reading_values,
    shape_of,
)
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.hdf5.text import read_attribute
from neuralpile_dagster.recordings.manifest import subject_of
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, Unit
from neuralpile_dagster.recordings.nwb.table import read_facts

KINDS = "buif"
MAX_TOKENS = 2_000_000_000  # of one session; the largest session seen has 1.3 billion
MAX_VALUES = 40_000_000_000  # in the file, before bins are summed
MAX_BINS = 1_000_000_000
MAX_VALUE = 1e12  # above any real rate; below it all sums of counts are exact integers
BLOCK_TOKENS = 1 << 20
WHOLE_BYTES = 1 << 28  # a series up to this is read at once, which is faster over a network
AGREES = 1e-3  # by how much a stated rate may differ
GAP_BINS = 1.5
MAX_SHOWN = 10

Place = tuple[slice, slice]


def read_binned_series(opened: OpenFile, options: SeriesOptions) -> Recording:
    """Read the values ``<path>/data`` (bins, units) of a time series and turn them into counts.

    A value is multiplied by ``scale`` in the file's own precision, rounded where the options say so, and
    ``sum_bins`` of the file's bins are summed to one, which holds at most 255. NaN counts 0 and is reported as
    missing. Last bins that do not fill one are dropped and reported. Units are known by their row numbers only.
    Holds the counts, and the values up to `WHOLE_BYTES` of the file.

    Raises
    ------
    NoUnits
        There is no such series, or no units.
    EmptyRecording
        There are too few bins for one.
    DamagedRecording
        The file cannot be read, or a value is no count: negative, infinite, or not whole without rounding.
    """
    name = opened.name
    bins = options.bins_of(subject_of(PurePosixPath(name)))
    with opened.hdf5() as file:
        path, dataset = _find_series(file, options, name)
        shape = n_bins, n_units = shape_of(dataset, name, n_dims=2, max_values=MAX_VALUES)
        if n_units == 0:
            raise NoUnits(f"{name} has a binned series without units", found=f"shape {shape} (bins, units)")
        if n_bins < bins.sum_bins:
            raise EmptyRecording(
                f"{name} has a binned series without bins",
                found=f"shape {shape} (bins, units)",
                expected=f"at least {bins.sum_bins:,} bins",
            )
        if n_bins // bins.sum_bins * n_units > MAX_TOKENS:
            raise DamagedRecording(
                f"{name}: {dataset.name} claims to be larger than any recording",
                found=f"{n_bins // bins.sum_bins * n_units:,} tokens",
                expected=f"at most {MAX_TOKENS:,}",
            )
        facts = read_facts(file, name)
        notes = _clock_notes(opened, file, path, bins)
        kinds = KINDS if options.scale == 1 else KINDS.replace("b", "")  # a rate that is true is no rate
        if dataset.dtype.kind not in kinds or n_bins * n_units * dataset.dtype.itemsize <= WHOLE_BYTES:
            values = read_array(opened, dataset, kinds=kinds, n_dims=2, max_values=MAX_VALUES)
            counts = counts_of(values, options, bins, name)
        else:

            def read(place: Place) -> np.ndarray:
                with reading_values(dataset, name):
                    return opened.read_part(dataset, place)

            counts = _count(read, shape, dataset.chunks, options, bins, f"{name}: {dataset.name}")
    if counts.bins_dropped:
        notes += (
            f"{name}: the last {counts.bins_dropped} bins of {bins.bin_width_s:g} s do not fill a bin of "
            f"{counts.bin_width_s:g} s and are dropped",
        )
    file_name = PurePosixPath(name).name
    units = tuple(Unit(unit_id=row, file=file_name) for row in range(n_units))
    return Recording(data=counts, units=units, facts=facts, notes=notes)


def counts_of(
    values: np.ndarray, options: SeriesOptions, bins: SeriesBins | None = None, name: str = ""
) -> BinnedCounts:
    """Counts of a matrix of binned values, block by block.

    Parameters
    ----------
    values : numpy.ndarray, bool, integer or float, shape (n_bins, n_units)
    options : SeriesOptions
    bins : SeriesBins, optional
        The bins of this session, where they are not those of ``options``.
    name : str
        The file's, for messages.

    Returns
    -------
    BinnedCounts
        Its counts are uint8, shape (n_units, n_bins // sum_bins).

    Raises
    ------
    DamagedRecording
        A value is negative, infinite, above `MAX_VALUE`, or not whole although nothing is rounded.
    """
    what = f"{name}: {options.path[0]}/data"
    return _count(lambda place: values[place], values.shape, None, options, bins or options, what)


def _count(
    read: Callable[[Place], np.ndarray],
    shape: tuple[int, ...],
    chunks: tuple[int, ...] | None,
    options: SeriesOptions,
    bins: SeriesBins,
    what: str,
) -> BinnedCounts:
    n_bins, n_units = shape
    k = bins.sum_bins
    counts = np.empty((n_units, n_bins // k), dtype=np.uint8)
    spikes = missing = saturated = lost = 0
    rest = np.empty((0, 0), np.int64)
    for rows, units in _tiles(n_bins // k * k, n_units, chunks):
        block, is_missing = _whole_numbers(read((rows, units)), options, what, rows.start, units.start)
        if k > 1:
            start = rows.start
            if len(rest):
                block, start = np.concatenate([rest, block]), start - len(rest)
            full = len(block) // k
            rest = block[full * k :]
            block = block[: full * k].reshape(full, k, block.shape[1]).sum(axis=1)
            rows = slice(start // k, start // k + full)
        above = np.maximum(block - 255, 0)
        counts[units, rows] = (block - above).T
        spikes += int(block.sum())
        missing += is_missing
        saturated += int(np.count_nonzero(above))
        lost += int(above.sum())
    return BinnedCounts(counts, bins.bin_width_s * k, spikes, missing, saturated, lost, bins_dropped=n_bins % k)


def _tiles(n_bins: int, n_units: int, chunks: tuple[int, ...] | None) -> Iterator[Place]:
    """Places of about `BLOCK_TOKENS` values, bins rising for each range of units; of whole chunks, each read once."""
    tall, wide = chunks or (1, n_units)
    fitting = max(BLOCK_TOKENS // tall, 1)
    wide = n_units if fitting >= n_units else min(max(fitting // wide, 1) * wide, n_units)
    step = max(BLOCK_TOKENS // wide // tall, 1) * tall
    for first in range(0, n_units, wide):
        for start in range(0, n_bins, step):
            yield slice(start, min(start + step, n_bins)), slice(first, min(first + wide, n_units))


def _whole_numbers(
    block: np.ndarray, options: SeriesOptions, what: str, first_bin: int, first_unit: int
) -> tuple[np.ndarray, int]:
    """Values as whole numbers (int64), and how many are missing."""
    if block.dtype.kind == "b":
        block = block.view(np.uint8)
    wrong = (block < 0) | (block > MAX_VALUE)
    missing = np.isnan(block) if block.dtype.kind == "f" else np.zeros((), bool)
    whole_divisor = round(1 / options.scale)
    if options.scale == 1:
        scaled = block
    elif whole_divisor and options.scale == 1 / whole_divisor:
        scaled = block / whole_divisor  # exact where a product is not: 0.02 is no binary fraction
    else:
        scaled = block * options.scale
    wrong |= scaled > MAX_VALUE
    if scaled.dtype.kind == "f":
        scaled = np.where(missing, 0, scaled)
        rounded = np.rint(scaled)
        if options.rounding == "none":
            wrong |= rounded != scaled
        scaled = rounded
    if wrong.any():
        row, unit = np.argwhere(wrong)[0].tolist()
        whole = "" if options.rounding != "none" else "whole "
        raise DamagedRecording(
            f"{what} contains invalid values",
            found=f"{block[row, unit]} in bin {first_bin + row} of unit {first_unit + unit}",
            expected=f"{whole}numbers from 0 to {MAX_VALUE:g}, or NaN where missing",
            remedy="state `scale` and `rounding` in the row's `reader_options` if these are rates" * bool(whole),
        )
    return scaled.astype(np.int64), int(missing.sum())


def _find_series(file: h5py.File, options: SeriesOptions, name: str) -> tuple[str, h5py.Dataset]:
    """The first of the paths that the file has, and its values."""
    for path in options.path:
        if (dataset := find_dataset(file, f"{path}/data", name)) is not None:
            return path, dataset
    expected = f"a dataset {' or '.join(f'{path}/data' for path in options.path)}"
    if elsewhere := _series_elsewhere(file, name):
        raise NoUnits(
            f"{name} has no binned series where the row says",
            found=f"series of two dimensions (bins, units) at {', '.join(elsewhere)}",
            expected=expected,
            remedy="state the path of the one that holds the counts: `reader: binned_series`, `reader_options: "
            "{path: ..., bin_width_s: ...}`; or exclude the file with the dataset's session rule",
        )
    raise NoUnits(
        f"{name} has no binned series",
        found=names_in(file, name),
        expected=expected,
        remedy="exclude the file with the dataset's session rule, or choose another reader",
    )


def _series_elsewhere(file: h5py.File, name: str) -> list[str]:
    """Paths of time series whose data have two dimensions, with their shapes; at most `MAX_SHOWN`."""
    found = []
    for path in groups_with(file, "data", ["/acquisition", "/processing", "/analysis", "/scratch", "/stimulus"], name):
        dataset = find(file, f"{path}/data", name)
        with reading(name, path):
            shape = dataset.shape if isinstance(dataset, h5py.Dataset) else None
        if shape is not None and len(shape) == 2:
            found.append(f"{path} {shape}")
    more = [f"{len(found) - MAX_SHOWN} more"] if len(found) > MAX_SHOWN else []
    return found[:MAX_SHOWN] + more


def _clock_notes(opened: OpenFile, file: h5py.File, path: str, bins: SeriesBins) -> tuple[str, ...]:
    """What the time series states of its clock and the options contradict, and gaps in its timestamps."""
    name, width = opened.name, bins.bin_width_s
    starting_time = find_dataset(file, f"{path}/starting_time", name)
    rate = read_attribute(starting_time, "rate", name) if starting_time is not None else None
    if isinstance(rate, int | float | np.integer | np.floating):
        if abs(rate * width - 1) <= AGREES:
            return ()
        return (f"{name}: {path} states {float(rate)} bins per second; they are taken as {1 / width:g}",)
    timestamps = find_dataset(file, f"{path}/timestamps", name)
    if timestamps is None:
        return ()
    times = read_array(opened, timestamps, kinds="fiu", max_values=MAX_BINS)
    steps = np.diff(times)
    if not len(steps):
        return ()
    notes = []
    typical = float(np.median(steps))
    if not abs(typical / width - 1) <= AGREES:
        notes.append(f"{name}: {path} has timestamps {typical:g} s apart; its bins are taken as {width:g} s")
    gaps = np.flatnonzero(~(steps <= GAP_BINS * width))
    if len(gaps):
        first = int(gaps[0])
        notes.append(
            f"{name}: {path} has {len(gaps):,} gaps of more than {GAP_BINS} bins in its timestamps, the first of "
            f"{steps[first]:g} s after bin {first:,}; its bins follow each other without them"
        )
    return tuple(notes)
