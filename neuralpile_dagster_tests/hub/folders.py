"""What is in a folder, for comparing folders."""

from __future__ import annotations

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def silent(_: str) -> None:
    """A `neuralpile_dagster.hub.model.Progress` that says nothing."""
