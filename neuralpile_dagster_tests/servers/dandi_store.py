"""What a DANDI archive for tests holds: dandisets, their versions and files, in the forms of the real API."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dandischema.digests.dandietag import DandiETag

CREATED = "2024-03-05T09:19:13.131300Z"
_NAMESPACE = uuid.UUID("5bb2b9a5-0000-4000-8000-000000000000")


@dataclass
class Asset:
    """One archive file; ``file`` is None where only the listing is known."""

    row: dict[str, Any]
    file: Path | None = None
    etag: str = ""

    def entry(self, base: str, with_metadata: bool) -> dict[str, Any]:
        """As the API's listings give it."""
        row = self.row
        entry = {key: row[key] for key in ("asset_id", "blob", "zarr", "path", "size", "created", "modified")}
        return entry | {"metadata": self.metadata(base)} if with_metadata else entry

    def metadata(self, base: str) -> dict[str, Any]:
        """The file's metadata record."""
        row = self.row
        urls = [f"{base}/api/assets/{row['asset_id']}/download/"]
        urls += [f"{base}{blob_path(row['blob'])}"] if row["blob"] else []
        kind = "dandi:dandi-etag" if row["blob"] else "dandi:dandi-zarr-checksum"
        return {
            "id": f"dandiasset:{row['asset_id']}",
            "identifier": row["asset_id"],
            "path": row["path"],
            "contentSize": row["size"],
            "encodingFormat": "application/x-nwb",
            "digest": {kind: row["etag"], "dandi:sha2-256": row["sha256"]},
            "contentUrl": urls,
            "variableMeasured": row["variableMeasured"],
        }


def blob_path(blob: str) -> str:
    """Path of a blob in the store."""
    return f"/blobs/{blob[:3]}/{blob[3:6]}/{blob}"


@dataclass
class Version:
    """One version of a dandiset."""

    name: str
    assets: dict[str, Asset] = field(default_factory=dict)
    modified: str = CREATED
    metadata: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "version": self.name,
            "name": self.metadata.get("name", "made for tests"),
            "asset_count": len(self.assets),
            "size": sum(asset.row["size"] for asset in self.assets.values()),
            "created": CREATED,
            "modified": self.modified,
            "status": "Valid" if self.name == "draft" else "Published",
        }


@dataclass
class Dandiset:
    """A dandiset; every one has a draft."""

    versions: dict[str, Version]
    api_key: str | None = None  # embargoed: only with this key


class DandiStore:
    """All dandisets and blobs."""

    def __init__(self) -> None:
        self.dandisets: dict[str, Dandiset] = {}
        self.assets: dict[str, tuple[Dandiset, Asset]] = {}
        self.blobs: dict[str, tuple[Dandiset, Asset]] = {}
        self.signature = 0  # of signed URLs; all older ones have expired
        self.ranges = True

    def add_version(self, dandiset_id: str, version: str = "draft", **metadata: Any) -> Version:
        """Make a version (and its dandiset), in order of publication."""
        dandiset = self.dandisets.setdefault(dandiset_id, Dandiset({"draft": Version("draft")}))
        found = dandiset.versions.setdefault(version, Version(version))
        found.metadata.update(metadata)
        return found

    def add_rows(self, dandiset_id: str, version: str, rows: Iterable[dict[str, Any]]) -> None:
        """Add files of which only the listing is known (see `neuralpile_dagster_tests.listings`)."""
        for row in rows:
            self._add(dandiset_id, version, Asset(row))

    def add_file(
        self, dandiset_id: str, version: str, path: str, file: Path, variables: tuple[str, ...] = ("Units",)
    ) -> Asset:
        """Add a real file, with its true digests."""
        etag = DandiETag.from_file(file).as_str()
        row = {
            "asset_id": str(uuid.uuid5(_NAMESPACE, f"{dandiset_id}/{path}")),
            "blob": str(uuid.uuid5(_NAMESPACE, etag + path)),
            "zarr": None,
            "path": path,
            "size": file.stat().st_size,
            "created": CREATED,
            "modified": CREATED,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "etag": etag,
            "variableMeasured": list(variables),
        }
        return self._add(dandiset_id, version, Asset(row, file, etag))

    def _add(self, dandiset_id: str, version: str, asset: Asset) -> Asset:
        self.add_version(dandiset_id, version).assets[asset.row["asset_id"]] = asset
        owner = self.dandisets[dandiset_id]
        self.assets[asset.row["asset_id"]] = (owner, asset)
        if asset.row["blob"]:
            self.blobs[asset.row["blob"]] = (owner, asset)
        return asset


def add_folder(store: DandiStore, folder: Path, version: str = "0.240101.0000") -> None:
    """Publish ``folder/<dandiset id>/<path>``; files with a units table have the variable ``Units``."""
    from neuralpile_dagster.archives.folder import FolderArchive
    from neuralpile_dagster.catalog.model import Source

    for dandiset in sorted(path for path in folder.iterdir() if path.is_dir()):
        for file in FolderArchive(folder).list_files(Source(id=dandiset.name)).files:
            store.add_file(dandiset.name, version, file.path, dandiset / file.path, file.variables or ())
