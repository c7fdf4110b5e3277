"""How long work says where it is: a function that is called with one line of text now and then."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """The `Progress` of who does not want to hear of it."""
