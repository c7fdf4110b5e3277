"""What Dagster costs per session: a real backfill, batched and one run each, less direct calls, in the same run.

``python -m bench.backfill [--tiny]``. A dataset of 349 tiny synthetic sessions
is backfilled as the UI does it: GraphQL's ``launchPartitionBackfill``, the
daemon, and run processes started by the default launcher, one at a time (the
instance's own dagster.yaml but for that, and for a queue that is looked at
every second and not every five). A second dataset's scattered sessions become
runs of one. Measured is the time from a run's launch to its end, imports
included and waiting for the daemon's ticks not; less what the same sessions
cost by direct calls of `neuralpile_dagster.build` in one warm process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import measure, save, show

BATCHED, SINGLE = "bench-batched", "bench-single"
SESSIONS, TINY = {BATCHED: 349, SINGLE: 24}, {BATCHED: 4, SINGLE: 1}
UNITS, SECONDS, TEMPLATES = 8, 300.0, 8
TARGETS = {
    "batched, overhead s per session": "<= 0.15",
    "one run each / batched, overhead": ">= 8",
}
TIMEOUT_S = 3600
_LAUNCH = """mutation($a: LaunchBackfillParams!, $b: LaunchBackfillParams!) {
  a: launchPartitionBackfill(backfillParams: $a) { __typename }
  b: launchPartitionBackfill(backfillParams: $b) { __typename }
}"""


def _source(name: str) -> str:
    return {BATCHED: "990349", SINGLE: "990024"}[name]


def make(folder: Path, sessions: Mapping[str, int]) -> dict[str, Any]:
    """A folder archive, and a home with a catalog of both datasets."""
    import yaml

    from neuralpile_dagster_tests.nwb import poisson_trains, write_units_nwb

    paths = [folder / f"template{seed}.nwb" for seed in range(TEMPLATES)]
    for seed, path in enumerate(paths):
        write_units_nwb(path, poisson_trains(UNITS, SECONDS, seed=seed))
    for name, count in sessions.items():
        # of the second dataset every other session is made, so that no two are neighbours
        for number in range(count if name == BATCHED else 2 * count):
            target = folder / "archive" / _source(name) / f"sub-{number % 9}" / f"sub-{number % 9}_ses-{number:04d}.nwb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[number % TEMPLATES], target)
    rows = [{"name": n, "title": "Synthetic", "source": {"id": _source(n), "version": "draft"}} for n in sessions]
    (folder / "home").mkdir()
    (folder / "home" / "catalog.yaml").write_text(yaml.safe_dump({"datasets": rows}))
    return {"bytes_per_file": paths[0].stat().st_size}


def direct(folder: Path, name: str) -> dict[str, Any]:
    """All sessions of a dataset by direct calls, in this process, after one to warm up."""
    from neuralpile_dagster.archives import open_archive
    from neuralpile_dagster.build import build_spike_counts, store_recording, trains_inputs
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.recordings.manifest import Session
    from neuralpile_dagster.recordings.read import read_session
    from neuralpile_dagster.recordings.sessions import choose_sessions
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import open_store

    settings, store = Settings.from_environment(), open_store(str(folder / "direct"))
    row = load_catalog(settings)[name]
    archive = open_archive(settings, row.source)
    sessions = choose_sessions(row, archive.list_files(row.source)).sessions

    def one(session: Session) -> None:
        with archive.open(row.source, session.files[0]) as file:
            recording = read_session("units", [file])
        inputs = trains_inputs(session, "units")
        trains = store_recording(store, "b/spike_trains", session, recording, "draft", inputs)
        build_spike_counts(store, "b/spike_counts", session.key, recording, trains, settings)

    one(sessions[0])
    start = time.perf_counter()
    for session in sessions:
        one(session)
    return {"seconds": time.perf_counter() - start, "sessions": len(sessions)}


def discover(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Materialize the manifests; give each dataset's keys to backfill."""
    import yaml

    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.orchestration.instance import open_instance, prepare_home
    from neuralpile_dagster.orchestration.launch import Launcher
    from neuralpile_dagster.orchestration.names import manifest_key
    from neuralpile_dagster.orchestration.partitions import session_partitions
    from neuralpile_dagster.settings import Settings

    settings = Settings.from_environment()
    prepare_home(settings)
    path = settings.home / "dagster.yaml"
    config = yaml.safe_load(path.read_text())
    config["concurrency"]["runs"]["max_concurrent_runs"] = 1
    config["run_queue"] = {"dequeue_interval_seconds": 1}
    path.write_text(yaml.safe_dump(config))
    catalog, keys = load_catalog(settings), {}
    with open_instance(settings) as instance:
        launcher = Launcher(settings, instance)
        for name in names:
            if reason := launcher.run([manifest_key(catalog[name])]):
                raise RuntimeError(f"the manifest of {name} was not made: {reason}")
            partitions = session_partitions(catalog[name]).name
            assert partitions is not None
            known = instance.get_dynamic_partitions(partitions)
            keys[name] = list(known) if name == BATCHED else list(known)[::2]
    return keys


STEPS: dict[str, Callable[..., dict[str, Any]]] = {function.__name__: function for function in (make, direct, discover)}


def step(name: str, folder: Path, *arguments: Any) -> dict[str, Any]:
    measured = measure(["-m", "bench.backfill", "--step", name, *map(json.dumps, (str(folder), *arguments))])
    return dict(measured.json())


def backfill(home: Path, keys: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    """Ask for both backfills, let a daemon do them, and give their runs: sessions, launch and end (s), by dataset."""
    import dagster as dg

    variables = {}
    for letter, (name, partitions) in zip("ab", keys.items(), strict=True):
        assets = [{"path": [name.replace("-", "_"), layer]} for layer in ("spike_trains", "spike_counts")]
        variables[letter] = {"assetSelection": assets, "partitionNames": list(partitions)}
    module = ["-m", "neuralpile_dagster.definitions"]
    client = ["-c", "from dagster_graphql.cli import main; main()", *module]
    said = measure([*client, "-t", _LAUNCH, "-v", json.dumps(variables)]).output
    if said.count("LaunchBackfillSuccess") != len(keys):
        raise RuntimeError(f"a backfill was refused: {said}")
    with (home / "daemon.log").open("w") as log:
        daemon = subprocess.Popen([sys.executable, "-m", "dagster._daemon", "run", *module], stdout=log, stderr=log)
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return _wait(instance, daemon, keys)
    finally:
        daemon.terminate()
        daemon.wait()


def _wait(instance: Any, daemon: Any, keys: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    due, began = sum(map(len, keys.values())), time.monotonic()
    while True:
        records = [record for record in instance.get_run_records() if "dagster/backfill" in record.dagster_run.tags]
        bad = [record.dagster_run for record in records if record.dagster_run.is_failure_or_canceled]
        if bad or daemon.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            raise RuntimeError(f"the backfill did not end well; failed runs: {[run.run_id for run in bad]}")
        finished = [record for record in records if record.dagster_run.is_finished]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
        for record in finished:
            name, made = _what(instance, record.dagster_run, keys)
            stats = instance.get_run_stats(record.dagster_run.run_id)
            runs[name].append(
                {"id": stats.run_id, "sessions": made, "launched": stats.launch_time, "ended": stats.end_time}
            )
        if finished and len(finished) == len(records) and sum(r["sessions"] for rs in runs.values() for r in rs) == due:
            return runs
        time.sleep(2)


def _what(instance: Any, run: Any, keys: Mapping[str, Sequence[str]]) -> tuple[str, int]:
    """Which dataset a run made, and how many of its sessions."""
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    first, last = first or run.tags["dagster/partition"], last or run.tags["dagster/partition"]
    dataset = next(iter(run.asset_selection)).path[0]
    name = next(name for name in keys if name.replace("-", "_") == dataset)
    known = list(keys[name])
    return name, known.index(last) - known.index(first) + 1


def log_bytes(home: Path, runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Bytes per session that SQLite keeps of these runs: their own files, and their share of the index by content."""
    sessions = sum(run["sessions"] for run in runs)
    own = sum(p.stat().st_size for run in runs for p in (home / "history" / "runs").glob(f"{run['id']}.db*"))
    index = home / "history" / "runs" / "index.db"
    files = sum(path.stat().st_size for path in index.parent.glob("index.db*"))
    with sqlite3.connect(index) as connection:
        sizes = dict(connection.execute("select run_id, sum(length(event)) from event_logs group by run_id"))
    connection.close()
    share = sum(sizes.get(run["id"], 0) for run in runs) / sum(sizes.values())
    logs = sum(p.stat().st_size for run in runs for p in (home / "storage" / run["id"]).rglob("*") if p.is_file())
    return {"runs": own / sessions, "index": files * share / sessions, "compute_logs": logs / sessions}


def compare(folder: Path, sessions: Mapping[str, int]) -> dict[str, Any]:
    home = folder / "home"
    environment = {"NEURALPILE_HOME": str(home), "DAGSTER_HOME": str(home)}
    os.environ |= {**environment, "NEURALPILE_ARCHIVE": str(folder / "archive")}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # run processes compile everything anew where it is set
    made = step("make", folder, sessions)
    step("direct", folder, SINGLE)  # compiles
    runs = backfill(home, step("discover", folder, list(sessions)))
    plain = step("direct", folder, BATCHED)
    direct_s = plain["seconds"] / plain["sessions"]
    result: dict[str, Any] = {"sessions": dict(sessions), **made, "direct_s_per_session": direct_s}
    for name, found in runs.items():
        count = sum(run["sessions"] for run in found)
        cost = sum(run["ended"] - run["launched"] for run in found) / count
        wall = max(run["ended"] for run in found) - min(run["launched"] for run in found)
        result[name] = {
            "runs": len(found),
            "s_per_session": cost,
            "overhead_s_per_session": cost - direct_s,
            "wall_s_per_session": wall / count,
            "event_log_bytes_per_session": log_bytes(home, found),
        }
    batched, single = result[BATCHED], result[SINGLE]
    result["ratios"] = {
        "batched, overhead s per session": batched["overhead_s_per_session"],
        "one run each / batched, overhead": single["overhead_s_per_session"] / batched["overhead_s_per_session"],
        "one run each / batched, all": single["s_per_session"] / batched["s_per_session"],
    }
    return result


def report(result: Mapping[str, Any]) -> None:
    rows = [["direct calls, one process", "", "", result["direct_s_per_session"], "", "", ""]]
    for name, title in ((BATCHED, "backfill, batched"), (SINGLE, "backfill, one run each")):
        found = result[name]
        kept = sum(found["event_log_bytes_per_session"].values()) / 1e3
        seconds = [found["s_per_session"], found["overhead_s_per_session"], found["wall_s_per_session"]]
        rows.append([title, result["sessions"][name], found["runs"], *seconds, kept])
    columns = ["sessions", "runs", "s per session", "less direct calls", "with waiting", "kB of event log per session"]
    show("What Dagster costs per tiny session", ["", *columns], rows)
    show("Ratios", ["", "found", "target"], [[k, v, TARGETS.get(k, "")] for k, v in result["ratios"].items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a few sessions, for a smoke run")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, *arguments = map(json.loads, [json.dumps(options.step[0]), *options.step[1:]])
        print(json.dumps(STEPS[name](Path(folder), *arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), TINY if options.tiny else SESSIONS)
    report(result)
    print(f"\nwrote {save('backfill-tiny' if options.tiny else 'backfill', result)}")


if __name__ == "__main__":
    main()
