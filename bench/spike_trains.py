"""How spike times lie in the store: bytes per spike and seconds, against raw float64 written in the same run.

``python -m bench.spike_trains [--tiny]``. Every way is lossless and read back
bit for bit, or the bench fails. Ratios are to raw float64 (8 bytes per spike,
written and read by numpy). Seconds are CPU seconds: the files fit the page cache,
and others may be using the machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.common import ROUNDS, Laps, Round, median_ratio, medians, rounds, save, show
from bench.recordings import spike_trains
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.tables.spike_trains import GROUP_VALUES, read_recording, write_recording


class Way(NamedTuple):
    """A way to store spike trains: write a file, and read the spike times back."""

    write: Callable[[Path, SpikeTrains], None]
    read: Callable[[Path], np.ndarray]


def _write_raw(path: Path, trains: SpikeTrains) -> None:
    trains.spike_times.tofile(path)


def _read_raw(path: Path) -> np.ndarray:
    return np.fromfile(path)


def _parquet(kind: Any = np.float64, **settings: Any) -> Way:
    """One column of all spikes as numbers of ``kind``, in row groups."""

    def write(path: Path, trains: SpikeTrains) -> None:
        schema = pa.schema([("spike_times", pa.from_numpy_dtype(kind))])
        common = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
        values = trains.spike_times.view(kind)
        with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, **common, **settings) as writer:
            for start in range(0, len(values), GROUP_VALUES):
                writer.write_table(pa.table([pa.array(values[start : start + GROUP_VALUES])], schema))

    def read(path: Path) -> np.ndarray:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        times = np.empty(file.metadata.num_rows)
        start = 0
        for group in range(file.num_row_groups):
            values = file.read_row_group(group)["spike_times"].chunk(0).to_numpy()
            times.view(kind)[start : start + len(values)] = values
            start += len(values)
        return times

    return Way(write, read)


def _write_ours(path: Path, trains: SpikeTrains) -> None:
    units = tuple(Unit(unit_id=k, file="synthetic.nwb") for k in range(trains.n_units))
    write_recording(path, Recording(trains, units, SessionFacts()))


def _read_ours(path: Path) -> np.ndarray:
    data = read_recording(path).data
    assert isinstance(data, SpikeTrains)
    return data.spike_times


BIT_PATTERNS = {"column_encoding": {"spike_times": "DELTA_BINARY_PACKED"}}
WAYS = {
    "raw float64": Way(_write_raw, _read_raw),
    "Parquet, plain, zstd": _parquet(),
    "Parquet, byte stream split, zstd": _parquet(use_byte_stream_split=True),
    "Parquet, differences of the bit patterns, zstd": _parquet(np.int64, **BIT_PATTERNS),
    "ours: clock ticks where exact, else bit patterns": Way(_write_ours, _read_ours),
}


def clocks(n_spikes: int) -> dict[str, SpikeTrains]:
    """Spike trains as recorders and sorters leave them (synthetic)."""
    aligned, ends = spike_trains(max(n_spikes // 40_000, 3), 428_000, n_spikes)
    return {
        "30 kHz ticks": SpikeTrains(np.rint(aligned * 30_000) / 30_000, ends),
        "rounded to microseconds": SpikeTrains(np.round(aligned, 6), ends),
        "30 kHz, aligned to another clock": SpikeTrains(aligned, ends),
    }


def run(trains: SpikeTrains, folder: Path, count: int) -> list[Round]:
    """Figures of each way in each round; CPU seconds are ``write_cpu_s`` and ``read_cpu_s``."""
    path = folder / "spikes"

    def once(name: str) -> dict[str, float]:
        laps = Laps()
        WAYS[name].write(path, trains)
        laps.lap("write")
        times = WAYS[name].read(path)
        laps.lap("read")
        if not np.array_equal(times.view(np.int64), trains.spike_times.view(np.int64)):
            raise RuntimeError(f"{name} is not lossless")
        return {"bytes_per_spike": path.stat().st_size / len(times), **laps.found}

    return rounds({name: partial(once, name) for name in WAYS}, count)


def to_raw(every: list[Round]) -> dict[str, float]:
    """Ours, the last way, against raw float64."""
    ours, raw = list(WAYS)[-1], "raw float64"
    return {f"ours / raw float64, {what}": median_ratio(every, what, ours, raw) for what in every[0][raw]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smoke run")
    tiny = parser.parse_args().tiny
    n_spikes = 100_000 if tiny else 20_000_000
    results: dict[str, dict[str, Any]] = {}
    for clock, trains in clocks(n_spikes).items():
        with tempfile.TemporaryDirectory() as folder:
            every = run(trains, Path(folder), 1 if tiny else ROUNDS)
        found = medians(every)
        results[clock] = found | {"ratios": to_raw(every)}
        raw = found["raw float64"]
        share = trains.n_spikes / 1e8
        header = [
            "",
            "bytes per spike",
            "of raw",
            "write, CPU s per 100 M",
            "of raw",
            "read, CPU s per 100 M",
            "of raw",
        ]
        rows = [
            [
                name,
                way["bytes_per_spike"],
                way["bytes_per_spike"] / 8,
                way["write_cpu_s"] / share,
                way["write_cpu_s"] / raw["write_cpu_s"],
                way["read_cpu_s"] / share,
                way["read_cpu_s"] / raw["read_cpu_s"],
            ]
            for name, way in found.items()
        ]
        show(f"{clock}, {trains.n_spikes:,} spikes", header, rows)
    print(f"\nwrote {save('spike_trains-tiny' if tiny else 'spike_trains', results)}")


if __name__ == "__main__":
    main()
