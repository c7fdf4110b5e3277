"""Small folders to publish, and what is in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

LARGE = 1 << 20  # from this size on, the local hub links files
FIRST = {"README.md": b"# one", "data/train-00000-aaaaaaaa.parquet": b"a" * LARGE, "units/units.parquet": b"u"}
SECOND = {"README.md": b"# two", "data/train-00000-bbbbbbbb.parquet": b"b" * LARGE, "units/units.parquet": b"u"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def silent(_: str) -> None:
    """A `neuralpile_dagster.hub.model.Progress` that says nothing."""


def make_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Make the folder hold exactly these files."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
