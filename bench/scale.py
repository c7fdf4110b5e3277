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
from bench.scale_instance import LOAD, instance
from bench.scale_pile import Rates, report_pile

UNITS = 500
DENSITY = 0.116
"""Spikes per token of the whole pile: 0.42 TB of float64 spike times over 452.8 G tokens."""
# bins, and spikes per token: growing together as in the pile, then more tokens or more spikes alone
SIZES = [*((50_000 * k, DENSITY) for k in (1, 2, 4, 8)), (200_000, DENSITY / 4), (50_000, DENSITY * 4)]
SMALLEST, TINY = (50, 0.01), [(5_000, DENSITY), (10_000, DENSITY)]
ROWS, FILES = [2_000, 8_000, 32_000], 200
SESSIONS, DATASETS = [1_908, 20_000], [25, 250]
PARTITIONS = 2_000
REPEATS = 2


def _session(size: tuple[int, float], folder: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds of the whole process, best of some, and what the step prints."""
    bins, density = size
    recording = folder / "recording.nwb"
    measure(["-m", "bench.recordings", str(recording), *map(str, (UNITS, bins, round(UNITS * bins * density)))])
    found = []
    for number in range(repeats):
        arguments = ["-m", "bench.session_steps", "store", str(recording), str(folder / f"store{number}")]
        run = measure(arguments, {"NEURALPILE_THREADS": "1"})
        found.append({**run.json(), "cpu_s": run.cpu_s})
    return min(found, key=lambda run: float(run["cpu_s"]))


def sessions(sizes: Sequence[tuple[int, float]], growing: int, folder: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds of spike trains and spike counts; the first ``growing`` sizes differ in length alone."""
    _session(SMALLEST, folder, 1)  # compiles
    least = _session(SMALLEST, folder, repeats)["cpu_s"]
    runs = [_session(size, folder, repeats) for size in sizes]
    for run in runs:
        # a tiny one may cost no more than the smallest
        run["cpu_s"] = max(run["cpu_s"] - least, 1e-3)
        run["ns_per_token"] = run["cpu_s"] / run["tokens"] * 1e9
    columns = ["spikes", "tokens", "cpu_s", "ns_per_token"]
    show(
        f"A session, one thread: CPU seconds above the {least:.2f} of a session of next to nothing (imports)",
        [*columns, "bytes per spike", "bytes per token"],
        [
            [*(run[c] for c in columns), run["trains_bytes"] / run["spikes"], run["counts_bytes"] / run["tokens"]]
            for run in runs
        ],
    )
    first, last = runs[0], runs[growing - 1]
    ratios = {"CPU: growth / growth of tokens": last["ns_per_token"] / first["ns_per_token"]}
    for name, run in zip(("tokens", "spikes"), runs[growing:], strict=False):
        ratios[f"CPU: 4 times the {name} alone / one"] = run["cpu_s"] / first["cpu_s"]
    show("Growth", ["", "found"], [list(item) for item in ratios.items()])
    rates = {
        "s_per_token": last["cpu_s"] / last["tokens"],
        "trains_per_spike": last["trains_bytes"] / last["spikes"],
        "counts_per_token": last["counts_bytes"] / last["tokens"],
        "spikes_per_token": DENSITY,
    }
    return {"runs": runs, "rates": rates, "ratios": ratios}


def merge(rows: Sequence[int], files: int, folder: Path) -> dict[str, Any]:
    """Seconds to read footers, plan, and copy all shards, against the number of rows (small ones: 80 tokens)."""
    from neuralpile_dagster.files import sha256_of
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
        listed = [SourceFile(name=name, size=store.size(name) or 0, sha256=sha256_of(folder / name)) for name in names]
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
    from neuralpile_dagster.ledger import documents
    from neuralpile_dagster.orchestration.home import open_instance
    from neuralpile_dagster.orchestration.names import register, session_partitions
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
        write_record(store, documents.manifest_path(row), manifest)
        mark()
        read_record(store, documents.manifest_path(row), Manifest)
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
    from neuralpile_dagster.testing.listings import made_up_file, make_listing

    stems = [f"sub-{k % 81}/sub-{k % 81}_ses-{20_000_000 + k:08d}T000000" for k in range(number)]
    others = [f"{stem}_probe-{probe}_ecephys" for stem in stems for probe in range(10)]
    return make_listing((made_up_file(f"{path}.nwb") for path in (*stems, *others)), "000713")


def definitions(sizes: Sequence[int], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to load the code location in a fresh process; dynamic partitions are not read for it."""
    runs = []
    for number in sizes:
        home = folder / f"datasets{number}"
        home.mkdir()
        rows = [{"name": f"more-{k}", "title": "Synthetic", "source": {"id": f"{k:06d}"}} for k in range(number - 25)]
        if rows:
            (home / "catalog.yaml").write_text(json.dumps({"datasets": rows}))
        seconds = [measure(["-c", LOAD], {"NEURALPILE_HOME": str(home)}).wall_s for _ in range(repeats)]
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
        "sessions": lambda folder: sessions(TINY if tiny else SIZES, 2 if tiny else 4, folder, repeats),
        "merge": lambda folder: merge([20, 40] if tiny else ROWS, 10 if tiny else FILES, folder),
        "manifests": lambda folder: manifests([100, 200] if tiny else SESSIONS, folder),
        "definitions": lambda folder: definitions([25, 30] if tiny else DATASETS, folder, repeats),
        "instance": lambda folder: instance(*((50, 40) if tiny else (SESSIONS[0], PARTITIONS)), folder, repeats),
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
