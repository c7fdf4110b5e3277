"""A whole instance in a temporary folder: home, folder archive, a dataset's rows, and runs on its Dagster instance."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner

from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.cli import main
from neuralpile_dagster.definitions import build_definitions
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.names import session_partitions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.nwb import poisson_trains, write_units_nwb

MICE = Dataset(
    name="tiny-mice",
    title="Tiny synthetic mice, made for tests",
    source=Source(id="990100", version="draft"),
    species="mouse",
    doi="10.48324/tiny.mice",
    tokens_published=12_345,
    sessions_published=3,
    subjects_published=3,
)
SESSIONS = ("sub-A_ses-1", "sub-A_ses-2", "sub-B_ses-3")
FILES = ("sub-A/sub-A_ses-1.nwb", "sub-A/sub-A_ses-2.nwb", "sub-B/sub-B_ses-3.nwb")


def trains_of(number: int) -> list[np.ndarray]:
    """Spike times of session ``number``: a few units, the last one silent."""
    return poisson_trains(6 + number, 10.0 + number, seed=number)


def write_mice(archive: Path, dataset: Dataset = MICE) -> list[Path]:
    """Write the three sessions of `MICE` into a folder archive."""
    root = archive / dataset.source.folder
    return [write_units_nwb(root / name, trains_of(number)) for number, name in enumerate(FILES)]


def cut(path: Path) -> bytes:
    """Truncate a file to half of it, as a broken download leaves it; give what it held."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


@dataclass
class House:
    """An instance with these datasets (or definitions); ``run`` materializes on it in this process."""

    settings: Settings
    instance: dg.DagsterInstance
    datasets: Sequence[Dataset] = (MICE,)
    definitions: dg.Definitions | None = None

    @property
    def store(self) -> LocalStore:
        """The store of intermediate results."""
        return LocalStore(Path(self.settings.store))

    @property
    def archive(self) -> Path:
        """The folder archive."""
        return Path(self.settings.archive)

    @cached_property
    def job(self) -> dg.JobDefinition:
        """All assets and checks."""
        definitions = self.definitions or build_definitions(self.settings, self.datasets)
        return definitions.resolve_implicit_global_asset_job_def()

    def run(
        self, *keys: dg.AssetKey, partitions: Sequence[str] = (), ops: Mapping[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """One run of these assets for a range of partitions, as a single-run backfill would start it."""
        tags = {}
        if partitions:
            tags = {
                "dagster/asset_partition_range_start": partitions[0],
                "dagster/asset_partition_range_end": partitions[-1],
            }
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=list(keys),
            tags=tags,
            run_config={"loggers": {"progress": {}}, **({"ops": dict(ops)} if ops else {})},
            raise_on_error=False,
        )

    def discover(self, dataset: Dataset = MICE) -> list[str]:
        """Materialize the manifest; give the partition keys."""
        assert self.run(names.manifest_key(dataset)).success
        name = session_partitions(dataset).name
        assert name is not None
        return list(self.instance.get_dynamic_partitions(name))

    def batch(self, keys: Sequence[str], dataset: Dataset = MICE) -> dg.ExecuteInProcessResult:
        """Spike trains and counts of a range of sessions, in one run."""
        return self.run(names.spike_trains_key(dataset), names.spike_counts_key(dataset), partitions=keys)

    def run_checks(self, key: dg.AssetKey) -> dg.ExecuteInProcessResult:
        """The checks of an asset alone, without partitions, as "Execute all" on its page starts them."""
        chosen = {check for check in self.job.asset_layer.asset_graph.asset_check_keys if check.asset_key == key}
        job = self.job.get_subset(asset_selection=set(), asset_check_selection=chosen)
        return job.execute_in_process(
            instance=self.instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False
        )

    def publish(self, dataset: Dataset = MICE, **config: Any) -> dg.ExecuteInProcessResult:
        """Materialize ``hub_dataset`` with this run configuration."""
        ops = {f"{dataset.key}__hub_dataset": {"config": config}} if config else None
        return self.run(names.hub_dataset_key(dataset), ops=ops)

    def build(self, dataset: Dataset = MICE) -> None:
        """All of a dataset, which must succeed."""
        assert self.batch(self.discover(dataset), dataset).success
        assert self.publish(dataset).success

    def made(self, key: dg.AssetKey) -> set[str]:
        """The partitions of an asset that are green."""
        return set(self.instance.get_materialized_partitions(key))

    def checks(self, key: dg.AssetKey, name: str) -> list[dg.AssetCheckEvaluation]:
        """What a check said, newest first."""
        history = self.instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, name), 100)
        said = (record.evaluation for record in history)
        return [evaluation for evaluation in said if isinstance(evaluation, dg.AssetCheckEvaluation)]

    def hub_folder(self, name: str) -> Path:
        """A published repository of the local hub."""
        return self.settings.home / "hub" / self.settings.namespace / name


@contextmanager
def house(home: Path, archive: Path | str, datasets: Iterable[Dataset] = (MICE,), **settings: Any) -> Iterator[House]:
    """Open an instance for ``home``; ``settings`` are fields of `Settings`.

    Its runs and events are in SQLite in memory: Dagster's files would cost ten times the time of what is tested.
    """
    home.mkdir(parents=True, exist_ok=True)
    chosen = Settings(**{"home": home, "store": str(home / "store"), "archive": str(archive), **settings})
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(chosen, instance, tuple(datasets))


@contextmanager
def instance_of(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that commands left in a home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder in memory where the machine has one: Dagster's SQLite files sync some 200 times per run."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="neuralpile-tests-", dir=place) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Ran:
    """What a command left behind: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def neuralpile(*arguments: str | Path, **environment: str | Path) -> Ran:
    """Run the command line in this process, with these variables instead of all that it would read."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("NEURALPILE_") or name == "DAGSTER_HOME":
            del os.environ[name]
    os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Ran(done.exit_code, done.stdout, done.stderr)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The message of the first step that failed."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            assert error is not None
            return (error.cause or error).message
    raise AssertionError("no step failed")
