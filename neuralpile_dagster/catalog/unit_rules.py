"""Rules for units, such as ``isi_violations < 0.5 and presence_ratio > 0.95``: parsed here, never evaluated as Python.

A rule compares metrics of units with numbers or texts and joins comparisons with ``and``, ``or``, ``not`` and
parentheses. Which rules a dataset has is in its row (`good_units`); applying them belongs in `publish`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_CHARACTERS = 500
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
UnitColumns = Mapping[str, np.ndarray]
"""A column of all units by name: float64 (NaN: not stated), or objects: texts (None: not stated)."""


@dataclass(frozen=True)
class UnitRule:
    """A parsed rule; ``names`` are the metrics that it compares."""

    tree: ast.expr
    names: frozenset[str]

    def holds(self, numbers: UnitColumns, texts: UnitColumns, n_units: int) -> np.ndarray:
        """Tell for which units the rule holds.

        A comparison with a metric that is not stated for a unit does not hold, nor does ``!=``.

        Parameters
        ----------
        numbers : mapping of str to numpy.ndarray, float64, shape (n_units,)
            Metrics, NaN where not stated.
        texts : mapping of str to numpy.ndarray, object, shape (n_units,)
            Texts, None where not stated.
        n_units : int

        Returns
        -------
        numpy.ndarray, bool, shape (n_units,)
        """
        return _evaluate(self.tree, numbers, texts, np.zeros(n_units, bool))


def parse_rule(expression: str) -> UnitRule:
    """Parse a rule; raises `ValueError` saying what is not allowed in it."""
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"a rule has at most {MAX_CHARACTERS} characters, not {len(expression):,}")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is not a rule: {error}") from error
    names: set[str] = set()
    _require_rule(tree, expression, names)
    return UnitRule(tree, frozenset(names))


def _require_rule(node: ast.expr, expression: str, names: set[str]) -> None:
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _require_rule(value, expression, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _require_rule(node.operand, expression, names)
    elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and len(node.ops) == 1:
        constant = _constant(node.comparators[0])
        ordered = not isinstance(node.ops[0], ast.Eq | ast.NotEq)
        if constant is None or type(node.ops[0]) not in _COMPARISONS or (ordered and isinstance(constant, str)):
            raise ValueError(f"{ast.unparse(node)!r} in {expression!r} does not compare a metric with a number or text")
        names.add(node.left.id)
    else:
        raise ValueError(
            f"{ast.unparse(node)!r} in {expression!r} is not a comparison like isi_violations < 0.5, nor several of "
            "them with and, or, not"
        )


def _constant(node: ast.expr) -> float | str | None:
    """The number or text that a comparison has on its right, or None."""
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1.0, node.operand
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return None
    if isinstance(node.value, int | float):
        return sign * node.value
    return node.value if isinstance(node.value, str) and sign > 0 else None


def _evaluate(node: ast.expr, numbers: UnitColumns, texts: UnitColumns, nowhere: np.ndarray) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_evaluate(value, numbers, texts, nowhere) for value in node.values]
        joined: np.ndarray = (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
        return joined
    if isinstance(node, ast.UnaryOp):
        return ~_evaluate(node.operand, numbers, texts, nowhere)
    assert isinstance(node, ast.Compare)  # `_require_rule`
    assert isinstance(node.left, ast.Name)
    value = _constant(node.comparators[0])
    column = (texts if isinstance(value, str) else numbers).get(node.left.id)
    if column is None:
        return nowhere
    compare = _COMPARISONS[type(node.ops[0])]
    if isinstance(value, str):
        return np.array([text is not None and bool(compare(text, value)) for text in column], bool)
    return np.isfinite(column) & compare(column, value)
