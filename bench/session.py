"""One session, from NWB to published rows, against the published procedure: wall, memory, bytes.

``python -m bench.session [--tiny] [--no-baseline] [--largest]``. Full scale
needs 21 GB of free memory for the baseline (which is left out there where there
is less, and with ``--no-baseline``) and 4 GB of disk. ``--largest`` adds the
largest published session, without baseline.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from bench.common import Measured, measure, save, show

SIZES = {"1/16": (612, 107_000, 6_250_000), "1/4": (1_223, 214_000, 25_000_000), "1": (2_446, 428_000, 100_000_000)}
"""Units, bins, spikes."""
TINY = {"tiny": (12, 30_000, 40_000)}
BASELINE_BYTES = 21e9
"""The baseline at full scale takes 19 GB."""
LARGEST = (3_897, 608_148, 150_000_000)
TARGETS = {
    "wall, times less": ">= 6 (aim 8)",
    "peak memory, times less": ">= 13 (aim 17)",
    "bytes / baseline": "<= 0.70",
    "wall / pyarrow encoding alone": "<= 1.25 (aim 1.0)",
    "wall / one thread": "<= 0.75",
}
"""At full scale on 2 cores."""


def _step(name: str, *arguments: Path, environment: Mapping[str, str] | None = None) -> Measured:
    return measure(["-m", "bench.session_steps", name, *map(str, arguments)], environment)


def _facts(measured: Measured) -> dict[str, float]:
    return {"wall_s": measured.wall_s, "cpu_s": measured.cpu_s, "peak_mb": measured.peak_bytes / 1e6}


def _recording(size: tuple[int, int, int], folder: Path) -> Path:
    path = folder / f"{size[0]}.nwb"
    if not path.exists():
        measure(["-m", "bench.recordings", str(path), *map(str, size)])
    return path


def run(size: tuple[int, int, int], folder: Path, with_baseline: bool) -> dict[str, Any]:
    recording, ours, published = _recording(size, folder), folder / "ours.parquet", folder / "published.parquet"
    result: dict[str, Any] = {"units_bins_spikes": size}
    one = _step("ours", recording, ours, environment={"NEURALPILE_THREADS": "1"})
    all_threads = _step("ours", recording, ours)
    encode = _step("encode", ours, folder / "encoded.parquet")
    result |= {"ours": _facts(all_threads) | {"bytes": ours.stat().st_size}, "one thread": _facts(one)}
    result |= {"pyarrow alone": {"wall_s": encode.json()["seconds"]}}
    ratios = {
        "wall / pyarrow encoding alone": all_threads.wall_s / encode.json()["seconds"],
        "one thread's wall / pyarrow encoding alone": one.wall_s / encode.json()["seconds"],
        "wall / one thread": all_threads.wall_s / one.wall_s,
    }
    if with_baseline:
        baseline = measure(["-m", "bench.published_procedure", str(recording), str(published)])
        result["published procedure"] = _facts(baseline) | {"bytes": published.stat().st_size}
        ratios |= {
            "wall, times less": baseline.wall_s / all_threads.wall_s,
            "CPU of one thread, times less": baseline.cpu_s / one.cpu_s,
            "peak memory, times less": baseline.peak_bytes / all_threads.peak_bytes,
            "bytes / baseline": ours.stat().st_size / published.stat().st_size,
        }
        result["same counts"] = _step("compare", ours, published).json()["equal"]
        if not result["same counts"]:
            raise RuntimeError(f"not the counts of the published procedure: {size} units, bins, spikes")
    return result | {"ratios": ratios}


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
        first = run(TINY["tiny"], Path(folder), with_baseline=options.tiny)
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
