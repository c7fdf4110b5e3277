"""`neuralpile build` with recordings and places that are broken: what users read, what is made, what repairs need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster_tests.nwb import poisson_trains, remove, rewrite, write_nwb_without_units, write_units_nwb
from neuralpile_dagster_tests.orchestration.house import Ran, cut, neuralpile, quick_folder

CATALOG = """\
datasets:
  - name: mixed-mice
    title: Recordings of which some are damaged
    source: {archive: dandi, id: "990300"}
  - name: mixed-probes
    title: MATLAB files of which some are damaged
    source: {archive: figshare, id: "777"}
    reader: eight_probe_mat
    sessions: {include: ['\\.mat$']}
"""
BAD = {
    "empty": "cannot be opened as HDF5; found: 0 bytes",
    "falling-index": "the index is not monotone",
    "no-spikes": "has nothing to bin; found: no spikes",
    "no-times": "has units without spike times",
    "no-units": "has no units table",
    "truncated": "cannot be opened as HDF5",
}
GOOD = ("a-good", "z-good")


@dataclass(frozen=True)
class Place:
    """A home, and an archive with both datasets."""

    home: Path
    archive: Path

    def __call__(self, *arguments: str, **environment: str | Path) -> Ran:
        places = {"NEURALPILE_HOME": self.home, "NEURALPILE_ARCHIVE": self.archive, **environment}
        return neuralpile(*arguments, **places)

    def recording(self, session: str) -> Path:
        return self.archive / "990300" / "sub-1" / f"{session}.nwb"


def write(place: Place, session: str, seed: int = 0) -> Path:
    return write_units_nwb(place.recording(session), poisson_trains(6, 8.0, seed=seed), index_dtype="int64")


def write_all(place: Place) -> None:
    """Two good recordings of mice, one of each kind of damage, two MATLAB files."""
    from scipy.io import savemat

    for number, session in enumerate((*GOOD, "empty", "falling-index", "no-times", "truncated")):
        write(place, session, number)
    place.recording("empty").write_bytes(b"")
    cut(place.recording("truncated"))
    rewrite(place.recording("falling-index"), "units/spike_times_index", np.array([9, 4, 20, 21, 22, 23]))
    remove(place.recording("no-times"), "units/spike_times")
    write_nwb_without_units(place.recording("no-units"))
    write_units_nwb(place.recording("no-spikes"), [np.array([])] * 2)
    folder = place.archive / "figshare-777"
    folder.mkdir()
    savemat(folder / "no_spks.mat", {"behaviour": np.arange(3)})
    spks = np.empty((1, 2), dtype=[("st", object), ("clu", object)])
    for probe in range(2):
        times = np.linspace(5.0, 9.0, 40)[:, None]
        spks[0, probe] = (times, np.arange(40)[:, None] % 5 + 1)
    savemat(folder / "fine.mat", {"spks": spks})


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with quick_folder() as folder:
        made = Place(folder / "home", folder / "archive")
        made.home.mkdir()
        (made.home / "catalog.yaml").write_text(CATALOG)
        write_all(made)
        yield made


@pytest.fixture(scope="module")
def first(place: Place) -> Ran:
    """The first build of everything, with the damage."""
    return place("build", "mixed-mice", "mixed-probes", "--merge")


def line_of(ran: Ran, name: str) -> str:
    (line,) = [line for line in ran.out.splitlines() if line.strip().startswith(f"{name}:")]
    return line


def test_the_exit_code_says_that_something_failed(first: Ran) -> None:
    assert first.code == 1
    assert "Traceback" not in first.out + first.err


@pytest.mark.parametrize("session", BAD)
def test_every_broken_recording_is_named_with_what_was_found_and_what_to_do(first: Ran, session: str) -> None:
    line = line_of(first, f"mixed-mice {session}")
    assert f"{session}.nwb" in line
    assert BAD[session] in line
    assert "what to do: " in line
    assert f"error: mixed-mice {session} failed: " in first.err


def test_a_mat_file_without_spks_is_named_with_the_variables_it_has(first: Ran) -> None:
    line = line_of(first, "mixed-probes no_spks")
    assert "no_spks.mat" in line
    assert "found: variables behaviour" in line


def test_good_sessions_are_not_among_the_failures_and_are_made(place: Place, first: Ran) -> None:
    assert not any(f" {session}: " in first.out for session in (*GOOD, "fine"))
    counts = place.home / "store" / "mixed_mice" / "spike_counts"
    assert sorted(path.name for path in counts.glob("*.json")) == [f"{session}.json" for session in GOOD]


def test_what_is_not_published_says_why_and_how_to_publish_all_the_same(first: Ran) -> None:
    line = line_of(first, "mixed_mice/hub_dataset")
    assert "6 of 8 sessions failed" in line
    assert "run the same command again" in line
    assert "min_session_share" in line


def test_without_a_component_the_pile_says_that_there_is_nothing_to_merge(first: Ran) -> None:
    assert "there is nothing to merge" in line_of(first, "neural_pile/manifest")


def test_nothing_half_written_is_left(place: Place, first: Ran) -> None:
    assert list(place.home.rglob(".writing-*")) == []
    assert not (place.home / "hub").exists()


def test_status_shows_every_failure_with_its_reason_on_one_line(place: Place, first: Ran) -> None:
    lines = place("status", "mixed-mice").out.splitlines()
    assert lines[1].split()[:5] == ["mixed-mice", "8", "2", "6", "0"]
    for session, said in BAD.items():
        (line,) = [line for line in lines if line.startswith(f"failed mixed-mice {session}:")]
        assert said in line


def test_status_of_all_datasets_caps_the_failures_and_says_how_many_more(place: Place, first: Ran) -> None:
    out = place("status").out
    assert out.count("failed mixed-mice ") == 3
    assert "and 3 more: neuralpile status mixed-mice" in out


def test_a_part_can_be_published_by_a_glob_that_leaves_the_broken_ones_out(place: Place, first: Ran) -> None:
    ran = place("build", "mixed-mice", "--sessions", "*-good", NEURALPILE_NAMESPACE="part")
    assert (ran.code, ran.out.splitlines()[0].split(",")[0]) == (0, "part/mixed-mice: 2 sessions")
    assert "sessions of this batch" not in ran.err


def test_after_the_repair_the_same_command_makes_what_is_missing_and_nothing_else(place: Place, first: Ran) -> None:
    counts = place.home / "store" / "mixed_mice" / "spike_counts"
    before = {path: path.stat().st_mtime_ns for path in counts.iterdir()}
    for number, session in enumerate(BAD):
        write(place, session, 10 + number)
    (place.archive / "figshare-777" / "no_spks.mat").unlink()
    again = place("build", "mixed-mice")
    assert again.code == 0, again.out
    assert again.out.startswith("local/mixed-mice: 8 sessions")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(f"mixed-mice {session}: " in again.err for session in BAD)
    assert not any(f"mixed-mice {session}: " in again.err for session in GOOD)
    assert "failed" not in place("status", "mixed-mice").out.splitlines()[1:]


@pytest.fixture
def small() -> Iterator[Place]:
    """A home with one good recording."""
    with quick_folder() as folder:
        made = Place(folder / "home", folder / "archive")
        made.home.mkdir()
        (made.home / "catalog.yaml").write_text(CATALOG)
        write(made, "only")
        yield made


@pytest.mark.parametrize("blocked", ["store", "store/mixed_mice/spike_counts", "hub"])
def test_a_place_that_cannot_be_written_is_named_and_the_same_command_completes_later(
    small: Place, blocked: str
) -> None:
    # the tests may run as root, whom permissions do not stop; a file where a folder should be stops everybody
    obstacle = small.home / blocked
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.touch()
    ran = small("build", "mixed-mice")
    assert ran.code == 1
    assert "Traceback" not in ran.out + ran.err
    (line,) = [line for line in ran.out.splitlines() if "cannot be written" in line]
    assert str(obstacle) in line
    assert "expected: a folder that this user may write to; what to do: " in line
    obstacle.unlink()
    assert list(small.home.rglob(".writing-*")) == []
    done = small("build", "mixed-mice")
    assert (done.code, done.out.splitlines()[0].split(",")[0]) == (0, "local/mixed-mice: 1 sessions")


def test_a_part_does_not_replace_a_larger_publication_and_says_both_numbers(small: Place) -> None:
    write(small, "second", 1)
    assert small("build", "mixed-mice").code == 0
    held = small.home / "hub" / "local" / "mixed-mice" / "sessions" / "sessions.parquet"
    before = held.read_bytes()
    ran = small("build", "mixed-mice", "--limit", "1", NEURALPILE_STORE=small.home / "another-store")
    assert ran.code == 1
    line = line_of(ran, "mixed_mice/hub_dataset")
    assert "local/mixed-mice holds 2 sessions and only 1 are done here" in line
    assert "build all of it" in line
    assert held.read_bytes() == before


def test_failures_that_cannot_be_recorded_are_told_all_the_same(small: Place) -> None:
    small.recording("only").write_bytes(b"")
    obstacle = small.home / "store" / "mixed_mice" / "failures"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    ran = small("build", "mixed-mice")
    assert ran.code == 1
    assert str(obstacle) in line_of(ran, "mixed-mice only")


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    ran = neuralpile("build", "vbn", NEURALPILE_HOME=tmp_path / "home", NEURALPILE_ARCHIVE=tmp_path)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert str(tmp_path / "home") in line
    assert "what to do: " in line


def test_a_disk_that_is_too_small_is_told_with_both_numbers_before_anything_is_written(
    small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(small.home)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500))
    ran = small("build", "mixed-mice")
    assert ran.code == 1
    line = line_of(ran, "mixed-mice only")
    assert "not enough free disk for the spike trains of only" in line
    assert "found: 500 bytes available" in line
    assert "bytes needed" in line


def test_a_warning_of_a_check_is_told_with_expected_and_found(small: Place) -> None:
    catalog = small.home / "catalog.yaml"
    catalog.write_text(
        CATALOG.replace("damaged\n    source: {archive: d", "damaged\n    tokens_published: 7\n    source: {archive: d")
    )
    ran = small("build", "mixed-mice")
    assert ran.code == 0
    (line,) = [line for line in ran.out.splitlines() if "tokens_published" in line]
    assert line.startswith("warning: mixed_mice/hub_dataset tokens_published: expected 7, found ")
