"""Public functions that take or return numpy arrays say which shape and which dtype, read from the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from neuralpile_dagster_tests.test_walls import PACKAGE, sources

ARRAY = re.compile(r"\b(ndarray|NDArray)\b")
SHAPE = re.compile(r"\bshapes? |\((n_\w+|n), ?|\(bins, units\)|\bone-dimensional\b")
DTYPE = re.compile(r"\b(u?int(8|16|32|64)|float(32|64)?|integers?|bool|bytes|dtype)\b")
ELSEWHERE = re.compile(r"See `\w+(\.\w+)+`|see `\w+(\.\w+)+`")
"""A method of a protocol's class points to the protocol, where the array is described."""


def array_functions() -> Iterator[tuple[str, str]]:
    """Place and docstring of every public function or method with a numpy array in its signature."""
    texts = ((path, path.read_text()) for path in sources())
    for path, tree in ((path, ast.parse(text)) for path, text in texts if ARRAY.search(text)):
        for name, function in public_functions(tree, ""):
            arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            annotations = [argument.annotation for argument in arguments] + [function.returns]
            if any(ARRAY.search(ast.unparse(annotation)) for annotation in annotations if annotation):
                place = f"{path.relative_to(PACKAGE)}:{name}"
                yield place, ast.get_docstring(function) or ""


def public_functions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{child.name}.")


FUNCTIONS = dict(array_functions())


def test_the_functions_are_found() -> None:
    assert {"binning/binner.py:Binner.counts", "tables/arrow_rows.py:counts_matrix"} <= set(FUNCTIONS)


@pytest.mark.parametrize("place", FUNCTIONS)
def test_an_array_has_shape_and_dtype(place: str) -> None:
    text = FUNCTIONS[place]
    if ELSEWHERE.search(text):
        return
    assert SHAPE.search(text), f"no shape in: {text}"
    assert DTYPE.search(text), f"no dtype in: {text}"
