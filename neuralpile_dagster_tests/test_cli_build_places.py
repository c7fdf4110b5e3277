"""`neuralpile build` where something around it is wrong: places, disks, records, publications."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster_tests.fixtures.building import CATALOG, Place, line_of, place_in, write
from neuralpile_dagster_tests.fixtures.house import Ran, neuralpile, quick_folder


@pytest.fixture
def small() -> Iterator[Place]:
    """A home with one good recording."""
    with quick_folder() as folder:
        made = place_in(folder)
        write(made, "only")
        yield made


def test_a_place_that_cannot_be_written_is_named_and_the_same_command_completes_later(small: Place) -> None:
    # the tests may run as root, whom permissions do not stop; a file where a folder should be stops everybody
    for blocked in ("store", "store/mixed_mice/spike_counts", "hub"):  # each lets the build come farther
        obstacle = small.home / blocked
        obstacle.parent.mkdir(parents=True, exist_ok=True)
        obstacle.touch()
        ran = small("build", "mixed-mice")
        assert ran.code == 1, blocked
        assert "Traceback" not in ran.out + ran.err
        (line,) = [line for line in ran.out.splitlines() if "cannot be written" in line]
        assert str(obstacle) in line
        assert "expected: a folder that this user may write to; what to do: " in line
        obstacle.unlink()
        assert list(small.home.rglob(".writing-*")) == []
    done = small("build", "mixed-mice")
    assert (done.code, done.out.splitlines()[0].split(",")[0]) == (0, "local/mixed-mice: 1 session")


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Place, Ran]]:
    """A home of two recordings that were published, not as many tokens as its row expects; nothing changes that."""
    with quick_folder() as folder:
        row = "damaged\n    source: {archive: d"
        made = place_in(folder, CATALOG.replace(row, row.replace("source", "tokens_published: 7\n    source")))
        write(made, "only")
        write(made, "second", 1)
        yield made, made("build", "mixed-mice")


def test_a_warning_of_a_check_is_told_with_expected_and_found(built: tuple[Place, Ran]) -> None:
    assert built[1].code == 0
    (line,) = [line for line in built[1].out.splitlines() if "tokens_published" in line]
    assert line.startswith("warning: mixed_mice/hub_dataset tokens_published: expected 7, found ")


def published_sessions(place: Place) -> bytes:
    return (place.home / "hub" / "local" / "mixed-mice" / "sessions" / "sessions.parquet").read_bytes()


def test_a_part_does_not_replace_a_larger_publication_and_says_both_numbers(built: tuple[Place, Ran]) -> None:
    place, before = built[0], published_sessions(built[0])
    ran = place("build", "mixed-mice", "--limit", "1", NEURALPILE_STORE=place.home / "another-store")
    assert ran.code == 1
    line = line_of(ran, "mixed_mice/hub_dataset")
    assert "local/mixed-mice holds 2 sessions and only 1 are done here" in line
    assert "build all of it" in line
    assert published_sessions(place) == before


def test_missing_sessions_that_are_allowed_do_not_replace_a_larger_publication(built: tuple[Place, Ran]) -> None:
    place, before = built[0], published_sessions(built[0])
    recording = place.recording("second").read_bytes()
    place.recording("second").write_bytes(b"")
    try:
        ran = place("build", "mixed-mice", "--min-session-share", "0.5")
    finally:
        place.recording("second").write_bytes(recording)
    assert ran.code == 1
    assert ran.out.splitlines()[0] == "1 session failed:"
    assert "holds 2 sessions and only 1 are done here" in line_of(ran, "mixed_mice/hub_dataset")
    assert published_sessions(place) == before


def test_a_reason_that_several_sessions_share_is_told_once_even_where_failures_cannot_be_recorded(small: Place) -> None:
    write(small, "second", 1)
    obstacle, failures = (small.home / "store" / "mixed_mice" / name for name in ("spike_trains", "failures"))
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    failures.touch()  # so that the batch's reason is all there is
    ran = small("build", "mixed-mice")
    assert ran.code == 1
    assert ran.out.splitlines()[0] == "2 sessions failed:"
    line = line_of(ran, "mixed-mice only and 1 more")
    assert line.count("(which could not be stored:") == 2
    assert str(failures) in line
    assert ran.out.count("2 of 2 sessions of mixed-mice failed.") == 1


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
