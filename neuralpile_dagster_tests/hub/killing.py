"""Kill a piece of work at its n-th touch of a folder, as a power cut would."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TOUCHING = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "open"}


def killed_at(folder: Path, touch: int, work: Callable[[], Any]) -> bool:
    """Do ``work`` in a child process that SIGKILLs itself just before its n-th touch; False when it finished before."""
    child = os.fork()
    if child == 0:
        touched = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal touched
            if event in _TOUCHING and any(str(folder) in str(argument) for argument in arguments[:2]):
                touched += 1
                if touched == touch:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
