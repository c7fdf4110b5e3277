"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check: what was expected, what was found, and what to do where that is not obvious.

    ``details`` holds further numbers or short lists (plain JSON values).
    """

    passed: bool
    expected: Any
    found: Any
    remedy: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def capped(items: list[str], limit: int = 10) -> str:
    """A list as text, its first ``limit`` members and how many more there are."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
