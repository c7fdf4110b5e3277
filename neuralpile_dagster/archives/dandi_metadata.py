"""A DANDI version's own metadata (``dandiset.yaml``, or ``GET .../versions/{v}/``) -> `Citation`.

Schema: https://github.com/dandi/schema (Dandiset). Fields that are missing, or
not what the schema says, are left out: what a source does not state is not made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralpile_dagster.archives.model import Citation

AUTHOR_ROLE = "dcite:Author"


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
