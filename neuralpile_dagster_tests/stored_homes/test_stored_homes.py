"""Homes that earlier versions left open with this one, and nothing in them is made again."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.tables.schemas import SESSIONS_SCHEMA, UNITS_SCHEMA
from neuralpile_dagster_tests.fixtures.house import Ran, neuralpile

HOMES = sorted(Path(__file__).parent.glob("*.tar.xz"))


@pytest.fixture(params=HOMES, ids=[home.name.split(".")[0] for home in HOMES])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


def command(root: Path, *arguments: str) -> Ran:
    """Run a command on the home below ``root``, in this process."""
    return neuralpile(*arguments, NEURALPILE_HOME=root / "home", NEURALPILE_ARCHIVE=root / "archive")


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """sha256 and modification time (ns) of every file."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def made(root: Path) -> dict[str, tuple[str, int]]:
    """What the store and the hub hold, but for manifests, which say when the archive was listed last, and cards.

    A build that a person asks for writes the cards (with their pictures and citations) as today; nothing else is due
    for that.
    """
    found = contents(root / "home" / "store") | contents(root / "home" / "hub")
    return {
        name: what
        for name, what in found.items()
        if not name.endswith(("manifest.json", "README.md", "raster.png", "CITATION.bib")) and "/.versions/" not in name
    }


def publications(root: Path) -> dict[str, str]:
    """Records of what is published, without what this version adds to them."""
    store = root / "home" / "store"
    found = {}
    for path in sorted(store.glob("*/published.json")):
        content = json.loads(path.read_text())
        for record in (content, *content.get("sessions", ())):
            for name in ("token_counts", "subject", "fingerprint"):
                record.pop(name, None)
        content = {
            name: value
            for name, value in content.items()
            if name not in ("citations", "splits", "content_sha256", "form")
        }
        found[str(path.relative_to(store))] = json.dumps(content, sort_keys=True)
    return found


def published(root: Path) -> dict[str, str]:
    """sha256 of every published file but cards, their pictures and previews (whose few rows are encoded each time).

    Through the links to the current versions.
    """
    found = {}
    for link in sorted((root / "home" / "hub" / "local").glob("[!.]*")):
        for name, (digest, _) in contents(link.resolve()).items():
            if name in EXTENDED:
                found[f"{link.name}/{name}"] = rows_of_before(link.resolve() / name)
            elif name not in ("README.md", "raster.png", "preview/preview.parquet"):
                found[f"{link.name}/{name}"] = digest
    return found


EXTENDED = {"units/units.parquet": len(UNITS_SCHEMA), "sessions/sessions.parquet": len(SESSIONS_SCHEMA)}
"""Tables that later versions add columns to, at their end, and the number of their first columns."""


def rows_of_before(path: Path) -> str:
    """The rows of a table in the columns that it always had."""
    table = pq.read_table(path)
    kept = table.schema.names[: EXTENDED["/".join(path.parts[-2:])]]
    added = ["source_dataset"] if "source_dataset" in table.schema.names else []
    return repr(table.select([*kept, *added]).to_pylist())


def test_an_old_home_is_up_to_date_and_building_it_makes_nothing_again(root: Path) -> None:
    before, publications_before, published_before = made(root), publications(root), published(root)
    standing = command(root, "status", "old-mice", "old-rats")
    assert standing.code == 0, standing.err
    built = command(root, "build", "old-mice", "old-rats", "--merge")
    assert built.code == 0, built.err
    after = made(root)
    said = {name for name in before if name.endswith("/published.json")}
    assert {name: digest for name, (digest, _) in after.items() if name not in said} == {
        name: digest for name, (digest, _) in before.items() if name not in said
    }
    assert publications(root) == publications_before, "but for what no earlier version counted or cited"
    added = ("token_counts", "segments")
    assert {path for path in published(root) if path not in published_before} == {
        "neural-pile/CITATION.bib",
        "neural-pile/splits/splits.parquet",
        *(f"{name}/{new}/{new}.parquet" for name in ("old-mice", "old-rats", "neural-pile") for new in added),
    }
    assert {path: published(root)[path] for path in published_before} == published_before
    expensive = {name for name in before if "/spike_" in name or "/shards" in name or "/data/" in name}
    assert len(expensive) > 20
    assert {name: after[name] for name in expensive} == {name: before[name] for name in expensive}
    assert " units, " not in built.err, "no session was read or binned again"
    assert command(root, "status", "old-mice", "old-rats").out == standing.out


def test_a_failure_that_an_old_home_remembers_is_shown_and_tried_again(root: Path) -> None:
    standing = command(root, "status", "old-broken")
    assert "sub-C_ses-2" in standing.out
    built = command(root, "build", "old-broken")
    assert built.code == 1
    assert "sub-C_ses-1: " not in built.err, "the session that was done is left alone"


def test_the_sensor_finds_nothing_to_do_in_an_old_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.ledger.due import dataset_due, pile_due
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import open_store

    settings = Settings.from_environment(
        {"NEURALPILE_HOME": str(root / "home"), "NEURALPILE_ARCHIVE": str(root / "archive")}
    )
    rows, store = list(load_catalog(settings).values()), open_store(settings.store)
    due = {row.name: dataset_due(store, row, settings, 1.0) for row in rows if row.name.startswith("old-")}
    assert {name: what for name, what in due.items() if what.sessions or what.publish or what.analyses} == {}
    assert pile_due(store, NEURAL_PILE, rows, settings) is None
