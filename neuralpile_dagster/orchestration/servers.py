"""One of Dagster's servers, in a process that heeds signals and ends with its parent: ``python -m`` this module.

`serving` starts it and explains why. Here belongs only what that process does before it is Dagster's: what it imports,
the UI waits for.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from neuralpile_dagster import process


def _stop_with_parent() -> None:
    """Wait until ``neuralpile ui`` has ended, then stop."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    process.relax_collector()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
