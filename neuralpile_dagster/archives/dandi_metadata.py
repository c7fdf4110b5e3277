"""DANDI's metadata: of a version (``dandiset.yaml``, ``GET .../versions/{v}/``) and of a file, as ours.

Schema: https://github.com/dandi/schema (Dandiset, Asset). Fields that are missing, or
not what the schema says, are left out: what a source does not state is not made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuralpile_dagster.archives.model import ArchiveFile, Citation

if TYPE_CHECKING:
    from dandi.dandiapi import RemoteAsset

AUTHOR_ROLE = "dcite:Author"
_DIGESTS = {"dandi:sha2-256": "sha256", "dandi:dandi-etag": "dandi-etag", "dandi:dandi-zarr-checksum": "zarr-checksum"}


def archive_file(asset: RemoteAsset) -> ArchiveFile:
    """A DANDI "asset" as an archive file; digests and URLs that it has not are left out."""
    metadata: dict[str, Any] = asset.get_raw_metadata()
    listed = metadata.get("digest") or {}
    digests = {ours: listed.get(theirs) for theirs, ours in _DIGESTS.items()}
    urls = [url for url in metadata.get("contentUrl") or () if not url.rstrip("/").endswith("/download")]
    return ArchiveFile(
        path=asset.path,
        size=asset.size,
        file_id=asset.identifier,
        digests={name: value for name, value in digests.items() if value},
        variables=tuple(metadata.get("variableMeasured") or ()),
        modified=asset.modified.isoformat(),
        url=next(iter(urls), None),
    )


def citation_of(metadata: Mapping[str, Any]) -> Citation:
    """Title, authors, citation, licence (SPDX names), DOI and URL, as far as the metadata state them."""
    licenses = [name.removeprefix("spdx:") for name in _list(metadata, "license") if isinstance(name, str)]
    return Citation(
        title=_text(metadata, "name"),
        authors=tuple(_authors(_list(metadata, "contributor"))),
        citation=_text(metadata, "citation"),
        license=", ".join(licenses) or None,
        doi=_text(metadata, "doi"),
        url=_text(metadata, "url"),
    )


def _authors(contributors: list[Any]) -> list[str]:
    """Those whom the citation names; of those without stated roles, persons who are to be cited."""
    names = []
    for contributor in contributors:
        if not isinstance(contributor, dict):
            continue
        roles, name = _list(contributor, "roleName"), _text(contributor, "name")
        is_author = AUTHOR_ROLE in roles if roles else contributor.get("schemaKey") == "Person"
        if name and is_author and contributor.get("includeInCitation", True):
            names.append(name)
    return names


def _text(metadata: Mapping[str, Any], field: str) -> str | None:
    value = metadata.get(field)
    return value.strip() or None if isinstance(value, str) else None


def _list(metadata: Mapping[str, Any], field: str) -> list[Any]:
    value = metadata.get(field)
    return value if isinstance(value, list) else []
