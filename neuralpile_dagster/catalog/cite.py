"""How a dataset's source is cited: BibTeX from its title and DOI, and from what its own metadata say."""

from __future__ import annotations

import re

from neuralpile_dagster.records import Citation
from neuralpile_dagster.catalog.model import Dataset

_PUBLISHERS = {"dandi": "DANDI Archive", "figshare": "figshare"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def bibtex(dataset: Dataset, citation: Citation | None = None, version: str | None = None) -> str:
    """A BibTeX entry for the source of a dataset; empty for synthetic recordings.

    ``citation`` is what the source's metadata say (title, authors, DOI), which
    counts more than the catalog; ``version`` the version that was read. Authors
    are in the metadata alone, so an entry without ``citation`` has none.
    """
    if dataset.synthetic:
        return ""
    said = citation or Citation()
    doi = said.doi or dataset.doi
    url = said.url or (f"https://doi.org/{doi}" if doi else dataset.source.url)
    pinned = "" if dataset.source.version == "latest" else dataset.source.version
    fields = {
        "author": " and ".join(f"{{{_latex(author)}}}" for author in said.authors),
        "title": f"{{{_latex(said.title or dataset.title)}}}",
        "publisher": _PUBLISHERS.get(dataset.source.archive, ""),
        "version": _latex(version or pinned),
        "doi": _verbatim(doi),
        "url": _verbatim(url),
        "note": f"Paper: https://doi.org/{_verbatim(dataset.paper_doi)}" if dataset.paper_doi else "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{dataset.key}_{dataset.source.id},", *lines, "}"])


def _latex(words: str) -> str:
    """Words as LaTeX shows them, in one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(words.split()))


def _verbatim(address: str | None) -> str:
    """A DOI or URL, which BibTeX styles take as it is, without what would end the field."""
    return re.sub(r"[{}\s\\]", "", address or "")
