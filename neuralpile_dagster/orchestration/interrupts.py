"""Ctrl-C while Dagster works: noticed whenever it comes."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def noticing_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether somebody asked this process to stop (SIGINT, SIGTERM) since the beginning.

    Dagster ends a run that is interrupted within a step as failed; an interrupt
    between its steps, or while a run begins or ends, it forgets. Python notes
    every signal here, whatever handler there is. Of threads other than the main
    one, which get no signals, always False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)  # as `signal.set_wakeup_fd` wants it
        noted = bytearray()

        def asked_to_stop() -> bool:
            with suppress(BlockingIOError):  # no signal came
                noted.extend(reader.recv(4096))
            return signal.SIGINT in noted or signal.SIGTERM in noted

        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield asked_to_stop
        finally:
            signal.set_wakeup_fd(before)
