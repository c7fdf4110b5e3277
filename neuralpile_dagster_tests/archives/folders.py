"""What the tests of the folder archive share."""

from __future__ import annotations

from pathlib import Path

from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.archives.model import Listing
from neuralpile_dagster.catalog.model import Source

SOURCE = Source(id="000017")


def touch(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def listing(root: Path, source: Source = SOURCE) -> Listing:
    return FolderArchive(root).list_files(source)
