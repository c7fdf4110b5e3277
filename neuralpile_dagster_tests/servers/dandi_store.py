"""What a DANDI archive for tests holds: dandisets, their versions and files.

Raw documents of the real archive (``add_raw``) are kept and served unchanged; all others are made by
`dandi_documents` when they are asked for, and validated there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dandischema.digests.dandietag import DandiETag

from neuralpile_dagster_tests.servers.dandi_documents import (
    CREATED,
    TITLE,
    asset_metadata,
    contact_person,
    dandiset_metadata,
    uploaded_metadata,
    uuid4_of,
)

IDENTIFIER = r"\d{6}"  # dandiapi/api/models/dandiset.py, IDENTIFIER_REGEX
VERSION = r"0\.\d{6}\.\d{4}|draft"  # dandiapi/api/models/version.py, VERSION_REGEX


@dataclass
class Asset:
    """One archive file; ``raw`` is its entry as the real archive sent it, ``file`` its bytes if they are here."""

    asset_id: str
    path: str
    size: int
    blob: str | None
    zarr: str | None = None
    digest: dict[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    published: bool = False
    file: Path | None = None
    etag: str = ""
    raw: dict[str, Any] | None = None

    def entry(self, base: str, embargoed: bool, with_metadata: bool) -> dict[str, Any]:
        """As listings give it: ``dandiapi/api/views/serializers.py``, ``AssetSerializer``."""
        if self.raw is not None:
            return {name: value for name, value in self.raw.items() if with_metadata or name != "metadata"}
        entry = {
            "asset_id": self.asset_id,
            "blob": self.blob,
            "zarr": self.zarr,
            "path": self.path,
            "size": self.size,
            "created": CREATED,
            "modified": CREATED,
        }
        return entry | {"metadata": self.metadata(base, embargoed)} if with_metadata else entry

    def metadata(self, base: str, embargoed: bool) -> Any:
        """The file's metadata record."""
        if self.raw is not None:
            return self.raw["metadata"]
        content = blob_path(self.blob) if self.blob else f"/zarr/{self.zarr}/"
        return asset_metadata(
            uploaded_metadata(self.path, self.variables),
            self.asset_id,
            self.size,
            self.digest,
            [f"{base}/api/assets/{self.asset_id}/download/", f"{base}{content}"],
            embargoed=embargoed,
            published=self.published,
            zarr=self.zarr is not None,
        )


def blob_path(blob: str) -> str:
    """Path of a blob in the store."""
    return f"/blobs/{blob[:3]}/{blob[3:6]}/{blob}"


@dataclass
class Version:
    """One version of a dandiset; ``raw`` is its metadata as the real archive has it, ``stated`` what authors write."""

    dandiset_id: str
    name: str
    assets: dict[str, Asset] = field(default_factory=dict)
    modified: str = CREATED
    stated: dict[str, Any] = field(default_factory=dict)
    raw: Any = None

    def metadata(self, base: str, embargoed: bool) -> Any:
        """The version's metadata record."""
        if self.raw is not None:
            return self.raw
        assets = [asset.metadata(base, embargoed) for asset in self.assets.values()]
        return dandiset_metadata(self.dandiset_id, self.name, self.stated, assets, embargoed=embargoed)

    @property
    def title(self) -> str:
        """The name that the API's own documents have."""
        return str((self.stated if self.raw is None else self.raw).get("name", TITLE))

    @property
    def contact(self) -> str:
        """The contact person that the API's own documents have."""
        return contact_person(self.stated if self.raw is None else self.raw)

    def document(self) -> dict[str, Any]:
        """As the API gives it: ``dandiapi/api/views/serializers.py``, ``VersionSerializer(child_context=True)``."""
        return {
            "version": self.name,
            "name": self.title,
            "asset_count": len(self.assets),
            "active_uploads": 0,
            "size": sum(asset.size for asset in self.assets.values()),
            "status": "Valid",
            "created": CREATED,
            "modified": self.modified,
            "release_notes": "",
        }


@dataclass
class Dandiset:
    """A dandiset; every one has a draft."""

    versions: dict[str, Version]
    api_key: str | None = None  # embargoed: only with this key

    @property
    def embargoed(self) -> bool:
        """Whether only its owner may read it."""
        return self.api_key is not None

    @property
    def latest(self) -> Version | None:
        """``dandiapi/api/models/dandiset.py``, ``most_recent_published_version``."""
        published = [version for version in self.versions.values() if version.name != "draft"]
        return sorted(published, key=lambda version: version.modified)[-1] if published else None


class DandiStore:
    """All dandisets and blobs."""

    def __init__(self) -> None:
        self.dandisets: dict[str, Dandiset] = {}
        self.assets: dict[str, tuple[Dandiset, Asset]] = {}
        self.blobs: dict[str, tuple[Dandiset, Asset]] = {}
        self.strangers: set[str] = set()  # keys of users who own nothing
        self.signature = 0  # of signed URLs; all older ones have expired
        self.ranges = True

    def add_version(self, dandiset_id: str, version: str = "draft", **stated: Any) -> Version:
        """Make a version (and its dandiset), in order of publication; ``stated``: see `dandiset_metadata`."""
        assert re.fullmatch(IDENTIFIER, dandiset_id) and re.fullmatch(VERSION, version), (dandiset_id, version)
        dandiset = self.dandisets.setdefault(dandiset_id, Dandiset({"draft": Version(dandiset_id, "draft")}))
        found = dandiset.versions.setdefault(version, Version(dandiset_id, version))
        found.stated.update(stated)
        return found

    def add_raw(self, dandiset_id: str, entries: Iterable[Any], metadata: Any, publish: str | None = None) -> None:
        """Add a draft whose documents are the given ones; ``publish`` makes a version with the same files."""
        entries = list(entries)
        self.add_version(dandiset_id).raw = metadata
        for entry in entries:
            asset = Asset(entry["asset_id"], entry["path"], entry["size"], entry["blob"], raw=entry)
            self._add(dandiset_id, "draft", asset)
            if publish is not None:
                self._add(dandiset_id, publish, asset)

    def add_paths(
        self, dandiset_id: str, version: str, *paths: str, variables: Sequence[str] = ("Units",), zarr: bool = False
    ) -> None:
        """Add files of which only the listing is known; all but their paths and variables is made up from the path."""
        for path in paths:
            digest = hashlib.sha256(path.encode()).hexdigest()
            etag, size = f"{digest[:32]}-1", 1_000_000 + int(digest[:4], 16)
            digests = {"dandi:dandi-etag": etag, "dandi:sha2-256": digest}
            if zarr:
                digests = {"dandi:dandi-zarr-checksum": f"{digest[:32]}-1--{size}"}
            content = uuid4_of(f"content of {path}")
            asset = Asset(
                asset_id=uuid4_of(path),
                path=path,
                size=size,
                blob=None if zarr else content,
                zarr=content if zarr else None,
                digest=digests,
                variables=tuple(variables),
            )
            self._add(dandiset_id, version, asset)

    def add_file(
        self, dandiset_id: str, version: str, path: str, file: Path, variables: Sequence[str] = ("Units",)
    ) -> Asset:
        """Add a real file, with its true digests."""
        etag = DandiETag.from_file(file).as_str()
        asset = Asset(
            asset_id=uuid4_of(f"{dandiset_id}/{path}"),
            path=path,
            size=file.stat().st_size,
            blob=uuid4_of(etag + path),
            digest={"dandi:dandi-etag": etag, "dandi:sha2-256": hashlib.sha256(file.read_bytes()).hexdigest()},
            variables=tuple(variables),
            file=file,
            etag=etag,
        )
        return self._add(dandiset_id, version, asset)

    def _add(self, dandiset_id: str, version: str, asset: Asset) -> Asset:
        self.add_version(dandiset_id, version).assets[asset.asset_id] = asset
        asset.published = asset.published or version != "draft"
        owner = self.dandisets[dandiset_id]
        self.assets[asset.asset_id] = (owner, asset)
        if asset.blob:
            self.blobs[asset.blob] = (owner, asset)
        return asset


def raw_documents(shared_data: Path, dandiset_id: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The entries of a real dandiset's listing and its metadata, as the archive sent them (see the data's README)."""
    folder = shared_data / "dandi"
    with gzip.open(folder / f"{dandiset_id}.assets.json.gz", "rt", encoding="utf-8") as file:
        entries = json.load(file)
    return entries, yaml.load((folder / f"{dandiset_id}.dandiset.yaml").read_text("utf-8"), yaml.CSafeLoader)


def raw_ids(shared_data: Path) -> list[str]:
    """The dandisets that `raw_documents` has."""
    return sorted(path.name.split(".")[0] for path in (shared_data / "dandi").glob("*.assets.json.gz"))


def add_folder(store: DandiStore, folder: Path, version: str = "0.240101.0000") -> None:
    """Publish ``folder/<dandiset id>/<path>``; files with a units table have the variable ``Units``."""
    from neuralpile_dagster.archives.folder import FolderArchive
    from neuralpile_dagster.catalog.model import Source

    for dandiset in sorted(path for path in folder.iterdir() if path.is_dir()):
        for file in FolderArchive(folder).list_files(Source(id=dandiset.name)).files:
            store.add_file(dandiset.name, version, file.path, dandiset / file.path, file.variables or ())
