"""What `bench.backfill` runs in processes of their own: ``python -m bench.backfill_steps STEP ARGUMENT...`` (JSON)."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BATCHED, SINGLE = "bench-batched", "bench-single"
UNITS, SECONDS, TEMPLATES = 8, 300.0, 8


def _source(name: str) -> str:
    return {BATCHED: "990349", SINGLE: "990024"}[name]


def make(folder: Path, sessions: Mapping[str, int]) -> dict[str, Any]:
    """A folder archive, and a home with a catalog of both datasets."""
    import yaml

    from bench.common import synthetic_row
    from neuralpile_dagster.settings import DEFAULT_BIN_WIDTH_S
    from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

    paths = [folder / f"template{seed}.nwb" for seed in range(min(TEMPLATES, sessions[BATCHED]))]
    for seed, path in enumerate(paths):
        write_units_nwb(path, poisson_trains(UNITS, SECONDS, seed=seed))
    for name, count in sessions.items():
        # of the second dataset every other session is made, so that no two are neighbours
        for number in range(count if name == BATCHED else 2 * count):
            target = folder / "archive" / _source(name) / f"sub-{number % 9}" / f"sub-{number % 9}_ses-{number:04d}.nwb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[number % len(paths)], target)
    tokens = round(UNITS * SECONDS / DEFAULT_BIN_WIDTH_S)
    rows = [synthetic_row(name, _source(name), count, count * tokens) for name, count in sessions.items()]
    (folder / "home").mkdir()
    (folder / "home" / "catalog.yaml").write_text(yaml.safe_dump({"datasets": rows}))
    return {"bytes_per_file": paths[0].stat().st_size}


def direct(folder: Path, name: str) -> dict[str, Any]:
    """All sessions of a dataset by direct calls, in this process, after one to warm up."""
    from neuralpile_dagster.archives import open_archive
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.recordings.manifest import Session, choose_sessions
    from neuralpile_dagster.recordings.model import read_session
    from neuralpile_dagster.session.build import build_spike_counts, store_recording, trains_inputs
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
    from neuralpile_dagster.orchestration.assets import job_of_assets
    from neuralpile_dagster.orchestration.launch import Launcher
    from neuralpile_dagster.orchestration.names import manifest_key, session_partitions
    from neuralpile_dagster.orchestration.resources import open_instance, prepare_home
    from neuralpile_dagster.settings import Settings

    settings = Settings.from_environment()
    prepare_home(settings)
    path = settings.home / "dagster.yaml"
    config = yaml.safe_load(path.read_text())
    config["concurrency"]["runs"]["max_concurrent_runs"] = 1
    path.write_text(yaml.safe_dump(config))
    catalog, keys = load_catalog(settings), {}
    with open_instance(settings) as instance:
        rows = list(catalog.values())
        launcher = Launcher(settings, instance, job_of_assets(settings, rows, [], rows))
        if reason := launcher.run([manifest_key(catalog[name]) for name in names]):
            raise RuntimeError(f"the manifests were not made: {reason}")
        for name in names:
            partitions = session_partitions(catalog[name]).name
            assert partitions is not None
            known = instance.get_dynamic_partitions(partitions)
            keys[name] = list(known) if name == BATCHED else list(known)[::2]
    return keys


STEPS: dict[str, Callable[..., dict[str, Any]]] = {function.__name__: function for function in (make, direct, discover)}

if __name__ == "__main__":
    step, folder, *arguments = sys.argv[1:]
    print(json.dumps(STEPS[step](Path(folder), *map(json.loads, arguments))))
