from __future__ import annotations

import threading
from pathlib import Path

import pytest

from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster_tests.fixtures.hub_folders import FIRST, SECOND, contents, make_folder, silent
from neuralpile_dagster_tests.fixtures.killing import killed_at


@pytest.fixture
def hub(tmp_path: Path) -> LocalHub:
    return LocalHub(tmp_path / "home" / "hub", "local")


def test_killed_at_any_step_the_repository_is_the_old_version_or_the_new_one(hub: LocalHub, tmp_path: Path):
    staging = {0: make_folder(tmp_path / "first", FIRST), 1: make_folder(tmp_path / "second", SECOND)}
    seen = set()
    step = 1
    hub.publish("mice", staging[0], silent)
    while killed_at(hub.root, step, lambda: hub.publish("mice", staging[1], silent)):
        found = contents(hub.path("mice"))
        assert found in (FIRST, SECOND), f"killed at step {step}"
        assert {f.path for f in hub.files("mice")} == set(found)
        seen.add(found == SECOND)
        done = hub.publish("mice", staging[1], silent)  # the same call again completes
        assert contents(hub.path("mice")) == SECOND
        assert done.changed == (found != SECOND)
        hub.publish("mice", staging[0], silent)
        leftovers = [p.name for p in hub.path("mice").parent.rglob(".writing-*")]
        assert leftovers == [] and len(list((hub.root / "local/.versions/mice").iterdir())) == 3
        step += 1
    assert seen == {False, True} and step > 15


def test_a_first_publication_killed_at_any_step_leaves_nothing_or_all(tmp_path: Path):
    folder = make_folder(tmp_path / "first", FIRST)
    step = 1
    while True:
        hub = LocalHub(tmp_path / f"hub-{step}", "local")
        killed = killed_at(hub.root, step, lambda hub=hub: hub.publish("mice", folder, silent))
        assert hub.files("mice") == () or contents(hub.path("mice")) == FIRST
        if not killed:
            break
        step += 1
    assert step > 10


def test_two_publishers_at_once_leave_one_whole_version(hub: LocalHub, tmp_path: Path):
    folders = [make_folder(tmp_path / "first", FIRST), make_folder(tmp_path / "second", SECOND)] * 3
    errors: list[BaseException] = []

    def publisher(folder: Path) -> None:
        try:
            for _ in range(5):
                hub.publish("mice", folder, silent)
        except BaseException as error:  # noqa: BLE001  # reported below
            errors.append(error)

    threads = [threading.Thread(target=publisher, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert contents(hub.path("mice")) in (FIRST, SECOND)
    assert len(list((hub.root / "local/.versions/mice").iterdir())) == 3  # lock, version, its listing


def test_reading_while_versions_are_replaced_always_finds_a_whole_one(hub: LocalHub, tmp_path: Path):
    folders = [make_folder(tmp_path / "first", FIRST), make_folder(tmp_path / "second", SECOND)]
    hub.publish("mice", folders[0], silent)
    publisher = threading.Thread(target=lambda: [hub.publish("mice", folders[i % 2], silent) for i in range(12)])
    publisher.start()
    read = 0
    while publisher.is_alive() or not read:
        assert {file.path for file in hub.files("mice")} in (set(FIRST), set(SECOND))
        with hub.open("mice", "README.md") as file:
            assert file.read() in (b"# one", b"# two")
        read += 1
    publisher.join()
