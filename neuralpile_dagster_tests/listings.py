"""Real archive listings in the form that DANDI has them and in ours.

A listing is a file ``<dandiset id>.jsonl`` of the shared data (see its
README), one archive file a line. ``<dandiset id>.paths.jsonl`` holds paths
only; what else a file has is made up here, the same each time.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuralpile_dagster.archives.model import ArchiveFile, Listing

LISTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def listing_paths(shared_data: Path) -> list[Path]:
    """All listings of the shared data, in order of their names."""
    return sorted((shared_data / "listings").glob("*.jsonl"))


def dandiset_id(path: Path) -> str:
    """The dandiset that a listing is of."""
    return path.name.split(".")[0]


def listing_rows(path: Path) -> list[dict[str, Any]]:
    """One dictionary per archive file, with at least the keys of `made_up_row`."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [made_up_row(row["path"]) | row for row in rows]


def made_up_row(path: str, variables: tuple[str, ...] = ("Units",)) -> dict[str, Any]:
    """A row for a path: everything but the path is made up (from it)."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    return {
        "path": path,
        "size": 1_000_000 + int(digest[:4], 16),
        "asset_id": str(uuid.UUID(digest[:32])),
        "blob": str(uuid.UUID(digest[32:])),
        "zarr": None,
        "sha256": digest,
        "etag": f"{digest[:32]}-1",
        "encodingFormat": "application/x-nwb",
        "variableMeasured": list(variables),
        "created": "2025-01-01T00:00:00+00:00",
        "modified": "2025-01-01T00:00:00+00:00",
    }


def archive_file(row: dict[str, Any]) -> ArchiveFile:
    """A row as an archive of ours lists it."""
    return ArchiveFile(
        path=row["path"],
        size=row["size"],
        file_id=row["asset_id"],
        digests={"sha256": row["sha256"], "dandi-etag": row["etag"]},
        variables=tuple(row["variableMeasured"]),
        modified=row["modified"],
    )


def read_listing(path: Path, version: str = "draft") -> Listing:
    """A listing file as an archive of ours lists it."""
    return make_listing([archive_file(row) for row in listing_rows(path)], dandiset_id(path), version)


def make_listing(files: list[ArchiveFile], source_id: str = "000000", version: str = "draft") -> Listing:
    """A listing of any files."""
    return Listing(
        archive="dandi",
        source_id=source_id,
        version=version,
        frozen=version != "draft",
        listed_at=LISTED_AT,
        files=tuple(files),
    )


def listing_of(*paths: str, variables: tuple[str, ...] = ("Units",), source_id: str = "000000") -> Listing:
    """A listing of made-up files with these paths."""
    return make_listing([archive_file(made_up_row(path, variables)) for path in paths], source_id)
