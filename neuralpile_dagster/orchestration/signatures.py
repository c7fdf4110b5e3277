"""Signatures of the functions in asset, check and job factories, found once for all datasets.

Dagster asks for the signature of a function some seventeen times as it makes an asset of it, and for its annotations
eight times. Python finds both anew each time: a fifth of the time in which 43 datasets' definitions were made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import TypeVar

_Made = TypeVar("_Made", bound=Callable[..., object])
_KNOWN: dict[CodeType, inspect.Signature] = {}


def signed(function: _Made) -> _Made:
    """Give a function of a factory the signature of the first that the factory made, as ``__signature__``.

    Python and Dagster (``dagster._core.decorator_utils``) take that one. What a factory makes differs by what it
    encloses, not by its parameters.
    """
    assert isinstance(function, FunctionType)
    if function.__code__ not in _KNOWN:
        _KNOWN[function.__code__] = inspect.signature(function, eval_str=True)
    function.__signature__ = _KNOWN[function.__code__]  # type: ignore[attr-defined]
    return function
