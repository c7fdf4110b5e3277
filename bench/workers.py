"""Does a second worker double the throughput? One backfill on one worker process, and on two, of one core each.

``python -m bench.workers [--tiny]``. 60 medium synthetic sessions in a local
folder; Postgres, Redis, workers and daemon as ``deploy/celery/up`` starts them
(apt-get install postgresql redis-server; skipped without); the second worker
joins for the same sessions under another name. The store is a folder and
``NEURALPILE_THREADS=1``. Throughput is sessions per second from the start of
the first run to the end of the last, imports and queueing included. On two
cores the database, the broker and the daemon take their share of what two
workers could use. What two processes could reach on this machine without any of
them is measured beside it: the same sessions by direct calls, in one process
and in two at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.common import measure, save, show, start, synthetic_row
from neuralpile_dagster_tests.servers.cluster import Cluster, missing_programs, wait_until, write_instance

DANDISETS = {1: "990349", 2: "990350"}
"""One for each number of workers, with the same sessions."""
SESSIONS, UNITS, BINS, SPIKES, TEMPLATES = 60, 500, 100_000, 5_800_000, 3
TINY_SESSIONS, TINY_BINS = 2, 2_000
DIRECT = 8
"""Sessions of each process without Dagster."""
TARGET = 1.7


def make_archive(folder: Path, sessions: int, bins: int) -> Path:
    """A folder archive of two dandisets, whose sessions are links to the same few recordings."""
    paths = [folder / f"template{seed}.nwb" for seed in range(min(TEMPLATES, sessions))]
    for seed, path in enumerate(paths):
        numbers = (UNITS, bins, SPIKES * bins // BINS, seed)
        measure(["-m", "bench.recordings", str(path), *map(str, numbers)])
    archive = folder / "archive"
    for dandiset in DANDISETS.values():
        for number in range(sessions):
            target = archive / dandiset / f"sub-{number % 9}" / f"sub-{number % 9}_ses-{number:03d}.nwb"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(paths[number % len(paths)], target)
    return archive


def backfills(archive: Path, sessions: int, bins: int, poll_s: int) -> dict[str, dict[str, Any]]:
    """What `backfill` found by number of workers, on one cluster that a second worker joins."""
    home = Path(tempfile.mkdtemp(prefix="neuralpile-bench-"))
    home.chmod(0o711)  # as root Postgres runs as another user
    rows = [
        synthetic_row(_name(workers), dandiset, sessions, sessions * UNITS * bins)
        for workers, dandiset in DANDISETS.items()
    ]
    (home / "catalog.yaml").write_text(yaml.safe_dump({"datasets": rows}))
    settings = {
        "NEURALPILE_ARCHIVE": str(archive),
        "NEURALPILE_STORE": str(home / "store"),
        "NEURALPILE_THREADS": "1",
    }
    cluster = Cluster(home, 1, settings)
    found = {}
    try:
        for workers in DANDISETS:
            write_instance(home, workers, poll_s=poll_s, output_on_s3=False)
            if found:
                cluster.kill("daemon")  # it reads how many runs there may be when it starts
            cluster.environment["WORKERS"] = str(workers)
            cluster.up()
            found[str(workers)] = backfill(cluster, _name(workers).replace("-", "_"), poll_s)
    finally:
        cluster.down()
        shutil.rmtree(home)
    return found


def _name(workers: int) -> str:
    return f"bench-workers-{workers}"


def backfill(cluster: Cluster, asset: str, poll_s: int) -> dict[str, Any]:
    """Backfill all sessions of a dataset; seconds from first start to last end, and sessions of each run."""
    _require(cluster.finish(cluster.materialize(f"{asset}/manifest")), "SUCCESS")
    keys = cluster.partitions(f"{asset}/spike_counts")
    backfill = cluster.backfill({f"{asset}/{layer}": keys for layer in ("spike_trains", "spike_counts")})
    # seldom: the answers take processor time from the workers
    every_s = max(poll_s / 6, 1.0)
    runs = wait_until(lambda: _all_runs(cluster, backfill, asset, len(keys)), "its runs to end", 1200.0, every_s)
    seconds = max(run["end"] for run in runs) - min(run["start"] for run in runs)
    return {"sessions": len(keys), "runs": len(runs), "seconds": seconds, "per_s": len(keys) / seconds}


def _all_runs(cluster: Cluster, backfill: str, asset: str, sessions: int) -> list[dict[str, Any]] | None:
    """The runs, once they made all sessions; the backfill itself the daemon ends up to half a minute later."""
    runs = [run for run in cluster.runs() if run["tags"].get("dagster/backfill") == backfill]
    for run in runs:
        if run["status"] in ("FAILURE", "CANCELED"):
            raise RuntimeError(f"a run of the backfill ended as {run['status']}")
    ended = runs and all(run["status"] == "SUCCESS" for run in runs)
    return runs if ended and len(set(cluster.materialized(f"{asset}/spike_counts"))) == sessions else None


def _require(found: str, expected: str) -> None:
    if found != expected:
        raise RuntimeError(f"expected {expected}, found {found}")


def direct(archive: Path, processes: int, sessions: int) -> float:
    """Sessions per second of so many plain processes at once, each binning ``sessions`` after one to warm up."""
    files = [str(path) for path in sorted(archive.rglob("*.nwb"))[: sessions + 1]]
    command = ["-m", "bench.workers", "--direct", *files]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(processes)]
        ended = [running.wait() for running in [start(command, log, {"NEURALPILE_THREADS": "1"}) for log in logs]]
        said = [log.read_text() for log in logs]
    if any(ended):
        raise RuntimeError(f"a plain process failed: {said}")
    return processes * sessions / max(float(text.split()[-1]) for text in said)


def bin_all(files: Sequence[str]) -> float:
    """Bin files in this process; seconds of all but the first."""
    from neuralpile_dagster.session.own_files import bin_files

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.parquet"
        bin_files([Path(files[0])], rows)
        began = time.perf_counter()
        for file in files[1:]:
            bin_files([Path(file)], rows)
        return time.perf_counter() - began


def compare(sessions: int, bins: int, poll_s: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        archive = make_archive(Path(folder), sessions, bins)
        plain = [direct(archive, processes, min(DIRECT, sessions - 1)) for processes in (1, 2)]
        found = backfills(archive, sessions, bins, poll_s)
    tokens = UNITS * bins
    workers = found["2"]["per_s"] / found["1"]["per_s"]
    ratios = {
        "2 workers / 1 worker, sessions per second": workers,
        "2 plain processes / 1": plain[1] / plain[0],
        "workers' ratio / plain processes'": workers / (plain[1] / plain[0]),
    }
    return {"tokens_per_session": tokens, "workers": found, "ratios": ratios}


def report(result: Mapping[str, Any]) -> None:
    mega = result["tokens_per_session"] / 1e6
    rows = [
        [int(number), run["sessions"], run["runs"], run["seconds"], run["per_s"], run["per_s"] * mega]
        for number, run in result["workers"].items()
    ]
    show(
        f"Backfill of sessions of {result['tokens_per_session']:,} tokens",
        ["workers", "sessions", "runs", "s", "sessions/s", "M tokens/s"],
        rows,
    )
    targets = [f">= {TARGET}", "", ""]
    rows = [[*found, target] for found, target in zip(result["ratios"].items(), targets, strict=True)]
    show("Ratios", ["", "found", "target"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few small sessions, for a smoke run")
    parser.add_argument("--direct", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.direct:
        print(bin_all(options.direct))
        return
    if missing := missing_programs():
        print(f"skipped: {missing}")
        return
    result = compare(*((TINY_SESSIONS, TINY_BINS, 2) if options.tiny else (SESSIONS, BINS, 30)))
    report(result)
    print(f"\nwrote {save('workers-tiny' if options.tiny else 'workers', result)}")


if __name__ == "__main__":
    main()
