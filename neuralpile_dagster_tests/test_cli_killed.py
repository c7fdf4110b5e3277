"""`neuralpile build` killed or interrupted at any step: run again, it ends with the bytes of an undisturbed build."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from neuralpile_dagster.orchestration.describe import ARCHIVE_POOL, HUB_POOL
from neuralpile_dagster_tests.fixtures.commands import NEURALPILE, start
from neuralpile_dagster_tests.fixtures.house import Ran, instance_of, neuralpile, quick_folder
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

pytestmark = pytest.mark.slow_first
CATALOG = """\
datasets:
  - name: many-mice
    title: Three synthetic mice, made for tests
    source: {archive: dandi, id: "990400"}
"""
BUILD = ("build", "many-mice", "--merge")
STAGES = (
    "store/many_mice/spike_counts/[!.]*.json",
    "hub/local/.versions/many-mice/lock",
    "store/neural_pile/plans/*.json",
    "store/neural_pile/shards/*/*.json",
)
"""The first file of each stage of a build, in the store and the hub; what a run says is shown late, by `tail`."""
LOG = "said.log"
WAITING = "many-mice is being published"


@dataclass(frozen=True)
class Place:
    """A home of its own and the common archive."""

    home: Path
    archive: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"NEURALPILE_HOME": str(self.home), "NEURALPILE_ARCHIVE": str(self.archive)}

    def build(self) -> Ran:
        return neuralpile(*BUILD, **self.environment)

    def stop(self, when: Callable[[Path], bool], how: signal.Signals) -> tuple[int, str]:
        """Start a build, stop it when this is true of its home; exit code and what it has said."""
        environment = {**os.environ, **self.environment}
        log = self.home / LOG
        with log.open("wb") as said, Path(os.devnull).open("wb") as nothing:
            process = start([NEURALPILE, *BUILD], environment, self.home, nothing, said)
        while process.poll() is None and not when(self.home):
            time.sleep(0.001)
        process.send_signal(how)
        return process.wait(), log.read_text()

    def digests(self) -> dict[str, str]:
        """sha256 of every file that readers of the hub see."""
        return {
            f"{repository.name}/{path.relative_to(repository.resolve())}": sha256(path)
            for repository in sorted((self.home / "hub" / "local").iterdir())
            if repository.is_symlink()
            for path in sorted(repository.resolve().rglob("*"))
            if path.is_file()
        }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick_folder() as place:
        for number in range(3):
            path = place / "archive" / "990400" / f"sub-{number}" / f"sub-{number}_ses-1.nwb"
            write_units_nwb(path, poisson_trains(6, 10.0, seed=number))
        yield place


def place_in(folder: Path, name: str) -> Place:
    (folder / name).mkdir()
    (folder / name / "catalog.yaml").write_text(CATALOG)
    return Place(folder / name, folder / "archive")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, str]:
    place = place_in(folder, "undisturbed")
    assert place.build().code == 0
    return place.digests()


def test_a_build_that_was_killed_at_every_stage_ends_with_the_same_bytes(
    folder: Path, undisturbed: dict[str, str]
) -> None:
    place = place_in(folder, "killed")
    for stage in STAGES:
        code, _ = place.stop(lambda home, stage=stage: any(home.glob(stage)), signal.SIGKILL)
        assert code == -signal.SIGKILL, stage
        require_whole(place, stage)
    last = place.build()
    assert last.code == 0, last.err
    assert "was abandoned (its process has exited)" in last.err
    assert place.digests() == undisturbed
    assert not any("sessions of this batch" in line for line in last.err.splitlines())
    with instance_of(place.home) as instance:
        assert all(run.is_finished for run in instance.get_runs())
        for pool in (ARCHIVE_POOL, HUB_POOL):
            assert instance.event_log_storage.get_concurrency_info(pool).claimed_slots == []


def require_whole(place: Place, stage: str) -> None:
    """What has a final name in the store is complete, and a repository of the hub has its card."""
    records = list((place.home / "store" / "many_mice" / "spike_counts").glob("[!.]*.json"))
    assert records, stage
    for path in records:
        assert path.read_text().endswith("}\n")
        assert path.with_suffix(".parquet").read_bytes().endswith(b"PAR1")
    for repository in (place.home / "hub").glob("local/[!.]*"):
        assert (repository / "README.md").is_file()


def test_ctrl_c_in_a_terminal_reaches_the_helpers_of_a_run_too_and_none_prints_a_traceback(folder: Path) -> None:
    place = place_in(folder, "terminal")
    lock, log = place.home / STAGES[1], place.home / LOG
    lock.parent.mkdir(parents=True)
    with FileLock(lock), log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, NEURALPILE, *BUILD],
            env={**os.environ, **place.environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        while process.poll() is None and WAITING not in log.read_text():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert log.read_text().splitlines()[-1].startswith("Interrupted.")
    assert "Traceback" not in log.read_text()


def test_an_interrupted_build_says_that_it_can_go_on_and_leaves_no_run_open(folder: Path) -> None:
    place = place_in(folder, "interrupted")
    lock = place.home / STAGES[1]
    lock.parent.mkdir(parents=True)
    with FileLock(lock):  # interrupted while Dagster writes an event, SQLAlchemy would log what it was at
        code, said = place.stop(lambda home: WAITING in (home / LOG).read_text(), signal.SIGINT)
    assert code == 130
    assert said.splitlines()[-1] == ("Interrupted. Completed work is kept; run the same command again to resume.")
    assert "Traceback" not in said
    assert not (place.home / "hub/local/many-mice").exists()
    with instance_of(place.home) as instance:
        assert all(run.is_finished for run in instance.get_runs())
    failures = place.home / "store" / "many_mice" / "failures"
    assert not failures.exists() or list(failures.iterdir()) == []
