"""Text for people: numbers with their nouns, and Markdown of untrusted text (titles, authors, errors), escaped.

What a card says belongs in `publish`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]|~$^])")
_BLOCK_START = re.compile(r"^(?:([-=+#])|(\d+)([.)])(?=\s|$))")
_SAFE_URL = re.compile(r"^https?://[^\s<>\"'()\[\]{}|\\^`]+$")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])(/[^\s/:;,'\"]+){2,}")


def plural(number: int, one: str, many: str = "") -> str:
    """Number with its noun, e.g. ``1 session``, ``1,200 sessions``; ``many`` where that is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def one_line(words: str, limit: int = 500) -> str:
    """Plain text in one line: no control characters, white space collapsed, cut at ``limit`` characters."""
    line = " ".join(_visible(words).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _visible(words: str) -> str:
    """Replace control, format (e.g. right-to-left) and separator characters by spaces."""
    if words.isprintable():  # has none of them
        return words
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in words)


def text(words: str, limit: int = 500) -> str:
    """`one_line`, escaped, so that Markdown, HTML and YAML markers in it are shown verbatim."""
    escaped = one_line(words, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _SPECIAL.sub(r"\\\1", escaped)
    # at the start of a line these mean a list, a heading, a rule or the end of the metadata
    return _BLOCK_START.sub(lambda start: f"\\{start[1]}" if start[1] else f"{start[2]}\\{start[3]}", escaped)


def url(address: str | None) -> str | None:
    """Address if it is a plain http(s) URL, else None."""
    return address if address and _SAFE_URL.match(address) else None


def link(words: str, address: str | None) -> str:
    """Link ``words`` to ``address``; without a plain http(s) URL only the words."""
    target = url(address)
    return f"[{text(words)}]({target})" if target else text(words)


def doi_link(doi: str | None) -> str | None:
    """Link of a DOI (bare, ``doi:...`` or a URL); None when there is none."""
    if not doi:
        return None
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", doi.strip(), flags=re.IGNORECASE)
    return link(bare, f"https://doi.org/{bare}")


def code_block(words: str, language: str = "") -> list[str]:
    """Lines of a fenced block, safe for any backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", words)), default=0))
    return [f"{fence}{language}", *map(_visible, words.splitlines()), fence]


def table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> list[str]:
    """Lines of a table; the cells must be Markdown already (`text`), integers get thousands separators."""

    def line(cells: Iterable[str | int]) -> str:
        return "| " + " | ".join(f"{c:,}" if isinstance(c, int) else c for c in cells) + " |"

    body = [list(row) for row in rows]
    numeric = [bool(body) and all(isinstance(row[i], int) for row in body) for i in range(len(header))]
    return [line(header), "|" + "|".join("---:" if right else "---" for right in numeric) + "|", *map(line, body)]


def public(reason: str) -> str:
    """Remove parts of an error that must not be published: queries of URLs (signatures) and local paths."""
    without_queries = _QUERY.sub(r"\1", reason)
    return _ABSOLUTE_PATH.sub(lambda match: "…/" + match[0].rsplit("/", 1)[1], without_queries)
