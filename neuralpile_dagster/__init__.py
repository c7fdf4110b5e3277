"""Build the neural pile: spike counts for foundation models of the brain.

The names below are the package's public surface; each is imported when it is first used, so that
``import neuralpile_dagster`` loads nothing else. Everything that is not listed here may move.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it as true; importing `typing` would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.recordings.model import read_session
    from neuralpile_dagster.session.own_files import bin_files

    __version__: str

__all__ = ["__version__", "bin_files", "load_catalog", "read_session"]

_HOMES = {
    "bin_files": "neuralpile_dagster.session.own_files",
    "load_catalog": "neuralpile_dagster.catalog.load",
    "read_session": "neuralpile_dagster.recordings.model",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("neuralpile-dagster")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and what a module has anyway."""
    return sorted({*globals(), *__all__})
