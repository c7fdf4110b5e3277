"""Listings of made-up files, for tests of what is done with a listing."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from neuralpile_dagster.archives.model import ArchiveFile, Listing

LISTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def made_up_file(path: str, variables: tuple[str, ...] | None = ("Units",)) -> ArchiveFile:
    """A listed file of which all but the path and variables is made up from the path, the same each time."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
    return ArchiveFile(
        path=path,
        size=1_000_000 + int(digest[:4], 16),
        file_id=digest[:32],
        digests={"sha256": digest, "dandi-etag": f"{digest[:32]}-1"},
        variables=variables,
        modified="2025-01-01T00:00:00+00:00",
    )


def make_listing(files: Iterable[ArchiveFile], source_id: str = "000000") -> Listing:
    """A listing of any files of a draft."""
    return Listing(
        archive="dandi",
        source_id=source_id,
        version="draft",
        frozen=False,
        listed_at=LISTED_AT,
        files=tuple(files),
    )


def listing_of(*paths: str, variables: tuple[str, ...] = ("Units",), source_id: str = "000000") -> Listing:
    """A listing of made-up files with these paths."""
    return make_listing((made_up_file(path, variables) for path in paths), source_id)


def real_paths(shared_data: Path, dandiset_id: str) -> list[str]:
    """The paths of a real dandiset of which nothing else is known (see the data's README)."""
    with gzip.open(shared_data / "dandi" / f"{dandiset_id}.paths.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["path"] for line in file]
