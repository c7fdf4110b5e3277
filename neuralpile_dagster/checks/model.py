"""What every check is made of: the row that describes a check, and the verdict that it gives.

The checks themselves are functions of the other modules of `checks`; their rows are in `checks.registry`. Nothing here
knows what is judged, or Dagster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from neuralpile_dagster.catalog.model import Severity

Layer = Literal["manifest", "spike_counts", "hub_dataset", "pile", "motifs", "motifs_hub_dataset", "tokens_hub_dataset"]
Evidence = TypeVar("Evidence")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check: what was expected, what was found, and what to do where that is not obvious.

    ``details`` holds further numbers or short lists (plain JSON values). ``severity`` replaces that of the check where
    what was found is less severe.
    """

    passed: bool
    expected: Any
    found: Any
    remedy: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    severity: Severity | None = None


@dataclass(frozen=True)
class Check(Generic[Evidence]):
    """One check as a row.

    Attributes
    ----------
    layer : str
        The asset that it judges; ``pile`` is the merged pile's ``hub_dataset``, the last three are made of a pile.
    name : str
        Its name in the UI, and in the ``severity`` of a catalog row.
    severity : {"error", "warn"}
        ``error`` turns the asset red, ``warn`` yellow.
    why : str
        Why it is worth checking, for the UI.
    run : callable
        Judges the evidence of its layer.
    blocking : bool
        Whether a failed check of severity ``error`` also stops what is downstream in the same run.
    """

    layer: Layer
    name: str
    severity: Severity
    why: str
    run: Callable[[Evidence], Verdict]
    blocking: bool = False


def capped(items: list[str], limit: int = 10) -> str:
    """A list as text, its first ``limit`` members and how many more there are."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
