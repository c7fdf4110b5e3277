"""A cluster of processes on this machine, as ``deploy/celery/up`` starts it, and what tests and benches do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import yaml

CELERY = Path(__file__).parents[2] / "deploy" / "celery"
LOCATION = "neuralpile_dagster.definitions"
NOT_REPEATED = {"key": "dagster/will_retry", "value": "false"}
Value = TypeVar("Value")


def missing_programs() -> str:
    """Why the cluster cannot be started on this machine; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "deploy/celery/up is for Linux"
    if not shutil.which("redis-server"):
        return "Redis is not installed (Debian: apt-get install redis-server)"
    if not shutil.which("pg_ctl") and not list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")):
        return "Postgres is not installed (Debian: apt-get install postgresql)"
    return ""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_instance(home: Path, workers: int, poll_s: int, *, output_on_s3: bool = True) -> None:
    """Write the instance file of deploy/celery for so many workers, and so many seconds between looks for dead ones."""
    instance = yaml.safe_load((CELERY / "dagster.yaml").read_text())
    instance["concurrency"]["runs"]["max_concurrent_runs"] = workers
    instance["run_monitoring"]["poll_interval_seconds"] = poll_s
    if not output_on_s3:
        del instance["compute_logs"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance))


class Cluster:
    """Everything in ``home``, which has its dagster.yaml; ``settings`` are environment variables of all processes."""

    def __init__(self, home: Path, workers: int, settings: Mapping[str, str]) -> None:
        self.home = home
        ports = {name: str(free_port()) for name in ("WEB_PORT", "CODE_PORT", "PG_PORT", "REDIS_PORT")}
        own = {"NEURALPILE_HOME": str(home), "WORKERS": str(workers), "PYTHON": sys.executable}
        foreign = ("NEURALPILE_", "AWS_", "DAGSTER_", "HF_", "DANDI_", "FIGSHARE_", "PYTEST_")
        machine = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {**machine, **settings, **ports, **own}
        self.url = f"http://127.0.0.1:{ports['WEB_PORT']}/graphql"

    def up(self) -> None:
        """Start what is not running."""
        self._script("up")

    def down(self) -> None:
        """Stop everything, without patience for runs."""
        self.environment["PATIENCE"] = "1"
        self._script("down")

    def _script(self, name: str) -> None:
        done = subprocess.run([CELERY / name], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def process(self, name: str) -> int:
        """Id of a process, which leads its group."""
        return int((self.home / "run" / name / "pid").read_text().split()[0])

    def kill(self, name: str) -> None:
        """End a process and all its children at once, as a machine that loses its power does."""
        os.killpg(self.process(name), signal.SIGKILL)

    def stop_postgres(self) -> None:
        """Stop the database and wait until it is gone."""
        process = self.process("postgres")
        os.kill(process, signal.SIGINT)
        wait_until(lambda: not Path(f"/proc/{process}/cmdline").is_file() or _is_zombie(process), "Postgres to stop")

    def query(self, text: str, **variables: Any) -> Any:
        """Ask Dagster's GraphQL API; questions are asked again while its database is away."""
        for _ in range(60):
            body = json.dumps({"query": text, "variables": variables}).encode()
            request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=120) as reply:
                    answer = json.load(reply)
                break
            except HTTPError as error:
                trouble = error.read().decode()
                assert not text.startswith("mutation"), trouble
                time.sleep(1)
        else:
            raise AssertionError(trouble)
        assert "errors" not in answer, answer
        return answer["data"]

    def materialize(self, keys: str | Sequence[str], partition: str | None = None) -> str:
        """Launch a run of an asset or several; gives its id."""
        chosen = [_asset(key) for key in ([keys] if isinstance(keys, str) else keys)]
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        selector = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "jobName": "__ASSET_JOB"}
        parameters = {
            "selector": {**selector, "assetSelection": chosen},
            "runConfigData": "{}",
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        mutation = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        return str(self.query(mutation, p=parameters)["launchRun"]["run"]["runId"])

    def backfill(self, partitions: Mapping[str, Sequence[str]]) -> str:
        """Launch one backfill of several assets, each with partitions of its own; gives its id."""
        wanted = [
            {"assetKey": _asset(key), "partitions": {"range": {"start": keys[0], "end": keys[-1]}}}
            for key, keys in partitions.items()
        ]
        mutation = """mutation($b: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $b) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
        launched = self.query(mutation, b={"partitionsByAssets": wanted, "title": "test"})["launchPartitionBackfill"]
        assert "backfillId" in launched, launched
        return str(launched["backfillId"])

    def finish_backfill(self, backfill: str) -> str:
        """Wait for a backfill's end; gives its status."""
        text = "query($b: String!) { partitionBackfillOrError(backfillId: $b) { ... on PartitionBackfill { status } } }"

        def status() -> str | None:
            now = self.query(text, b=backfill)["partitionBackfillOrError"]["status"]
            return None if now in ("REQUESTED", "CANCELING", "FAILING") else str(now)

        return wait_until(status, f"backfill {backfill} to end")

    def finish(self, run: str) -> str:
        """Wait for the end of a run, and of the runs that repeat it; gives the last one's status."""
        text = """query($r: ID!) { runGroupOrError(runId: $r) { ... on RunGroup { runs { status
            tags { key value } } } } runOrError(runId: $r) { ... on Run { status tags { key value } } } }"""

        def status() -> str | None:
            answer = self.query(text, r=run)
            runs = answer["runGroupOrError"].get("runs") or [answer["runOrError"]]
            if any(each["status"] == "SUCCESS" for each in runs):
                return "SUCCESS"
            # Dagster says of each failed run whether it will be repeated
            given_up = [tag for each in runs for tag in each["tags"] if tag == NOT_REPEATED]
            return "FAILURE" if given_up else None

        return wait_until(status, f"run {run} to end")

    def runs(self) -> list[dict[str, Any]]:
        """All runs: their status, when they started and ended (s), and their tags."""
        text = "{ runsOrError { ... on Runs { results { status startTime endTime tags { key value } } } } }"
        return [
            {
                "status": run["status"],
                "start": run["startTime"],
                "end": run["endTime"],
                "tags": {tag["key"]: tag["value"] for tag in run["tags"]},
            }
            for run in self.query(text)["runsOrError"]["results"]
        ]

    def partitions(self, key: str) -> list[str]:
        """Keys of an asset's partitions."""
        text = "query($k: [AssetKeyInput!]) { assetNodes(assetKeys: $k) { partitionKeys } }"
        return list(self.query(text, k=[_asset(key)])["assetNodes"][0]["partitionKeys"])

    def materialized(self, key: str) -> list[str]:
        """Partitions of an asset that are materialized, each as often as it was."""
        text = """query($k: AssetKeyInput!) { assetOrError(assetKey: $k) { ... on Asset {
            assetMaterializations { partition } } } }"""
        made = self.query(text, k=_asset(key))["assetOrError"].get("assetMaterializations", [])
        return [each["partition"] for each in made]

    def working_on(self, asset: str) -> tuple[str, int]:
        """The worker, and its child's process, that works on a run of an asset."""
        from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

        text = """{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results {
            assetSelection { path } tags { key value } } } } }"""
        tasks = [
            tag["value"]
            for run in self.query(text)["runsOrError"]["results"]
            if asset in ["/".join(key["path"]) for key in run["assetSelection"]]
            for tag in run["tags"]
            if tag["key"] == DAGSTER_CELERY_TASK_ID_TAG
        ]
        active = json.loads(self._celery("inspect", "--timeout", "5", "--json", "active"))
        for worker, working in active.items():
            for task in working:
                if task["id"] in tasks:
                    return worker.partition("@")[0], int(task["worker_pid"])
        raise AssertionError(f"nobody works on {asset}: {active}")

    def _celery(self, *arguments: str) -> str:
        script = '. "$NEURALPILE_HOME/cluster.env" && exec "$PYTHON" -m celery -A "$0" "$@"'
        command = ["bash", "-c", script, "neuralpile_dagster.orchestration.worker_app", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout


def _asset(key: str) -> dict[str, list[str]]:
    return {"path": key.split("/")}


def _is_zombie(process: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], Value | None], what: str, seconds: float = 400.0, every_s: float = 0.5) -> Value:
    """Ask until the answer is true; the time is a bound for broken tests, not an expectation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(every_s)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
