"""Every `zip` of the package refuses sequences of different lengths: a short column is damage, not the end of all."""

from __future__ import annotations

import ast
from pathlib import Path

import neuralpile_dagster

PACKAGE = Path(neuralpile_dagster.__file__).parent
MAY_DIFFER = {"checks/session.py": "compares the rows that are there; the lengths are compared, and told, beside it"}


def not_strict(source: str) -> list[int]:
    """Lines of calls of zip without ``strict=True``."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "zip"
        and not any(
            word.arg == "strict" and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in node.keywords
        )
    ]


def test_every_zip_is_strict_but_for_those_with_a_reason() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := not_strict(path.read_text("utf-8")))
    }
    assert {place: len(lines) for place, lines in found.items()} == dict.fromkeys(MAY_DIFFER, 1), found


def test_a_zip_that_is_not_strict_is_found() -> None:
    assert not_strict("zip(a, b, strict=True)\nzip(a, b, strict=False)\nzip(a, b)") == [2, 3]
