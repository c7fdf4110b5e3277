"""API pages in Markdown, one per room, from the docstrings of the package; nothing is imported.

``make docs`` writes them to build/api/. They are not committed: the docstrings are the source, and making pages of
them takes seconds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]
PACKAGE = "neuralpile_dagster"
ROOMS = (
    "binning",
    "recordings",
    "tables",
    "merge",
    "session",
    "catalog",
    "archives.model",
    "store",
    "publish",
    "reading",
    "motifs",
    "ledger.analyses",
)


def page(module: griffe.Object) -> str:
    """The page of a room: its modules with their public classes and functions."""
    lines = [f"# {module.path.removeprefix(f'{PACKAGE}.')}"]
    for part in modules_of(module):
        members = [member for member in part.members.values() if is_shown(member)]
        if part is not module and members:
            lines += ["", f"## `{part.path}`"]
        lines += documented(part)
        for member in members:
            lines += entry(member, "###")
    return "\n".join(lines) + "\n"


def modules_of(module: griffe.Object) -> Iterator[griffe.Object]:
    """A module and all below it, by name."""
    yield module
    for _, below in sorted(module.modules.items()):
        if not below.is_alias and not below.name.startswith("_"):
            yield from modules_of(below)


def is_shown(member: griffe.Object | griffe.Alias) -> bool:
    """Whether a member is public, defined here, and a class or function with a docstring."""
    if member.is_alias or member.name.startswith("_") or member.docstring is None:
        return False
    return member.is_class or member.is_function


def entry(member: Any, heading: str) -> Iterator[str]:
    """Heading, signature and docstring of a class (with its methods) or function."""
    if member.is_class:
        yield from ("", f"{heading} class `{member.name}`")
    else:
        yield from ("", f"{heading} `{member.name}`", "", "```python", member.signature(), "```")
    yield from documented(member)
    if member.is_class:
        for inner in member.members.values():
            if is_shown(inner):
                yield from entry(inner, heading + "#")


def documented(member: griffe.Object) -> Iterator[str]:
    """A docstring: its text, and a list for each of its sections."""
    for section in member.docstring.parse("numpy", warnings=False) if member.docstring else ():
        if section.kind.value in ("text", "admonition"):
            yield from ("", section.value if isinstance(section.value, str) else section.value.contents)
            continue
        yield from ("", f"**{section.kind.value.capitalize()}**", "")
        if section.kind.value == "examples":
            yield from ("```pycon", *(text for _, text in section.value), "```")
            continue
        for item in section.value:
            name = f"`{item.name}`" if getattr(item, "name", "") else ""
            kind = f"*{_as_written(str(item.annotation))}*" if getattr(item, "annotation", None) else ""
            text = " ".join((item.description or "").split())
            yield f"- {', '.join(part for part in (name, kind) if part)}{': ' if text else ''}{text}"


def _as_written(annotation: str) -> str:
    """Undo what griffe makes of ``numpy.ndarray, uint8, shape (n_units,)``: a tuple with a call in it."""
    if "shape(" not in annotation:
        return annotation
    return re.sub(r"shape\((\w+)\)", r"shape (\1,)", annotation.removeprefix("(").removesuffix(")")).replace(
        "shape(", "shape ("
    )


def write(target: Path) -> list[Path]:
    """Write all pages and their index; give their paths."""
    package = griffe.load(PACKAGE, search_paths=[ROOT], allow_inspection=False)
    target.mkdir(parents=True, exist_ok=True)
    index = ["# API", "", *(f"- [{room}]({room}.md)" for room in ROOMS)]
    pages = {"index": "\n".join(index) + "\n", **{room: page(package[room]) for room in ROOMS}}
    for name, text in pages.items():
        (target / f"{name}.md").write_text(text, "utf-8")
    return [target / f"{name}.md" for name in pages]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=ROOT / "build" / "api")
    for path in write(parser.parse_args().target):
        print(path)
