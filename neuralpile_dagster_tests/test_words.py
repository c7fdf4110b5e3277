"""Plain engineers' English: phrases that no text for people may hold, and an opening for every module.

The list is short: each phrase stood in a text that a user met, and has a plainer form beside it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from neuralpile_dagster.cli import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "neuralpile_dagster"

BANNED = {
    r"\bthat (is|are) none\b": "invalid X",
    r"\bis no (rate|law|number|time|URL|segment)\b": "is not a ..., or invalid ...",
    r"\bno data of\b": "not data of",
    r"\bfor ever\b": "forever, or a limit",
    r"\bmade anew\b": "remade",
    r"\bplanned for anew\b": "planned again",
    r"\b(is|are) told\b": "is logged",
    r"\bwhat was (read|finished|done) of\b": "the ... read",
    r"\bof who does not\b": "a ... that discards",
    r"\ball good\b": "all valid",
    r"\bagain and again\b": "repeatedly",
    r"\btime-outs?\b": "timeout",
    r"\b(trouble|troubles)\b": "error",
    r"\bgone for good\b": "removed",
    r"\btries again\b": "retries",
    r"\bis tried again\b": "is retried",
    r"\bare tried again\b": "are retried",
    r"\bhand(s|ed)? in\b": "pass",
}
NOT_YET: set[str] = set()
"""Rooms whose texts are still to be rewritten."""


def texts_in_code() -> Iterator[tuple[str, str]]:
    """Every string literal with a space that is not a docstring: errors, log lines, UI texts, cards."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in NOT_YET:
            continue
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def texts_in_documents() -> Iterator[tuple[str, str]]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy" / "README.md"]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def texts_of_help() -> Iterator[tuple[str, str]]:
    with click.Context(main) as context:
        yield "neuralpile --help", main.get_help(context)
        for name, command in main.commands.items():
            yield f"neuralpile {name} --help", command.get_help(click.Context(command, context))


@pytest.mark.parametrize("texts", [texts_in_code, texts_in_documents, texts_of_help])
def test_no_text_for_people_holds_a_banned_phrase(texts: object) -> None:
    found = [
        f"{where}: {text[:80]!r} -> {better}"
        for where, text in texts()  # type: ignore[operator]
        for phrase, better in BANNED.items()
        if re.search(phrase, text)
    ]
    assert found == []


def test_every_module_opens_with_what_it_is() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert missing == []


def test_no_code_refers_to_documents_that_a_clone_does_not_have() -> None:
    pattern = re.compile(r"\bshared/|\(issue \d|\bspecs\.md|\bplatform\.md|\bdesign\.md|\bhouse\.md")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*sorted(PACKAGE.rglob("*.py")), ROOT / "Makefile"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []
