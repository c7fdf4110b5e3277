"""Names of species: whether what a catalog row, a file and another file state is the same animal.

Only for comparing; what is published is what the sources state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMES = {
    "mouse": ("mouse", "mice", "mus musculus", "ncbitaxon_10090"),
    "rat": ("rat", "rats", "rattus norvegicus", "rattus", "ncbitaxon_10116"),
    "human": ("human", "humans", "homo sapiens", "ncbitaxon_9606"),
    "macaque": ("macaque", "macaques", "monkey", "rhesus", "macaca mulatta", "macaca", "ncbitaxon_9544"),
    "marmoset": ("marmoset", "callithrix jacchus", "ncbitaxon_9483"),
    "gerbil": ("gerbil", "meriones unguiculatus", "ncbitaxon_10047"),
    "none": ("synthetic",),
    "zebra finch": ("zebra finch", "taeniopygia guttata", "ncbitaxon_59729"),
}
_PATTERNS = {species: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b") for species, words in _NAMES.items()}


def same_species(one: str, other: str) -> bool:
    """Whether two texts name the same species, by a name in common: Latin, English, or NCBI's number.

    Examples
    --------
    >>> same_species("mouse", "Mus musculus"), same_species("mouse", "Rattus norvegicus")
    (True, False)
    >>> same_species("mouse and rat", "http://purl.obolibrary.org/obo/NCBITaxon_10116")
    True
    """
    return one.strip().casefold() == other.strip().casefold() or bool(_species_in(one) & _species_in(other))


def other_species(stated: str, found: Iterable[str]) -> list[str]:
    """Those of the found names that are not the species stated, sorted."""
    return sorted({name for name in found if not same_species(stated, name)})


def _species_in(text: str) -> frozenset[str]:
    words = text.casefold()
    return frozenset(species for species, pattern in _PATTERNS.items() if pattern.search(words))
