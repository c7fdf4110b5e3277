"""Which room may import which, read from the code; and files that are crumbs or a folder in disguise.

A room is a folder or a module directly below the package. Imports inside functions count as well: a lazy import that
runs upward is still a loop.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "neuralpile_dagster"

GROUND = frozenset({"errors", "files", "markdown", "process", "progress", "records", "settings"})
"""What any room may import; among themselves: `WITHIN_GROUND`."""
WITHIN_GROUND = {"files": {"errors", "progress"}, "records": {"errors"}, "settings": {"errors"}}
MAY_IMPORT: dict[str, set[str]] = {
    "net": set(),
    "hdf5": {"net"},
    "catalog": set(),
    "archives": {"catalog", "hdf5", "net"},
    "store": {"net"},
    "recordings": {"archives", "catalog", "hdf5"},
    "binning": {"recordings"},
    "tables": {"recordings"},
    "session": {"binning", "catalog", "hdf5", "recordings", "store", "tables"},
    "merge": {"store", "tables"},
    "hub": {"net", "store"},
    "publish": {"archives", "binning", "catalog", "hub", "merge", "motifs", "plots", "recordings", "store", "tables"},
    "plots": set(),
    "motifs": {"store", "tables"},
    "reading": {"hub", "motifs", "net", "recordings", "store", "tables"},
    "ledger": {
        "session",
        "catalog",
        "hdf5",
        "hub",
        "merge",
        "motifs",
        "plots",
        "publish",
        "recordings",
        "store",
        "tables",
    },
    "checks": {"binning", "catalog", "hub", "ledger", "merge", "motifs", "publish", "recordings", "store", "tables"},
    "doctor": {"archives", "catalog", "hdf5", "hub", "ledger", "net", "recordings", "store"},
}
DAGSTER = frozenset({"orchestration", "definitions", "cli"})
"""The rooms that may import dagster; they may import every other room, and none may import them."""
ONLY_UPWARD = {"orchestration": {"definitions", "cli"}, "definitions": {"cli"}, "cli": set()}
"""What those three may not import."""

LARGEST = 400
"""A file with more lines holds more than one idea."""
SMALLEST = 60
"""A file with fewer lines and one importer is a crumb: it belongs into the file that imports it."""
CRUMBS = {
    "definitions.py": "Dagster's entry point, which makes definitions as it is imported",
    "orchestration/servers.py": "the module that `neuralpile ui` starts: what it imports, the UI waits for",
    "orchestration/worker_app.py": "the module that Celery's command line names",
    "orchestration/compute_logs.py": "imported by name from dagster.yaml",
    "orchestration/event_log_postgres.py": "imported by name from dagster.yaml; needs dagster-postgres, an extra",
}
PREFIXES = {
    ("orchestration", "event"): "their import paths stand in users' dagster.yaml",
}


@cache
def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> tuple[tuple[str, int], ...]:
    """Every module that a file imports, and the line."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def modules() -> dict[str, Path]:
    """Importable names of all files."""
    names = {}
    for path in sources():
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def rooms() -> frozenset[str]:
    return frozenset({room_of(path) for path in sources()} - {"__init__", "__main__"})


def allowed(room: str) -> Set[str]:
    if room in GROUND:
        return WITHIN_GROUND.get(room, set())
    if room in DAGSTER:
        return rooms() - ONLY_UPWARD[room]
    return MAY_IMPORT[room] | GROUND


def test_every_room_is_in_the_table() -> None:
    assert rooms() == GROUND | set(MAY_IMPORT) | DAGSTER


def test_the_table_itself_has_no_loop() -> None:
    open_rooms, done = dict(MAY_IMPORT), set(GROUND)
    while open_rooms:
        free = [room for room, needs in open_rooms.items() if needs <= done]
        assert free, f"a loop among {sorted(open_rooms)}"
        done |= set(free)
        open_rooms = {room: needs for room, needs in open_rooms.items() if room not in free}


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = []
    for path in sources():
        if room_of(path) != room:
            continue
        for name, line in imported(path):
            parts = name.split(".")
            if parts[0] != PACKAGE.name or len(parts) < 2 or parts[1] not in rooms():
                continue
            if parts[1] != room and parts[1] not in allowed(room):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert wrong == []


def test_only_the_dagster_layer_imports_dagster() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sources()
        if room_of(path) not in DAGSTER
        for name, line in imported(path)
        if name.split(".")[0].startswith("dagster")
    ]
    assert wrong == []


def test_benches_import_of_the_tests_only_servers_which_know_no_test() -> None:
    tests, servers = "neuralpile_dagster_tests", "neuralpile_dagster_tests.servers."
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {name}"
        for folder in (PACKAGE.parent / "bench", PACKAGE.parent / tests / "servers")
        for path in sorted(folder.rglob("*.py"))
        for name, line in imported(path)
        if name.startswith(tests) and not name.startswith(servers)
    ]
    assert wrong == []


def test_three_files_of_a_folder_that_share_a_prefix_are_a_folder() -> None:
    groups = defaultdict(list)
    for path in sources():
        groups[path.parent.relative_to(PACKAGE).as_posix(), path.stem.split("_")[0]].append(path.name)
    triples = {key: names for key, names in groups.items() if len(names) >= 3 and key[1]}
    assert {key: names for key, names in triples.items() if key not in PREFIXES} == {}


def test_a_small_file_has_more_than_one_importer() -> None:
    known = modules()
    importers: dict[Path, set[Path]] = defaultdict(set)
    for path in sources():
        for name, _ in imported(path):
            if name in known and known[name] != path:
                importers[known[name]].add(path)
    crumbs = {
        path.relative_to(PACKAGE).as_posix()
        for path in sources()
        if path.name not in ("__init__.py", "__main__.py")
        and path.read_text().count("\n") < SMALLEST
        and len(importers[path]) < 2
    }
    assert crumbs - set(CRUMBS) == set()


def test_a_file_has_at_most_400_lines() -> None:
    lines = {path.relative_to(PACKAGE).as_posix(): path.read_text().count("\n") for path in sources()}
    assert {name: number for name, number in lines.items() if number > LARGEST} == {}


def test_an_exception_that_is_no_longer_one_is_removed() -> None:
    assert [name for name in CRUMBS if not (PACKAGE / name).is_file()] == []
    assert [name for name in CRUMBS if (PACKAGE / name).read_text().count("\n") >= SMALLEST] == []
