"""What Dagster costs per session: a real backfill, batched and one run each, less direct calls, in the same run.

``python -m bench.backfill [--tiny]``. A dataset of 349 tiny synthetic sessions
is backfilled as the UI does it: a code server, GraphQL's ``launchPartitionBackfill``, the
daemon, and run processes started by the default launcher, one at a time (the
instance's own dagster.yaml but for that). A second dataset's scattered sessions
become runs of one. Measured is the time from a run's launch to its end, imports
included and waiting for the daemon's ticks not; less what the same sessions
cost by direct calls of `neuralpile_dagster.session` in one warm process.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.backfill_steps import BATCHED, SINGLE
from bench.common import code_server, measure, save, show, start

SESSIONS, TINY = {BATCHED: 349, SINGLE: 24}, {BATCHED: 2, SINGLE: 1}
TARGETS = {
    "batched, overhead s per session": "<= 0.15",
    "one run each / batched, overhead": ">= 8",
}
TIMEOUT_S = 3600
_LAUNCH = """mutation($a: LaunchBackfillParams!, $b: LaunchBackfillParams!) {
  a: launchPartitionBackfill(backfillParams: $a) { __typename }
  b: launchPartitionBackfill(backfillParams: $b) { __typename }
}"""


def step(name: str, folder: Path, *arguments: Any) -> dict[str, Any]:
    measured = measure(["-m", "bench.backfill_steps", name, str(folder), *map(json.dumps, arguments)])
    return dict(measured.json())


def backfill(home: Path, keys: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    """Ask for both backfills, let a daemon do them, and give their runs: sessions, launch and end (s), by dataset."""
    import dagster as dg

    variables = {}
    for letter, (name, partitions) in zip("ab", keys.items(), strict=True):
        assets = [{"path": [name.replace("-", "_"), layer]} for layer in ("spike_trains", "spike_counts")]
        variables[letter] = {"assetSelection": assets, "partitionNames": list(partitions)}
    with code_server(home / "code.log") as location:
        client = ["-c", "from dagster_graphql.cli import main; main()", *location]
        said = measure([*client, "-t", _LAUNCH, "-v", json.dumps(variables)]).output
        if said.count("LaunchBackfillSuccess") != len(keys):
            raise RuntimeError(f"a backfill was refused: {said}")
        daemon = start(["-m", "dagster._daemon", "run", *location], home / "daemon.log")
        try:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                return _wait(instance, daemon, keys)
        finally:
            daemon.terminate()
            daemon.wait()


def _wait(instance: Any, daemon: Any, keys: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    began = time.monotonic()
    while True:
        # runs of both backfills are queued at once, in one look of the daemon; looking costs little until all are done
        runs = [record.dagster_run for record in instance.get_run_records()]
        runs = [run for run in runs if "dagster/backfill" in run.tags]
        bad = [run.run_id for run in runs if run.is_failure_or_canceled]
        if bad or daemon.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            raise RuntimeError(f"the backfills did not end well; failed runs: {bad}")
        if runs and all(run.is_finished for run in runs):
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
            for run in runs:
                name, made = _what(run, keys)
                stats = instance.get_run_stats(run.run_id)
                times = {"launched": stats.launch_time, "ended": stats.end_time}
                found[name].append({"id": run.run_id, "sessions": made, **times})
            if all(sum(run["sessions"] for run in found[name]) == len(keys[name]) for name in keys):
                return found
        time.sleep(2)


def _what(run: Any, keys: Mapping[str, Sequence[str]]) -> tuple[str, int]:
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), TINY if options.tiny else SESSIONS)
    report(result)
    print(f"\nwrote {save('backfill-tiny' if options.tiny else 'backfill', result)}")


if __name__ == "__main__":
    main()
