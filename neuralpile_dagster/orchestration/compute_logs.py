"""Dagster's log files of what runs print, which the terminal shows as well: `dagster.yaml` names this class.

Dagster's own starts four processes for each run, whatever it prints: two `tail -F`, and for each of them a Python that
ends it should the run be killed. That was a fifth of the CPU time of a build with nothing to do; and `tail`, which
looks once a second where there is no inotify, may lose the last lines. Here a thread per stream copies what was
printed. The files are the same: an instance may change between both classes at any time.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from dagster import StringSource

from neuralpile_dagster.orchestration.private_dagster import ConfigurableClassData, UserConfigSchema
from neuralpile_dagster.orchestration.private_storage import (
    IO_TYPE_EXTENSION,
    CapturedLogContext,
    ComputeIOType,
    LocalComputeLogManager,
    redirect_to_file,
)

COPY_EVERY_S = 0.1
"""How late the terminal shows a line."""


class ThreadedComputeLogManager(LocalComputeLogManager):
    """`LocalComputeLogManager` that starts no process."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """``home``: the instance's home, in which the files lie where Dagster's own class has them."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> ThreadedComputeLogManager:
        """Make the manager of an instance; called by Dagster."""
        return cls(str(Path(config_value["home"]) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Write what this process prints to the files of a run, and show it where it would have gone."""
        with ExitStack() as stack:
            for stream, kind in ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR)):
                path = Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                stack.enter_context(_shown(path, stream))
                stack.enter_context(redirect_to_file(stream, str(path)))
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()


@contextmanager
def _shown(path: Path, stream: TextIO) -> Iterator[None]:
    """Copy what is written to an empty file to where a stream leads now; all of it when this ends."""
    try:
        terminal = os.dup(stream.fileno())
    except io.UnsupportedOperation:  # a stream in memory, which Dagster does not redirect either
        yield
        return
    ended = threading.Event()

    def copy() -> None:
        # OSError: nobody reads the other end any more; the file has all of it
        with suppress(OSError), os.fdopen(terminal, "wb") as target, path.open("rb") as written:
            while True:
                last = ended.wait(COPY_EVERY_S)
                shutil.copyfileobj(written, target)
                target.flush()
                if last:
                    return

    thread = threading.Thread(target=copy, name=f"shows {path.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
