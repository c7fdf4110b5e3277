"""One at a time, across processes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralpile_dagster.progress import Progress


@contextmanager
def locked(path: Path, progress: Progress, waiting_for: str) -> Iterator[None]:
    """Hold the lock of the file ``path``; say so when another process or thread has it, and wait.

    The operating system releases the lock when its holder ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process: {waiting_for}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
