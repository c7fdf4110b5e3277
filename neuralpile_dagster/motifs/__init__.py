"""Motifs of spike counts, and rows of counts as tokens: ``from neuralpile_dagster.motifs import Tokenizer, encode``.

The names below are for users' own code; each is imported when it is first used. Everything else may move.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in the package's own __init__
if TYPE_CHECKING:
    from typing import Any

    from neuralpile_dagster.motifs.tokens import Tokenizer, decode, deinterleave, encode, interleave

__all__ = ["Tokenizer", "decode", "deinterleave", "encode", "interleave"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("neuralpile_dagster.motifs.tokens"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and what a module has anyway."""
    return sorted({*globals(), *__all__})
