"""Counting motifs, against a Counter over the bytes of patches; sums of buckets; memory of a large session.

``python -m bench.motifs [--tiny]``. Rows are synthetic, with log-normal rates, as long as those of the pile. The
baseline is the published procedure: a Counter to which each patch of 1 x 15 counts is added as bytes, in one process;
a Counter that gets all patches of a row at once stands beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import ROUNDS, measure, median_ratio, medians, own_memory, rounds, save, show

SIZES = {
    "full": {"rows": 8, "units": 500, "bins": 20_000, "large_rows": 134, "sessions": 200},
    "tiny": {"rows": 2, "units": 40, "bins": 2_000, "large_rows": 4, "sessions": 5},
}
"""The large session is of 2,779 units x 480,000 bins, the most patches of a published one: 134 rows of 10 M tokens."""
TARGETS = {"histogram / Counter, tokens per CPU s": ">= 12"}
Figures = dict[str, float]


def _rows(folder: Path, count: int | None = None) -> Iterator[np.ndarray]:
    """Rows that were made before; more than those are the same, begun at another bin."""
    base = [np.load(path) for path in sorted(folder.glob("row-*.npy"))]
    for number in range(len(base) if count is None else count):
        yield np.roll(base[number % len(base)], 7 * (number // len(base)), axis=1)


def make(folder: Path, rows: int, units: int, bins: int) -> Figures:
    """Rows in memory's form, and as a session's counts file."""
    from neuralpile_dagster.tables.rows import Row, write_rows

    rng = np.random.default_rng(0)
    for number in range(rows):
        rates = rng.lognormal(np.log(0.04), 1.1, (units, 1)).clip(0, 2)
        np.save(folder / f"row-{number:03d}.npy", rng.poisson(rates, (units, bins)).astype(np.uint8))
    segments = (Row(counts, "sub", "ses", f"segment_{number}") for number, counts in enumerate(_rows(folder)))
    write_rows(folder / "counts.parquet", segments)
    return {"bytes": (folder / "counts.parquet").stat().st_size}


def histogram(folder: Path, shape: str) -> Figures:
    """Count rows in memory, to the sorted buckets; compiled before."""
    from neuralpile_dagster.motifs.histogram import MotifCounter
    from neuralpile_dagster.motifs.records import MotifShape

    def count(every: list[np.ndarray]) -> int:
        counter = MotifCounter(MotifShape.parse(shape))
        for counts in every:
            counter.add(counts)
        return sum(map(len, counter.take()))

    every = list(_rows(folder))
    count([every[0][:4, :200]])
    began = time.process_time()
    motifs = count(every)
    return _rate(every, began) | {"motifs": motifs}


def files(folder: Path, shape: str) -> Figures:
    """From a session's counts file to its histogram's: decoded, counted, written."""
    from neuralpile_dagster.motifs.histogram import write_histogram
    from neuralpile_dagster.motifs.records import MotifShape
    from neuralpile_dagster.tables.rows import RowReader

    def count(rows: int) -> int:
        with RowReader(folder / "counts.parquet") as reader:
            counts = (reader.row(number).counts for number in range(min(rows, reader.n_rows)))
            return write_histogram(folder / "histogram.parquet", counts, MotifShape.parse(shape)).tokens

    count(1)
    began = time.process_time()
    tokens = count(1_000_000)
    cpu = time.process_time() - began
    size = (folder / "histogram.parquet").stat().st_size
    return {"tokens": tokens, "cpu_s": cpu, "tokens_per_cpu_s": tokens / cpu, "bytes": size}


def counter(folder: Path, shape: str) -> Figures:
    """The published procedure: time after time, unit after unit, each patch as bytes."""
    units, bins = map(int, shape.split("x"))
    (counts,) = _rows(folder, 1)
    counts = np.pad(counts, [(0, -counts.shape[0] % units), (0, -counts.shape[1] % bins)])
    began, found = time.process_time(), Counter[bytes]()
    for start in range(0, counts.shape[1], bins):
        for unit in range(0, counts.shape[0], units):
            found[counts[unit : unit + units, start : start + bins].tobytes()] += 1
    return _rate([counts], began) | {"motifs": len(found)}


def counter_at_once(folder: Path, shape: str) -> Figures:
    """A Counter of all patches of a row."""
    units, bins = map(int, shape.split("x"))
    every = list(_rows(folder))
    began, found = time.process_time(), Counter[bytes]()
    for counts in every:
        padded = np.pad(counts, [(0, -counts.shape[0] % units), (0, -counts.shape[1] % bins)])
        cut = padded.reshape(len(padded) // units, units, -1, bins).transpose(0, 2, 1, 3)
        found.update(np.ascontiguousarray(cut).reshape(-1, units * bins).view(f"V{units * bins}").ravel().tolist())
    return _rate(every, began) | {"motifs": len(found)}


def _rate(rows: list[np.ndarray], began: float) -> Figures:
    cpu, tokens = time.process_time() - began, sum(counts.size for counts in rows)
    return {"tokens": tokens, "cpu_s": cpu, "tokens_per_cpu_s": tokens / cpu}


def large(folder: Path, rows: int, max_motifs: int) -> Figures:
    """A large session, row after row: peak memory beyond what the rows themselves take."""
    from neuralpile_dagster.motifs.histogram import write_histogram
    from neuralpile_dagster.motifs.records import MotifShape

    shape, path = MotifShape(1, 15), folder / "large.parquet"
    for counts in _rows(folder, 1):
        write_histogram(path, [counts[:4, :200]] * 2, shape, max_motifs=1)  # compiled, and loaded
    held = sum(1 for _ in _rows(folder))
    before, began = own_memory("VmRSS"), time.process_time()
    found = write_histogram(path, _rows(folder, rows), shape, max_motifs=max_motifs)
    row_bytes = held * found.tokens // max(found.rows, 1)
    return {
        "tokens": found.tokens,
        "motifs": found.motifs,
        "cpu_s": time.process_time() - began,
        "beyond_rows_bytes": own_memory("VmHWM") - before - row_bytes,
        "bytes": path.stat().st_size,
    }


def buckets(folder: Path, sessions: int) -> Figures:
    """The sum of one bucket over sessions whose motifs are half common and half their own."""
    from neuralpile_dagster.motifs.counts import MotifCounts
    from neuralpile_dagster.motifs.histogram import motif_writer, write_group
    from neuralpile_dagster.motifs.records import N_BUCKETS, MotifShape
    from neuralpile_dagster.motifs.table import build_bucket
    from neuralpile_dagster.store import LocalStore, put_file

    shape, store, rng, each = MotifShape(1, 15), LocalStore(folder / "store"), np.random.default_rng(1), 12_000
    common, none = rng.integers(1, 2**60, each // 2, dtype=np.uint64), MotifCounts.none(shape)

    def write(path: Path) -> None:
        keys = np.unique(np.concatenate([common, rng.integers(1, 2**60, each // 2, dtype=np.uint64)]))
        with motif_writer(path) as writer:
            for bucket in range(N_BUCKETS):
                motifs = MotifCounts(shape, keys, np.ones(len(keys), np.int64), none.patches, none.patch_counts)
                write_group(writer, bucket, motifs if bucket == 7 else none)

    stored = [put_file(store, f"session-{number}.parquet", write)[0] for number in range(sessions)]
    build_bucket(store, "warm", shape, 7, inputs="warm", whole=stored[:2])
    began = time.process_time()
    record = build_bucket(store, "sum", shape, 7, inputs="sum", whole=stored)
    cpu = time.process_time() - began
    return {"sessions": sessions, "motifs": record.motifs, "cpu_s": cpu, "read_per_cpu_s": sessions * each / cpu}


STEPS: dict[str, Callable[..., Figures]] = {
    "make": make,
    "histogram": histogram,
    "files": files,
    "counter": counter,
    "counter_at_once": counter_at_once,
    "large": large,
    "buckets": buckets,
}


def _step(name: str, folder: Path, *arguments: Any) -> Figures:
    found: Figures = measure(["-m", "bench.motifs", "--step", name, str(folder), *map(str, arguments)]).json()
    return found


def run(folder: Path, size: dict[str, int], count: int) -> dict[str, Any]:
    """All measurements, as tables and as numbers; ``count`` rounds of the ways."""
    _step("make", folder, size["rows"], size["units"], size["bins"])
    ways = {
        "histogram": lambda: _step("histogram", folder, "1x15"),
        "histogram, file to file": lambda: _step("files", folder, "1x15"),
        "Counter, patch by patch": lambda: _step("counter", folder, "1x15"),
        "Counter, a row at once": lambda: _step("counter_at_once", folder, "1x15"),
        "histogram, 4x4": lambda: _step("histogram", folder, "4x4"),
        "histogram, 2x15 (no keys)": lambda: _step("histogram", folder, "2x15"),
    }
    every = rounds(ways, count)
    found = medians(every)
    rate = "tokens_per_cpu_s"
    show(
        f"Motifs of {size['rows']} rows of {size['units']} units x {size['bins']:,} bins (median of the rounds)",
        ["way", "M tokens per CPU s", "times the Counter, patch by patch"],
        [[way, found[way][rate] / 1e6, median_ratio(every, rate, way, "Counter, patch by patch")] for way in ways],
    )
    bounded = max(int(_step("large", folder, size["large_rows"], 10**9)["motifs"]) // 4, 100)
    sessions = {
        "in memory": _step("large", folder, size["large_rows"], 10**9),
        "in runs of a quarter of its motifs": _step("large", folder, size["large_rows"], bounded),
    }
    show(
        "A large session",
        ["way", "M tokens", "motifs", "CPU s", "memory beyond its rows, MB", "file, MB"],
        [
            [way, one["tokens"] / 1e6, one["motifs"], one["cpu_s"], one["beyond_rows_bytes"] / 1e6, one["bytes"] / 1e6]
            for way, one in sessions.items()
        ],
    )
    summed = _step("buckets", folder, size["sessions"])
    show(
        "A bucket summed over sessions",
        ["sessions", "motifs", "CPU s", "M motifs read per CPU s"],
        [[summed["sessions"], summed["motifs"], summed["cpu_s"], summed["read_per_cpu_s"] / 1e6]],
    )
    ratios = {
        "histogram / Counter, tokens per CPU s": median_ratio(every, rate, "histogram", "Counter, patch by patch"),
        "histogram / Counter of a row at once": median_ratio(every, rate, "histogram", "Counter, a row at once"),
        "file to file / Counter in memory": median_ratio(
            every, rate, "histogram, file to file", "Counter, patch by patch"
        ),
    }
    show(
        "Ratios",
        ["what", "found", "target"],
        [[name, ratio, TARGETS.get(name, "")] for name, ratio in ratios.items()],
    )
    return {"ways": found, "large": sessions, "bucket": summed, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small rows, for a smoke run")
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, *rest = options.step
        print(json.dumps(STEPS[name](Path(folder), *(int(each) if each.isdigit() else each for each in rest))))
        return
    size = SIZES["tiny" if options.tiny else "full"]
    with tempfile.TemporaryDirectory() as temporary:
        result = run(Path(temporary), size, 1 if options.tiny else ROUNDS)
    print(f"\nwrote {save('motifs-tiny' if options.tiny else 'motifs', {'size': size, **result})}")


if __name__ == "__main__":
    main()
