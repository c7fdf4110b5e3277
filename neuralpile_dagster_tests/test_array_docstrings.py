"""Public functions that take or return numpy arrays say which shape and which dtype, read from the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster_tests.test_walls import PACKAGE, sources

ARRAY = re.compile(r"\b(ndarray|NDArray)\b")
SHAPE = re.compile(r"\bshapes? |\((n_\w+|n), ?|\(bins, units\)|\bone-dimensional\b")
DTYPE = re.compile(r"\b(u?int(8|16|32|64)|float(32|64)?|integers?|bool|bytes|dtype)\b")
ELSEWHERE = re.compile(r"See `\w+(\.\w+)+`|see `\w+(\.\w+)+`")
"""A method of a protocol's class points to the protocol, where the array is described."""


def array_functions(path: Path) -> Iterator[tuple[str, str]]:
    """Name and docstring of every public function or method of a file with a numpy array in its signature."""
    text = path.read_text()
    if not ARRAY.search(text):
        return
    for name, function in public_functions(ast.parse(text), ""):
        arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        annotations = [argument.annotation for argument in arguments] + [function.returns]
        if any(ARRAY.search(ast.unparse(annotation)) for annotation in annotations if annotation):
            yield name, ast.get_docstring(function) or ""


def public_functions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{child.name}.")


def test_the_functions_are_found() -> None:
    assert "Binner.counts" in dict(array_functions(PACKAGE / "binning" / "binner.py"))
    assert "counts_matrix" in dict(array_functions(PACKAGE / "tables" / "arrow_rows.py"))


@pytest.mark.parametrize("room", sorted({path.parent for path in sources()}), ids=str)
def test_an_array_has_shape_and_dtype(room: Path) -> None:
    for path in sorted(room.glob("*.py")):
        for name, text in array_functions(path):
            if not ELSEWHERE.search(text):
                assert SHAPE.search(text), f"{path}: {name}: no shape in: {text}"
                assert DTYPE.search(text), f"{path}: {name}: no dtype in: {text}"
