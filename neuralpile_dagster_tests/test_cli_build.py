"""`neuralpile build` with recordings and places that are broken: what users read, what is made, what repairs need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from neuralpile_dagster_tests.fixtures.building import Place, line_of, place_in, write
from neuralpile_dagster_tests.fixtures.house import Ran, cut, quick_folder
from neuralpile_dagster_tests.servers.nwb_files import remove, rewrite, write_nwb_without_units, write_units_nwb

BAD = {
    "empty": "cannot be opened as HDF5; found: 0 bytes",
    "falling-index": "the index is not monotone",
    "no-spikes": "has nothing to bin; found: no spikes",
    "no-times": "has units without spike times",
    "no-units": "has no units table",
    "truncated": "cannot be opened as HDF5",
}
GOOD = ("a-good", "z-good")


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
        made = place_in(folder)
        write_all(made)
        yield made


@pytest.fixture(scope="module")
def first(place: Place) -> Ran:
    """The first build of everything, with the damage."""
    return place("build", "mixed-mice", "mixed-probes", "--merge")


def test_the_exit_code_says_that_something_failed(first: Ran) -> None:
    assert first.code == 1
    assert "Traceback" not in first.out + first.err


@pytest.mark.parametrize("session", BAD)
def test_every_broken_recording_is_named_with_what_was_found_and_what_to_do(first: Ran, session: str) -> None:
    line = line_of(first, f"mixed-mice {session}")
    assert f"{session}.nwb" in line
    assert BAD[session] in line
    assert "what to do: " in line
    assert f"error: mixed-mice {session} failed" in first.err.splitlines()
    assert (first.out + first.err).count(line.split(": ", 1)[1]) == 1, "each reason is told once"


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
    assert "--allow-missing" in line
    assert "--min-session-share" in line


def test_sessions_and_other_failures_are_counted_apart(first: Ran) -> None:
    counts = [line for line in first.out.splitlines() if not line.startswith(" ")]
    assert counts == ["7 sessions failed:", "3 other failures:"]
    assert len(first.out.splitlines()) == 2 + 7 + 3


def test_a_glob_that_matches_nothing_is_an_error_that_names_it_and_real_ids(place: Place, first: Ran) -> None:
    ran = place("build", "mixed-mice", "--sessions", "zzz*")
    assert ran.code == 1
    (count, line) = ran.out.splitlines()
    assert count == "1 failure:"
    assert "no session of mixed-mice matches 'zzz*'; found: 8 sessions, e.g. a-good, empty, falling-index" in line
    assert "what to do: neuralpile sessions mixed-mice lists all of them" in line


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


def test_sessions_that_failed_may_be_missing_and_the_card_names_them(place: Place, first: Ran) -> None:
    ran = place("build", "mixed-mice", "--allow-missing", NEURALPILE_NAMESPACE="allowed")
    assert ran.code == 0
    published, warning, count, *failures = ran.out.splitlines()
    assert published.startswith("allowed/mixed-mice: 2 sessions,")
    assert "6 sessions missing" in published
    assert "found 6 without: empty, falling-index, no-spikes, no-times, no-units and 1 more" in warning
    assert count == "6 sessions failed:"
    assert sorted(line.split(":")[0].strip() for line in failures) == [f"mixed-mice {session}" for session in BAD]
    card = (place.home / "hub" / "allowed" / "mixed-mice" / "README.md").read_text()
    assert all(session in card for session in BAD)


def test_below_the_least_share_nothing_is_published_and_no_reason_is_repeated(place: Place, first: Ran) -> None:
    ran = place("build", "mixed-mice", "--min-session-share", "0.26", NEURALPILE_NAMESPACE="strict")
    assert ran.code == 1
    line = line_of(ran, "mixed_mice/hub_dataset")
    assert "2 of 8 sessions are done; expected: at least 3 (a share of 0.26)" in line
    assert "lower --min-session-share" in line
    assert all((ran.out + ran.err).count(reason) == first.out.count(reason) for reason in BAD.values())
    assert not (place.home / "hub" / "strict").exists()


@pytest.mark.parametrize(
    "arguments", [["--min-session-share", "nan"], ["--min-session-share", "2"], ["--allow-missing"]]
)
def test_shares_that_make_no_sense_are_usage_errors(place: Place, first: Ran, arguments: list[str]) -> None:
    more = ["--min-session-share", "0.5"] if arguments == ["--allow-missing"] else []
    ran = place("build", "mixed-mice", *arguments, *more)
    assert ran.code == 2
    assert "--min-session-share" in ran.err


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
