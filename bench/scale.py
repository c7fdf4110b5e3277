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
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import RESULTS, ROUNDS, Laps, measure, median_ratio, medians, rounds, save, show
from bench.scale_instance import LOAD, instance
from bench.scale_pile import Rates, report_pile

UNITS, TINY_UNITS = 500, 50
DENSITY = 0.116
"""Spikes per token of the whole pile: 0.42 TB of float64 spike times over 452.8 G tokens."""
# bins, and spikes per token: growing together as in the pile, then more tokens or more spikes alone
SIZES = [*((50_000 * k, DENSITY) for k in (1, 2, 4, 8)), (200_000, DENSITY / 4), (50_000, DENSITY * 4)]
SMALLEST, TINY = (50, 0.01), [(10_000, DENSITY), (40_000, DENSITY)]
ROWS, FILES = [2_000, 8_000, 32_000], 200
SESSIONS, MORE_DATASETS = [1_908, 20_000], 225
PARTITIONS = 2_000


def _session(size: tuple[int, float], units: int, folder: Path) -> dict[str, float]:
    """What the step prints: CPU seconds of spike trains and counts together, and of checks and picture."""
    bins, density = size
    recording, target = folder / f"{bins}-{density}.nwb", folder / "store"
    if not recording.exists():
        numbers = (units, bins, round(units * bins * density))
        measure(["-m", "bench.recordings", str(recording), *map(str, numbers)])
    arguments = ["-m", "bench.session_steps", "store", str(recording), str(target)]
    found: dict[str, float] = measure(arguments, {"NEURALPILE_THREADS": "1"}).json()
    shutil.rmtree(target)
    return found | {"cpu_s": found["spike_trains_cpu_s"] + found["spike_counts_cpu_s"]}


def sessions(
    sizes: Sequence[tuple[int, float]], units: int, growing: int, folder: Path, repeats: int
) -> dict[str, Any]:
    """CPU seconds of spike trains and spike counts; the first ``growing`` sizes differ in length alone."""
    _session(SMALLEST, units, folder)  # compiles
    every = rounds({str(size): partial(_session, size, units, folder) for size in (SMALLEST, *sizes)}, repeats)
    for one in every:
        smallest = dict(one[str(SMALLEST)])
        for run in one.values():
            # a tiny one may cost no more than the smallest
            run["cpu_s"] = max(run["cpu_s"] - smallest["cpu_s"], 1e-3)
            run["checks_cpu_s"] = max(run["checks_cpu_s"] - smallest["checks_cpu_s"], 0.0)
            run["ns_per_token"] = run["cpu_s"] / run["tokens"] * 1e9
        one[str(SMALLEST)] = smallest
    smallest, *runs = (dict(run) for run in medians(every).values())
    least = smallest["cpu_s"]
    columns = ["spikes", "tokens", "cpu_s", "ns_per_token", "checks_cpu_s"]
    show(
        f"A session, one thread: CPU seconds above the {least:.2f} of a session of next to nothing (imports)",
        [*columns, "bytes per spike", "bytes per token"],
        [
            [*(run[c] for c in columns), run["trains_bytes"] / run["spikes"], run["counts_bytes"] / run["tokens"]]
            for run in runs
        ],
    )
    last = runs[growing - 1]
    names = [str(size) for size in sizes]
    ratios = {"CPU: growth / growth of tokens": median_ratio(every, "ns_per_token", names[growing - 1], names[0])}
    for name, size in zip(("tokens", "spikes"), names[growing:], strict=False):
        ratios[f"CPU: 4 times the {name} alone / one"] = median_ratio(every, "cpu_s", size, names[0])
    show("Growth", ["", "found"], [list(item) for item in ratios.items()])
    rates = {
        "s_per_token": last["cpu_s"] / last["tokens"],
        "trains_per_spike": last["trains_bytes"] / last["spikes"],
        "counts_per_token": last["counts_bytes"] / last["tokens"],
        "spikes_per_token": DENSITY,
        "checks_s": last["checks_cpu_s"],
    }
    return {"runs": runs, "rates": rates, "ratios": ratios}


def merge(rows: Sequence[int], files: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to read footers, plan, and copy all shards, against the number of rows (small ones: 80 tokens)."""
    from neuralpile_dagster.files import sha256_of
    from neuralpile_dagster.merge.plan import plan_pile, save_plan
    from neuralpile_dagster.merge.shards import write_shard
    from neuralpile_dagster.merge.sources import SourceFile, source_from_parquet
    from neuralpile_dagster.store import LocalStore
    from neuralpile_dagster.tables.rows import RowWriter

    store, listings = LocalStore(folder), {}
    counts = np.random.default_rng(0).poisson(1, (2, 40)).astype(np.uint8)
    for number in rows:
        names = [f"rows-{number}/{file}.parquet" for file in range(files)]
        (folder / f"rows-{number}").mkdir()
        for file, name in enumerate(names):
            with RowWriter(folder / name) as writer:
                for row in range(file, number, files):
                    writer.write(counts, "sub", f"ses-{file}", f"segment_{row}")
        listed = [SourceFile(name=name, size=store.size(name) or 0, sha256=sha256_of(folder / name)) for name in names]
        listings[number] = listed

    def run(number: int) -> dict[str, float]:
        laps = Laps()
        source = source_from_parquet("synthetic", listings[number], store.open)
        laps.lap("read")
        plan = plan_pile([source], seed=0)
        record = save_plan(store, f"plan-{number}", plan)
        laps.lap("plan")
        for shard in record.shards:
            write_shard(plan, shard.name, store.open, folder / "out" / shard.name)
        laps.lap("copy")
        return laps.found

    return _growth("The pile", "rows", rows, run, repeats)


def _growth(
    title: str, size: str, sizes: Sequence[int], run: Callable[[int], dict[str, float]], repeats: int
) -> dict[str, Any]:
    """Show seconds against size, and how much more one more costs at the largest size than at the smallest."""
    every = rounds({str(number): partial(run, number) for number in sizes}, repeats)
    found = medians(every)
    parts = list(found[str(sizes[0])])
    rows = [[number, *found[str(number)].values()] for number in sizes]
    show(f"{title}; medians of {repeats} rounds", [size, *(part.replace("_", " ") for part in parts)], rows)
    larger = sizes[-1] / sizes[0]
    ratios = {
        f"{part.replace('_', ' ')}: growth / growth of {size}": median_ratio(every, part, str(sizes[-1]), str(sizes[0]))
        / larger
        for part in parts
    }
    show(f"Linear growth in {size} would be 1", ["", "found"], [list(item) for item in ratios.items()])
    return {"runs": [{size: number, **found[str(number)]} for number in sizes], "ratios": ratios}


def manifests(sizes: Sequence[int], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to choose, write, read and register the sessions of one dataset (ten files that are none for each)."""
    from neuralpile_dagster.catalog.rodent import RODENT
    from neuralpile_dagster.ledger import documents
    from neuralpile_dagster.orchestration.names import register, session_partitions
    from neuralpile_dagster.orchestration.resources import open_instance
    from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import LocalStore, read_record, write_record

    row = next(dataset for dataset in RODENT if dataset.name == "vbn")
    store = LocalStore(folder / "manifests")
    listings = {number: _listing(number) for number in sizes}

    def run(number: int) -> dict[str, float]:
        store.delete(documents.manifest_path(row))
        laps = Laps()
        manifest = choose_sessions(row, listings[number])
        laps.lap("choose")
        write_record(store, documents.manifest_path(row), manifest)
        laps.lap("write")
        read_record(store, documents.manifest_path(row), Manifest)
        laps.lap("read")
        if len(manifest.sessions) != number:
            raise RuntimeError(f"{len(manifest.sessions)} sessions chosen, not {number}")
        home = Path(tempfile.mkdtemp(dir=folder))
        with open_instance(Settings(home, str(home / "store"))) as instance:
            registering = Laps()
            register(instance, session_partitions(row), [session.key for session in manifest.sessions])
            registering.lap("register")
        return laps.found | registering.found

    return _growth("A manifest", "sessions", sizes, run, repeats)


def _listing(number: int) -> Any:
    from neuralpile_dagster_tests.servers.listings import made_up_file, make_listing

    stems = [f"sub-{k % 81}/sub-{k % 81}_ses-{20_000_000 + k:08d}T000000" for k in range(number)]
    others = [f"{stem}_probe-{probe}_ecephys" for stem in stems for probe in range(10)]
    return make_listing((made_up_file(f"{path}.nwb") for path in (*stems, *others)), "000713")


def definitions(more: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to load the code location in a fresh process, also with ``more`` datasets; no partitions are read.

    Beside it Dagster alone: both take half as long again in some hours of a virtual machine.
    """
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.settings import Settings

    ours = len(load_catalog(Settings(folder, str(folder / "store"))))

    def run(number: int, code: str = LOAD) -> dict[str, float]:
        home = Path(tempfile.mkdtemp(dir=folder))
        rows = [{"name": f"more-{k}", "title": "Synthetic", "source": {"id": f"{k:06d}"}} for k in range(number - ours)]
        if rows:
            (home / "catalog.yaml").write_text(json.dumps({"datasets": rows}))
        found = measure(["-c", code], {"NEURALPILE_HOME": str(home)})
        return {"load_s": found.wall_s, "load_cpu_s": found.cpu_s}

    found = _growth("The code location", "datasets", [ours, ours + more], run, repeats)
    ways = {"import dagster": partial(run, ours, "import dagster"), "the code location": partial(run, ours)}
    every = rounds(ways, repeats)
    rows = [[way, *seconds.values()] for way, seconds in medians(every).items()]
    show(f"With our {ours} datasets; medians of {repeats} rounds", ["", "load s", "load cpu s"], rows)
    beside = median_ratio(every, "load_cpu_s", "the code location", "import dagster")
    return {**found, "ratios": {**found["ratios"], "CPU of the code location / of importing Dagster alone": beside}}


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
    repeats = 1 if tiny else ROUNDS
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "sessions": lambda folder: sessions(*((TINY, TINY_UNITS, 2) if tiny else (SIZES, UNITS, 4)), folder, repeats),
        "merge": lambda folder: merge([20, 40] if tiny else ROWS, 10 if tiny else FILES, folder, repeats),
        "manifests": lambda folder: manifests([20, 40] if tiny else SESSIONS, folder, repeats),
        "definitions": lambda folder: definitions(5 if tiny else MORE_DATASETS, folder, repeats),
        "instance": lambda folder: instance(*((20, 30) if tiny else (SESSIONS[0], PARTITIONS)), folder, repeats),
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
