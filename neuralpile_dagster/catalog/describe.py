"""Descriptions of parts of a catalog row: rules as Markdown, sources as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable

from neuralpile_dagster.catalog.model import Dataset, SessionRule
from neuralpile_dagster.records import Citation

_SEVERAL = {
    "refuse": "More than one file for a session is an error.",
    "prefer": "Of a session's files only one is read: that which matches the earliest of the patterns above.",
    "stack": "All of a session's files are read, and their units stacked in the order of the paths.",
}


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


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


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
        "author": " and ".join(f"{{{_latex(author)}}}" for author in said.authors or dataset.authors),
        "title": f"{{{_latex(said.title or dataset.title)}}}",
        "publisher": dataset.source.facts.publisher,
        "version": "" if dataset.source.path else _latex(version or pinned),
        "doi": _verbatim(doi),
        "url": _verbatim(url),
        "note": f"Paper: https://doi.org/{_verbatim(dataset.paper_doi)}" if dataset.paper_doi else "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{dataset.key}_{dataset.source.id},", *lines, "}"])


def _latex(words: str) -> str:
    """Text escaped for LaTeX, in one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(words.split()))


def _verbatim(address: str | None) -> str:
    """DOI or URL for a verbatim BibTeX field, without characters that would end the field."""
    return re.sub(r"[{}\s\\]", "", address or "")
