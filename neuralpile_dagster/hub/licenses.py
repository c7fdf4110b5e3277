"""Names of licenses, as sources state them, to the identifiers of the Hugging Face Hub."""

from __future__ import annotations

import re

# From the Hub's list of licenses (huggingface.co/docs/hub/repositories-licenses): those that data archives offer.
_ON_HUB = frozenset(
    {
        *(f"cc-by-{v}" for v in ("2.0", "2.5", "3.0", "4.0")),
        *(f"cc-by-sa-{v}" for v in ("3.0", "4.0")),
        *(f"cc-by-nc-{v}" for v in ("2.0", "3.0", "4.0")),
        *(f"cc-by-nd-{v}" for v in ("4.0",)),
        *(f"cc-by-nc-nd-{v}" for v in ("3.0", "4.0")),
        *(f"cc-by-nc-sa-{v}" for v in ("2.0", "3.0", "4.0")),
        *("cc0-1.0", "pddl", "odbl", "odc-by", "mit", "apache-2.0", "bsd-3-clause", "bsd-2-clause"),
        *("gpl", "gpl-2.0", "gpl-3.0"),
    }
)
_OTHER_NAMES = {
    "cc0": "cc0-1.0",
    "pddl-1.0": "pddl",
    "odbl-1.0": "odbl",
    "odc-by-1.0": "odc-by",
    **{f"gpl-{v}{end}": f"gpl-{v}" for v in ("2.0", "3.0") for end in ("+", "-only", "-or-later")},
}
_CREATIVE_COMMONS_URL = re.compile(r"^https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/([0-9.]+)/?.*$")


def hub_licenses(stated: str | None) -> list[str]:
    """The Hub's identifiers of all licenses that a source states, sorted; several are separated by commas.

    ``cc-by-4.0`` for ``spdx:CC-BY-4.0``, ``CC BY 4.0`` or the license's URL. Empty when nothing is stated or the Hub
    has no identifier for one of them: never a guess, and never a part of them.
    """
    found = [_identifier(name) for name in (stated or "").split(",")]
    known = {name for name in found if name in _ON_HUB}
    return sorted(known) if len(known) == len(set(found)) else []


def _identifier(stated: str) -> str:
    name = stated.strip().lower()
    if url := _CREATIVE_COMMONS_URL.match(name):
        name = "cc0-1.0" if url[2] == "zero" else f"cc-{url[2]}-{url[3]}"
    name = re.sub(r"[\s_]+", "-", name.removeprefix("spdx:").strip())
    return _OTHER_NAMES.get(name, name)
