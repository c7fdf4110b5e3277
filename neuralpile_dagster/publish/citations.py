"""How to cite the components of a pile: lines of its card, and its ``CITATION.bib``.

The BibTeX of one source is made in `catalog.describe`; which components there are is decided in `merge`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from neuralpile_dagster.catalog.describe import bibtex, bibtex_entry
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.markdown import doi_link, link, text
from neuralpile_dagster.records import Citation, ComponentCitation

BIBLIOGRAPHY = "CITATION.bib"
_AUTHORS_NAMED = 3


def cite_dataset(dataset: Dataset, citation: Citation, version: str) -> ComponentCitation:
    """Citation of a component of ours: its source's own metadata, and the catalog's row where they state nothing.

    Without BibTeX for synthetic recordings.
    """
    return ComponentCitation(
        title=citation.title or dataset.title,
        authors=citation.authors or dataset.authors,
        doi=citation.doi or dataset.doi,
        url=citation.url or dataset.source.url,
        bibtex=bibtex(dataset, citation, version),
    )


def cite_repository(name: str, repository: str, page: str | None) -> ComponentCitation:
    """Citation of rows of another owner: the repository, whose README says what it was made from.

    ``name`` is their ``source_dataset``, ``page`` the repository's web page, if it has one.
    """
    key = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in (name, *repository.split("/")))
    fields = {"title": repository, "note": "Its README says what to cite"}
    return ComponentCitation(title=repository, url=page, bibtex=bibtex_entry(key, fields, url=page), foreign=True)


def cite_lines(citations: Mapping[str, ComponentCitation]) -> list[str]:
    """Section of the card: a line for each component, by ``source_dataset``."""
    return [
        f"Please cite the sources of the components that you use; `{BIBLIOGRAPHY}` has an entry for each.",
        "",
        *(f"- {text(name)}: {_line(citation)}" for name, citation in citations.items()),
    ]


def _line(citation: ComponentCitation) -> str:
    if citation.foreign:
        readme = f"{citation.url}#readme" if citation.url else None
        return f"see {link(f'the README of {citation.title}', readme)}"
    if not citation.bibtex:
        return f"{text(citation.title)} (nothing to cite)"
    authors = [text(author) for author in citation.authors[:_AUTHORS_NAMED]]
    more = " et al." if len(citation.authors) > _AUTHORS_NAMED else ""
    address = doi_link(citation.doi) or (link(citation.url, citation.url) if citation.url else None)
    parts = [f"{'; '.join(authors)}{more}" if authors else "", text(citation.title), address or ""]
    return ". ".join(part.rstrip(".") for part in parts if part)


def bibliography(citations: Mapping[str, ComponentCitation]) -> str:
    """Text of ``CITATION.bib``: an entry for each component, or a comment where there is nothing to cite."""
    # outside of an entry BibTeX takes everything for a comment but @
    entries = [
        citation.bibtex or f"% {text(name).replace('@', '')}: synthetic, nothing to cite"
        for name, citation in citations.items()
    ]
    return "\n\n".join(entries) + "\n"
