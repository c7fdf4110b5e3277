"""One session, from NWB to published rows, against the published procedure: wall, memory, bytes.

``python -m bench.session [--tiny] [--no-baseline] [--largest]``. Full scale
needs 21 GB of free memory for the baseline (which is left out there where there
is less, and with ``--no-baseline``) and 4 GB of disk. ``--largest`` adds the
largest published session, without baseline.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.common import Measured, machine, measure, save, show

SIZES = {"1/16": (612, 107_000, 6_250_000), "1/4": (1_223, 214_000, 25_000_000), "1": (2_446, 428_000, 100_000_000)}
"""Units, bins, spikes."""
TINY = {"tiny": (12, 30_000, 40_000)}
BASELINE_BYTES = 21e9
"""The baseline at full scale takes 19 GB."""
LARGEST = (3_897, 608_148, 150_000_000)
TARGETS = {
    "wall, times less": ">= 12 (aim 16)",
    "CPU of one thread, times less": ">= 12",
    "peak memory, times less": ">= 17 (aim 19)",
    "bytes / baseline": "<= 0.70 (aim 0.60)",
    "wall / pyarrow encoding alone": "<= 0.35",
}
"""At full scale on 2 cores with nothing else to do."""
ROUNDS = 3


def _step(name: str, *arguments: Path, environment: Mapping[str, str] | None = None) -> Measured:
    return measure(["-m", "bench.session_steps", name, *map(str, arguments)], environment)


def _facts(measured: Measured) -> dict[str, float]:
    return {"wall_s": measured.wall_s, "cpu_s": measured.cpu_s, "peak_mb": measured.peak_bytes / 1e6}


def _recording(size: tuple[int, int, int], folder: Path) -> Path:
    path = folder / f"{size[0]}.nwb"
    if not path.exists():
        measure(["-m", "bench.recordings", str(path), *map(str, size)])
    return path


def run(size: tuple[int, int, int], folder: Path, with_baseline: bool, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run every way ``rounds`` times, one after the other and again; figures and ratios are medians."""
    recording, ours, published = _recording(size, folder), folder / "ours.parquet", folder / "published.parquet"
    every = [_round(recording, ours, published, folder, with_baseline) for _ in range(rounds)]
    ways = {way: [measured[way] for measured in every] for way in every[0]}
    result: dict[str, Any] = {
        way: {field: median(facts[field] for facts in found) for field in found[0]} for way, found in ways.items()
    }
    result["ratios"] = {
        name: median(ratio(measured) for measured in every)
        for name, (needs, ratio) in RATIOS.items()
        if needs in every[0]
    }
    if with_baseline:
        result["same counts"] = _step("compare", ours, published).json()["equal"]
        if not result["same counts"]:
            raise RuntimeError(f"not the counts of the published procedure: {size} units, bins, spikes")
    return result | {"units_bins_spikes": size, "rounds": rounds, "machine": machine()}


Round = dict[str, dict[str, float]]


def _round(recording: Path, ours: Path, published: Path, folder: Path, with_baseline: bool) -> Round:
    one = _step("ours", recording, ours, environment={"NEURALPILE_THREADS": "1"})
    found = {"one thread": _facts(one), "ours": _facts(_step("ours", recording, ours))}
    found["ours"]["bytes"] = ours.stat().st_size
    encode = _step("encode", ours, folder / "encoded.parquet").json()
    found["pyarrow alone"] = {"wall_s": encode["wall_s"], "cpu_s": encode["cpu_s"], "bytes": encode["bytes"]}
    if with_baseline:
        found["published procedure"] = _facts(
            measure(["-m", "bench.published_procedure", str(recording), str(published)])
        )
        found["published procedure"]["bytes"] = published.stat().st_size
    return found


def _by(field: str, way: str, other: str) -> Callable[[Round], float]:
    return lambda measured: measured[way][field] / measured[other][field]


RATIOS: dict[str, tuple[str, Callable[[Round], float]]] = {
    "wall / pyarrow encoding alone": ("pyarrow alone", _by("wall_s", "ours", "pyarrow alone")),
    "CPU / pyarrow encoding alone": ("pyarrow alone", _by("cpu_s", "one thread", "pyarrow alone")),
    "bytes / pyarrow encoding alone": ("pyarrow alone", _by("bytes", "ours", "pyarrow alone")),
    "wall / one thread": ("one thread", _by("wall_s", "ours", "one thread")),
    "wall, times less": ("published procedure", _by("wall_s", "published procedure", "ours")),
    "CPU of one thread, times less": ("published procedure", _by("cpu_s", "published procedure", "one thread")),
    "peak memory, times less": ("published procedure", _by("peak_mb", "published procedure", "ours")),
    "bytes / baseline": ("published procedure", _by("bytes", "ours", "published procedure")),
}
"""Each with the way that it needs."""


def _room_for_baseline() -> bool:
    free = psutil.virtual_memory().available
    if free < BASELINE_BYTES:
        print(
            f"\nThe full-scale baseline is left out: it needs {BASELINE_BYTES / 1e9:.0f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free"
        )
    return free >= BASELINE_BYTES


def run_store(size: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    measured = _step("store", _recording(size, folder), folder / "store")
    return {"units_bins_spikes": size, "largest": _facts(measured) | measured.json()}


def report(results: Mapping[str, dict[str, Any]]) -> None:
    for name, result in results.items():
        units, bins, spikes = result["units_bins_spikes"]
        title = f"Session of size {name}: {units:,} units x {bins:,} bins, {spikes:,} spikes"
        if "rounds" in result:
            title += f"; medians of {result['rounds']}, load {result['machine']['load']:.1f}"
        measured = {way: facts for way, facts in result.items() if isinstance(facts, dict) and "wall_s" in facts}
        columns = ["wall_s", "cpu_s", "peak_mb", "bytes"]
        show(title, ["", *columns], [[way, *(facts.get(c, "") for c in columns)] for way, facts in measured.items()])
        if "ratios" in result:
            show("Ratios", ["", "found", "target"], [[k, v, TARGETS.get(k, "")] for k, v in result["ratios"].items()])
        if "same counts" in result:
            print(f"\nSame counts, bit for bit: {result['same counts']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smoke run")
    parser.add_argument("--no-baseline", action="store_true", help="leave out the baseline at full scale")
    parser.add_argument("--largest", action="store_true", help="add the largest published session")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        first = run(TINY["tiny"], Path(folder), with_baseline=options.tiny, rounds=1)
        if options.tiny:
            results = {"tiny": first, "largest": run_store(TINY["tiny"], Path(folder))}
        # otherwise it was to warm up: bytecode and numba's cache are there from now on
    report(results)
    for name, size in ({} if options.tiny else SIZES).items():
        with tempfile.TemporaryDirectory() as folder:
            with_baseline = name != "1" or (not options.no_baseline and _room_for_baseline())
            results[name] = run(size, Path(folder), with_baseline)
        report({name: results[name]})
        save("session", results)
    if options.largest and not options.tiny:
        with tempfile.TemporaryDirectory() as folder:
            results["largest"] = run_store(LARGEST, Path(folder))
        report({"largest": results["largest"]})
    print(f"\nwrote {save('session-tiny' if options.tiny else 'session', results)}")


if __name__ == "__main__":
    main()
