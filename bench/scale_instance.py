"""For `bench.scale`: ``neuralpile status``, what the UI asks about partitions, and what loading the code imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.common import code_server, free_port, measure, median_ratio, medians, rounds, show, start

LOAD = "import neuralpile_dagster.definitions as d; d.defs.get_repository_def()"
STATUS = "from neuralpile_dagster.cli import main; main(['status'])"
QUESTION = """query($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) {
  partitionKeys
  partitionStats { numMaterialized numPartitions }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions } } } }"""
FEW = 20
MODULES = 10
START_S = 180


def instance(sessions: int, partitions: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of both, for so many stored sessions, and for an asset with so many partition keys."""
    for number in (0, sessions):
        _store_sessions(folder / f"status{number}", number)
    every = rounds({str(number): partial(_status, folder / f"status{number}") for number in (0, sessions)}, repeats)
    status = medians(every)
    asked = _ask_for_partitions(folder / "partitions", partitions, repeats)
    rows = [
        ["neuralpile status, a fresh process", int(number), found["wall_s"], found["cpu_s"], ""]
        for number, found in status.items()
    ]
    for number, seconds in asked.items():
        rows.append(["GraphQL: status of all partitions of an asset", number, seconds[0], "", median(seconds[1:])])
    show("An instance", ["", "sessions", "s", "CPU s", "s, asked again"], rows)
    ratios = {
        f"status: {sessions:,} sessions / none": median_ratio(every, "wall_s", str(sessions), "0"),
        f"status, CPU: {sessions:,} sessions / none": median_ratio(every, "cpu_s", str(sessions), "0"),
        f"GraphQL: {partitions:,} partitions / {FEW}": median(
            many / few for many, few in zip(asked[partitions][1:], asked[FEW][1:], strict=True)
        ),
    }
    show("Growth", ["", "found"], [list(item) for item in ratios.items()])
    return {
        "status": status,
        "graphql_s": {number: {"first": found[0], "again": median(found[1:])} for number, found in asked.items()},
        "imports": imports(folder / "imports"),
        "ratios": ratios,
    }


def _status(home: Path) -> dict[str, float]:
    environment = {"NEURALPILE_HOME": str(home), "NEURALPILE_STORE": str(home / "store")}
    found = measure(["-c", STATUS], environment)
    return {"wall_s": found.wall_s, "cpu_s": found.cpu_s}


def _store_sessions(home: Path, sessions: int) -> None:
    """Manifests and records of finished sessions, as many of each dataset as of any other, and nothing else."""
    from neuralpile_dagster.archives.model import ArchiveFile
    from neuralpile_dagster.catalog.rodent import RODENT
    from neuralpile_dagster.ledger import documents
    from neuralpile_dagster.recordings.manifest import Manifest, Session
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import LocalStore, write_record

    home.mkdir(parents=True)
    store, settings = LocalStore(home / "store"), Settings(home, str(home / "store"))
    for number, row in enumerate(RODENT if sessions else ()):
        chosen = []
        for key in (f"sub-0_ses-{k:04d}" for k in range(number, sessions, len(RODENT))):
            file = ArchiveFile(path=f"sub-0/{key}.nwb", size=1, file_id=key)
            chosen.append(Session(key=key, subject_id="sub-0", session_id=key, files=(file,)))
            write_record(store, f"{documents.counts_folder(row, settings)}/{key}.json", _counts_record(key))
        manifest = Manifest(
            dataset=row.name,
            archive="folder",
            source_id=row.source.id,
            version="draft",
            frozen=False,
            listed_at=datetime.now(UTC),
            considered=len(chosen),
            dropped={},
            sessions=tuple(chosen),
        )
        write_record(store, documents.manifest_path(row), manifest)


def _counts_record(key: str) -> Any:
    """A record of the size that a real session has: 24 segments, a histogram of 40 counts."""
    from neuralpile_dagster.records import CountsRecord, CountsStats, FactsRecord, RowRecord, StoredFile

    file = StoredFile(key=f"{key}.parquet", size=1, sha256="0" * 64)
    stats = CountsStats(
        n_units=600,
        n_bins=400_000,
        bin_width_s=0.02,
        tokens=240_000_000,
        spikes_read=1,
        spikes_kept=1,
        silent_units=0,
        max_count=40,
        histogram=(1_000_000,) * 40,
        fingerprint="0" * 64,
    )
    return CountsRecord(
        inputs="0" * 64,
        trains_inputs="0" * 64,
        file=file,
        units_file=file,
        subject_id="sub-0",
        session_id=key,
        source_version="draft",
        max_tokens=10_000_000,
        facts=FactsRecord(),
        stats=stats,
        rows=tuple(RowRecord(segment_id=f"segment_{k}", n_bins=16_666, bytes=900_000) for k in range(24)),
    )


def _ask_for_partitions(home: Path, partitions: int, repeats: int) -> dict[int, list[float]]:
    """Seconds of the first answer and of later ones, in turn for assets with few and with many partitions."""
    assets = _materialize(home, (FEW, partitions))
    found: dict[int, list[float]] = {number: [] for number in assets}
    with _web_server(home) as ask:
        ask("{ version }", {})
        for _ in range(1 + repeats):
            for number, path in assets.items():
                start = time.perf_counter()
                answer = ask(QUESTION, {"keys": [{"path": path}]})
                found[number].append(time.perf_counter() - start)
                stats = answer["data"]["assetNodes"][0]["partitionStats"]
                if stats != {"numMaterialized": number // 2, "numPartitions": number}:
                    raise RuntimeError(f"{number} partitions, half of them materialized, and Dagster says {stats}")
    return found


def _materialize(home: Path, sizes: Sequence[int]) -> dict[int, list[str]]:
    """Register so many sessions of one dataset for each size, and materialize every other; gives the assets."""
    import dagster as dg

    from neuralpile_dagster.catalog.rodent import RODENT
    from neuralpile_dagster.orchestration.names import register, session_partitions
    from neuralpile_dagster.orchestration.resources import open_instance
    from neuralpile_dagster.settings import Settings

    assets = {}
    with open_instance(Settings(home, str(home / "store"))) as opened:
        for row, number in zip(RODENT, sizes, strict=False):
            keys = [f"sub-{k % 81}_ses-{k:05d}" for k in range(number)]
            register(opened, session_partitions(row), keys)
            assets[number] = [row.key, "spike_counts"]
            for key in keys[::2]:
                event = dg.AssetMaterialization(asset_key=assets[number], partition=key, metadata={"tokens": 1})
                opened.report_runless_asset_event(event)
    return assets


@contextmanager
def _web_server(home: Path) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """Dagster's web server on the instance of ``home``; gives a function that asks it."""
    port = str(free_port())
    environment = {"DAGSTER_HOME": str(home), "NEURALPILE_HOME": str(home)}

    def ask(text: str, variables: dict[str, Any]) -> Any:
        body = json.dumps({"query": text, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=START_S) as reply:
            return json.load(reply)

    with code_server(home / "code.log", environment) as location:
        command = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", port, *location]
        server = start(command, home / "web.log", environment)
        try:
            _wait(ask, server, home / "web.log")
            yield ask
        finally:
            server.terminate()
            server.wait()


def _wait(ask: Callable[[str, dict[str, Any]], Any], server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < end:
        try:
            ask("{ version }", {})
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"the web server did not start: {log.read_text()[-2000:]}")


def imports(home: Path) -> list[dict[str, Any]]:
    """The modules that take longest by themselves while a fresh process loads the code location, in milliseconds."""
    home.mkdir()
    command = [sys.executable, "-X", "importtime", "-c", LOAD]
    environment = {**os.environ, "NEURALPILE_HOME": str(home)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    found: list[dict[str, Any]] = []
    for line in said.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        total, _, module = rest.partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            found.append({"module": module.strip(), "own_ms": int(own) / 1e3, "with_its_imports_ms": int(total) / 1e3})
    longest = sorted(found, key=lambda each: -each["own_ms"])[:MODULES]
    total_ms = sum(each["own_ms"] for each in found)
    title = f"Imports of the code location: {len(found):,} modules, {total_ms:,.0f} ms; the longest by themselves"
    show(title, ["module", "own ms", "with its imports ms"], [list(each.values()) for each in longest])
    return longest
