"""Python's garbage collector in processes that are ours: commands, and Dagster's that load the code location.

Nearly all that it searches are imported modules, which stay. A program that imports this package keeps its own rules.
"""

from __future__ import annotations

import atexit
import gc

YOUNG_OBJECTS = 20_000
"""Objects made before the collector searches them (Python: 700); importing numba alone makes ten times as many."""


def relax() -> None:
    """Let the collector search less often, and nothing at exit, where it takes a fourth of a small command's CPU time.

    What is in a cycle at exit is not finalized, as Python never promises; the system takes its memory back.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
