"""What a catalog row states, in other forms: for hashes, in words, Markdown, BibTeX, and species by any of their names.

Species are only compared; what is published is what the sources state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuralpile_dagster.catalog.model import Dataset, SessionRule
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.markdown import doi_link, link
from neuralpile_dagster.records import Citation

_SEVERAL = {
    "refuse": "More than one file for a session is an error.",
    "prefer": "Of a session's files only one is read: that which matches the earliest of the patterns above.",
    "stack": "All of a session's files are read, and their units stacked in the order of the paths.",
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
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
_WORDS = frozenset({"paper_doi", "paper_url", "areas", "task"})
_PATTERNS = {species: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b") for species, words in _NAMES.items()}


def hashed_row(dataset: Dataset, exclude: set[str]) -> dict[str, Any]:
    """A row as JSON for hashes of inputs: without ``exclude``, and without the package's own words about a paper.

    Those are for cards and pages: a better link or word makes nothing due. A row of the user is hashed with all that
    it states.
    """
    ours = next((row for row in (*RODENT, *PRIMATE) if row.name == dataset.name), None)
    words = _WORDS if dataset.name != "steinmetz-2" else _WORDS - {"paper_doi"}  # which was in its hash from the start
    defaults = {name: Dataset.model_fields[name].default for name in words}
    unset = {name: value for name, value in defaults.items() if ours is not None and getattr(ours, name) != value}
    return dataset.model_copy(update=unset).model_dump(mode="json", exclude=exclude)


def code(text: str) -> str:
    """Text verbatim, as a code span of Markdown."""
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def rule_in_words(rule: SessionRule) -> list[str]:
    """Session rule as sentences, one a line; patterns are shown verbatim."""
    lines = [f"The path matches {_either(rule.include)}."]
    if rule.exclude:
        lines.append(f"It does not match {_either(rule.exclude)}.")
    if rule.requires:
        needed = " and ".join(code(name) for name in rule.requires)
        lines.append(f"The archive's metadata (`variableMeasured`) list {needed} for the file.")
    if rule.same_session:
        lines.append(f"Files for which the groups of {code(rule.same_session)} are equal belong to one session.")
        lines.append(_SEVERAL[rule.several])
    return [*lines, _ids(rule)]


def _ids(rule: SessionRule) -> str:
    groups = re.compile(rule.same_session or "").groupindex
    folder = "the nearest `sub-*` folder of the path, else the file's folder"
    subject = "what the group `subject` captures" if "subject" in groups else folder
    session = "what the group `session` captures" if "session" in groups else "the file's name without extension"
    return f"`subject_id` is {subject}, `session_id` {session}."


def _either(patterns: Iterable[str]) -> str:
    return " or ".join(code(pattern) for pattern in patterns)


def paper_link(dataset: Dataset) -> str | None:
    """Markdown link of the dataset's paper: its DOI, or its address (publishers' may hold parentheses)."""
    if dataset.paper_doi or not dataset.paper:
        return doi_link(dataset.paper_doi)
    return link(dataset.paper, dataset.paper.replace("(", "%28").replace(")", "%29"))


def recorded(dataset: Dataset) -> dict[str, str]:
    """Recorded areas and task as plain text, by what they are; those that the row states."""
    said = {"areas": ", ".join(dataset.areas), "task": dataset.task}
    return {what: words for what, words in said.items() if words}


def untested(dataset: Dataset) -> list[str]:
    """Parts of a row that were tried on nothing real yet, as sentences."""
    said = []
    if not dataset.rule_checked:
        said.append("Untested: the session rule was not tried on the archive's own listing.")
    if not dataset.reader_checked:
        said.append(
            "Untested: none of its files was read yet; `neuralpile doctor --dataset "
            f"{dataset.name}` reads up to five of them."
        )
    return said


def good_units(dataset: Dataset) -> list[str]:
    """The row's rules for units as Markdown, one a line."""
    return [f"Units named {code(name)} in `good`: {code(rule)}" for name, rule in dataset.good_units.items()]


def bibtex(dataset: Dataset, citation: Citation | None = None, version: str | None = None) -> str:
    """BibTeX entry for the source of a dataset; empty for synthetic recordings.

    ``citation`` are the source's metadata (title, authors, DOI), which take
    precedence over the catalog; ``version`` is the version read. Authors are in
    the metadata only, so an entry without ``citation`` has none.
    """
    if dataset.synthetic:
        return ""
    said = citation or Citation()
    doi = said.doi or dataset.doi
    url = said.url or (f"https://doi.org/{doi}" if doi else dataset.source.url)
    pinned = "" if dataset.source.version == "latest" else dataset.source.version
    fields = {
        "title": said.title or dataset.title,
        "publisher": dataset.source.facts.publisher,
        "version": "" if dataset.source.path else version or pinned,
    }
    return bibtex_entry(
        f"{dataset.name}_{dataset.source.id}",
        fields,
        authors=said.authors or dataset.authors,
        doi=doi,
        url=url,
        paper=dataset.paper,
    )


def bibtex_entry(
    key: str,
    fields: Mapping[str, str],
    *,
    authors: Sequence[str] = (),
    doi: str | None = None,
    url: str | None = None,
    paper: str | None = None,
) -> str:
    """BibTeX entry of any texts, escaped; ``key`` is used as it is, ``title`` keeps its capitals."""
    escaped = {name: f"{{{_latex(words)}}}" if name == "title" else _latex(words) for name, words in fields.items()}
    named = {
        "author": " and ".join(f"{{{_latex(author)}}}" for author in authors),
        **escaped,
        "doi": _verbatim(doi),
        "url": _verbatim(url),
    }
    if paper:
        named["note"] = f"Paper: \\url{{{_verbatim(paper)}}}"
    lines = [f"  {name} = {{{value}}}," for name, value in named.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _latex(words: str) -> str:
    """Text escaped for LaTeX, in one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(words.split()))


def _verbatim(address: str | None) -> str:
    """DOI or URL for a verbatim BibTeX field, without characters that would end the field."""
    return re.sub(r"[{}\s\\]", "", address or "")


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
