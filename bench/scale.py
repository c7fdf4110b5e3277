"""How cost grows with size, and from the measured rates what the whole pile costs.

``python -m bench.scale [--tiny]``. Sessions are synthetic, one thread, each in
a process of its own; their CPU seconds are taken, which suffer less from other
work on the machine. What the whole pile takes is an estimate from these rates and the catalog (`bench.scale_pile`),
with Dagster's overhead as `bench.backfill` left it in bench/results, if it did.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import RESULTS, measure, save, show
from bench.scale_pile import Rates, report_pile

# units, bins, spikes: tokens x 1, 2, 4, 8 at equal spikes, then spikes x 2, 4, 8 at equal tokens
SIZES = [(500, 50_000 * k, 2_500_000) for k in (1, 2, 4, 8)] + [(500, 50_000, 2_500_000 * k) for k in (2, 4, 8)]
SMALLEST = (3, 50, 100)
TINY = [(20, 5_000, 20_000), (20, 20_000, 40_000)]
ROWS, FILES = [2_000, 8_000, 32_000], 200
SESSIONS, DATASETS = [1_908, 20_000], [25, 250]
REPEATS = 3


def _session(size: tuple[int, int, int], folder: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds of the whole process, best of some, and what the step prints."""
    recording = folder / "recording.nwb"
    measure(["-m", "bench.recordings", str(recording), *map(str, size)])
    found = []
    for number in range(repeats):
        arguments = ["-m", "bench.session_steps", "store", str(recording), str(folder / f"store{number}")]
        run = measure(arguments, {"NEURALPILE_THREADS": "1"})
        found.append({**run.json(), "cpu_s": run.cpu_s})
    return min(found, key=lambda run: float(run["cpu_s"]))


def sessions(sizes: Sequence[tuple[int, int, int]], folder: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds of spike trains and spike counts, and rates per spike and per token that fit all of them."""
    from scipy.optimize import nnls

    _session(SMALLEST, folder, 1)  # compiles
    least = _session(SMALLEST, folder, repeats)["cpu_s"]
    runs = [_session(size, folder, repeats) for size in sizes]
    design = np.array([[run["spikes"], run["tokens"]] for run in runs], float)
    # a tiny run may cost no more than the smallest session
    seconds = np.array([max(run["cpu_s"] - least, 1e-3) for run in runs])
    # relative errors count, or the largest session would decide alone
    (per_spike, per_token), _ = nnls(design / seconds[:, None], np.ones(len(runs)))
    fitted = design @ [per_spike, per_token] / seconds
    show(
        f"A session, one thread: CPU seconds above the {least:.2f} of a session of next to nothing (imports)",
        ["spikes", "tokens", "CPU s", "fitted / measured", "bytes per spike", "bytes per token"],
        [
            [
                run["spikes"],
                run["tokens"],
                float(cpu),
                float(fit),
                run["trains_bytes"] / run["spikes"],
                run["counts_bytes"] / run["tokens"],
            ]
            for run, cpu, fit in zip(runs, seconds, fitted, strict=True)
        ],
    )
    print(f"\nfitted: {per_spike * 1e9:.1f} ns per spike + {per_token * 1e9:.2f} ns per token")
    rates = {"s_per_spike": float(per_spike), "s_per_token": float(per_token)}
    rates |= {name: max(run[f"{name}_bytes"] / run[of] for run in runs) for name, of in _STORED}
    return {"runs": runs, "rates": rates, "ratios": {"fitted / measured, furthest": float(max(fitted, key=_distance))}}


def _distance(ratio: float) -> float:
    return abs(float(np.log(ratio)))


_STORED = (("trains", "spikes"), ("counts", "tokens"))


def merge(rows: Sequence[int], files: int, folder: Path) -> dict[str, Any]:
    """Seconds to read footers, plan, and copy all shards, against the number of rows (small ones: 80 tokens)."""
    from neuralpile_dagster.merge.plan import plan_pile, save_plan
    from neuralpile_dagster.merge.shards import write_shard
    from neuralpile_dagster.merge.sources import SourceFile, source_from_parquet
    from neuralpile_dagster.store import LocalStore
    from neuralpile_dagster.tables.rows import RowWriter

    store, runs = LocalStore(folder), []
    counts = np.random.default_rng(0).poisson(1, (2, 40)).astype(np.uint8)
    for number in rows:
        names = [f"rows-{number}/{file}.parquet" for file in range(files)]
        (folder / f"rows-{number}").mkdir()
        for file, name in enumerate(names):
            with RowWriter(folder / name) as writer:
                for row in range(file, number, files):
                    writer.write(counts, "sub", f"ses-{file}", f"segment_{row}")
        listed = [SourceFile(name=name, size=store.size(name) or 0, sha256="") for name in names]
        start = time.perf_counter()
        source = source_from_parquet("synthetic", listed, store.open)
        read = time.perf_counter()
        plan = plan_pile([source], seed=0)
        record = save_plan(store, f"plan-{number}", plan)
        planned = time.perf_counter()
        for shard in record.shards:
            write_shard(plan, shard.name, store.open, folder / "out" / shard.name)
        copied = time.perf_counter()
        runs.append({"rows": number, "read": read - start, "plan": planned - read, "copy": copied - planned})
    return {"runs": runs, "ratios": _growth("The pile", "rows", runs)}


def _growth(title: str, size: str, runs: list[dict[str, Any]]) -> dict[str, float]:
    """Show seconds against size, and how much more one more costs at the largest size than at the smallest."""
    parts = [part for part in runs[0] if part != size]
    show(title, [size, *(f"{part} s" for part in parts)], [list(run.values()) for run in runs])
    larger = runs[-1][size] / runs[0][size]
    ratios = {f"{p}: growth / growth of {size}": runs[-1][p] / runs[0][p] / larger for p in parts}
    show(f"Linear growth in {size} would be 1", ["", "found"], [list(item) for item in ratios.items()])
    return ratios


def manifests(sizes: Sequence[int], folder: Path) -> dict[str, Any]:
    """Seconds to choose, write, read and register the sessions of one dataset (ten files that are none for each)."""
    from neuralpile_dagster.catalog.rodent import RODENT
    from neuralpile_dagster.orchestration import locations
    from neuralpile_dagster.orchestration.instance import open_instance
    from neuralpile_dagster.orchestration.partitions import register, session_partitions
    from neuralpile_dagster.recordings.manifest import Manifest
    from neuralpile_dagster.recordings.sessions import choose_sessions
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import LocalStore, read_record, write_record

    row = next(dataset for dataset in RODENT if dataset.name == "vbn")
    store, runs = LocalStore(folder / "manifests"), []
    for number in sizes:
        listing = _listing(number)
        marks = [time.perf_counter()]

        def mark(marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        manifest = choose_sessions(row, listing)
        mark()
        write_record(store, locations.manifest_path(row), manifest)
        mark()
        read_record(store, locations.manifest_path(row), Manifest)
        mark()
        if len(manifest.sessions) != number:
            raise RuntimeError(f"{len(manifest.sessions)} sessions chosen, not {number}")
        home = folder / f"home{number}"
        with open_instance(Settings(home, str(home / "store"))) as instance:
            start = time.perf_counter()
            register(instance, session_partitions(row), [session.key for session in manifest.sessions])
            marks.append(marks[-1] + time.perf_counter() - start)
        parts = zip(("choose", "write", "read", "register"), np.diff(marks).tolist(), strict=True)
        runs.append({"sessions": number, **dict(parts)})
    return {"runs": runs, "ratios": _growth("A manifest", "sessions", runs)}


def _listing(number: int) -> Any:
    from neuralpile_dagster_tests.listings import archive_file, made_up_row, make_listing

    stems = [f"sub-{k % 81}/sub-{k % 81}_ses-{20_000_000 + k:08d}T000000" for k in range(number)]
    others = [f"{stem}_probe-{probe}_ecephys" for stem in stems for probe in range(10)]
    return make_listing([archive_file(made_up_row(f"{path}.nwb")) for path in (*stems, *others)], "000713")


def definitions(sizes: Sequence[int], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to load the code location in a fresh process; dynamic partitions are not read for it."""
    runs = []
    for number in sizes:
        home = folder / f"datasets{number}"
        home.mkdir()
        rows = [{"name": f"more-{k}", "title": "Synthetic", "source": {"id": f"{k:06d}"}} for k in range(number - 25)]
        if rows:
            (home / "catalog.yaml").write_text(json.dumps({"datasets": rows}))
        code = "import neuralpile_dagster.definitions as d; d.defs.get_repository_def()"
        seconds = [measure(["-c", code], {"NEURALPILE_HOME": str(home)}).wall_s for _ in range(repeats)]
        runs.append({"datasets": number, "load": min(seconds)})
    return {"runs": runs, "ratios": _growth("The code location", "datasets", runs)}


def per_session() -> dict[str, float]:
    """Seconds that any session costs by itself, and Dagster's: from the result of `bench.backfill`, else 0."""
    path = RESULTS / "backfill.json"
    if not path.exists():
        print("\nNo result of bench.backfill: what a session costs whatever its size is left out")
        return {"fixed_s": 0.0, "overhead_s": 0.0}
    found = json.loads(path.read_text())
    return {
        "fixed_s": found["direct_s_per_session"],
        "overhead_s": found["bench-batched"]["overhead_s_per_session"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smoke run")
    tiny = parser.parse_args().tiny
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    repeats = 1 if tiny else REPEATS
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "sessions": lambda folder: sessions(TINY if tiny else SIZES, folder, repeats),
        "merge": lambda folder: merge([20, 40] if tiny else ROWS, 10 if tiny else FILES, folder),
        "manifests": lambda folder: manifests([100, 200] if tiny else SESSIONS, folder),
        "definitions": lambda folder: definitions([25, 30] if tiny else DATASETS, folder, repeats),
    }
    results: dict[str, Any] = {}
    for name, part in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = part(Path(folder))
    rates = Rates(**results["sessions"]["rates"], **per_session())
    if tiny:
        print("\nThe estimates below are made from a smoke run's rates and mean nothing")
    results["pile"] = report_pile(rates)
    print(f"\nwrote {save('scale-tiny' if tiny else 'scale', results)}")


if __name__ == "__main__":
    main()
