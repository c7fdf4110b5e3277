"""A real backfill: web server, daemon and run workers as `neuralpile ui` starts them, asked through GraphQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import (
    FILES,
    SESSIONS,
    House,
    cut,
    instance_of,
    neuralpile,
    quick_folder,
)

pytestmark = pytest.mark.slow_first
CATALOG = """\
datasets:
  - name: tiny-mice
    title: Tiny synthetic mice, made for tests
    source: {archive: dandi, id: "990100", version: draft}
"""
LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
RUNS = "query { runsOrError { ... on Runs { results { runId status } } } }"
PARTITIONS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions }
      }
    }
  }
}"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Ui:
    """A running `neuralpile ui`."""

    url: str
    environment: dict[str, str]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = json.load(answer)
        assert "errors" not in content, content
        return content["data"]

    def partitions(self, layer: str) -> dict[str, set[str]]:
        """Partition keys of an asset by status."""
        data = self.ask(PARTITIONS, key={"path": ["tiny_mice", layer]})
        return {status: set(keys) for status, keys in data["assetNodeOrError"]["assetPartitionStatuses"].items()}

    def backfill(self, *keys: str) -> None:
        """Backfill spike trains and counts of these sessions and wait until its runs have ended."""
        known = {run["runId"] for run in self.runs()}
        assets = [{"path": ["tiny_mice", layer]} for layer in ("spike_trains", "spike_counts")]
        params = {"assetSelection": assets, "partitionNames": list(keys)}
        launched = self.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        wait_for(lambda: any(run["runId"] not in known for run in self.runs()), "the backfill to start a run")
        wait_for(lambda: all(run["status"] in ENDED for run in self.runs()), "the runs to end")

    def runs(self) -> list[dict[str, str]]:
        return self.ask(RUNS)["runsOrError"]["results"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.5)


@pytest.fixture
def archive(new_archive: Callable[[], Path]) -> Path:
    return new_archive()


@pytest.fixture
def ui(archive: Path) -> Iterator[Ui]:
    """`neuralpile ui` on a home whose manifest is made; all its processes end with it."""
    with quick_folder() as home, socket.socket() as probe:
        (home / "catalog.yaml").write_text(CATALOG)
        environment = {"NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": str(archive)}
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-c", "from neuralpile_dagster.cli import main; main()", "ui", "--port", str(port)]
        log = (home / "ui.log").open("w")
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        served = Ui(f"http://127.0.0.1:{port}", environment)
        try:
            wait_for(lambda: answers(served) or process.poll() is not None, "the web server")
            assert process.poll() is None, (home / "ui.log").read_text()
            yield served
        finally:
            process.terminate()
            process.wait()


def discover(ui: Ui) -> None:
    """Materialize the manifest on the instance that is served."""
    settings = Settings.from_environment(ui.environment)
    row = load_catalog(settings)["tiny-mice"]
    with instance_of(settings.home) as instance:
        House(settings, instance, [row]).discover(row)


def answers(served: Ui) -> bool:
    try:
        return bool(served.ask("query { version }"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def test_one_backfill_of_three_sessions_leaves_two_green_and_one_red_and_a_build_after_the_repair_completes_it(
    ui: Ui, archive: Path
) -> None:
    broken = archive / "990100" / FILES[1]
    whole = cut(broken)
    discover(ui)
    ui.backfill(*SESSIONS)
    for layer in ("spike_trains", "spike_counts"):
        statuses = ui.partitions(layer)
        assert statuses["materializedPartitions"] == {SESSIONS[0], SESSIONS[2]}, layer
        assert statuses["failedPartitions"] == {SESSIONS[1]}, layer
    status = neuralpile("status", "tiny-mice", **ui.environment).out
    assert f"failed tiny-mice {SESSIONS[1]}: {FILES[1]} cannot be opened as HDF5" in status
    broken.write_bytes(whole)
    built = neuralpile("build", "tiny-mice", **ui.environment)
    assert (built.code, built.out.split(",")[0]) == (0, "local/tiny-mice: 3 sessions")
    assert "tiny-mice: 1 of 1 sessions of this batch" in built.err
    assert ui.partitions("spike_counts")["materializedPartitions"] == set(SESSIONS)
    assert ui.partitions("spike_counts")["failedPartitions"] == set()
