"""Dagster's log files of what runs print, which the terminal shows as well: `dagster.yaml` names this class.

Dagster's own starts four processes for each run: two `tail -F`, and for each of them a Python that ends it should the
run be killed. They took a fifth of the CPU time of a build with nothing to do; GNU tail ends with a process by itself.
The files are the same: an instance may change between both classes at any time.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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


class LeanComputeLogManager(LocalComputeLogManager):
    """`LocalComputeLogManager` that starts no Python for a run, and nothing where no terminal is to show it."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """``home``: the instance's home, in which the files lie where Dagster's own class has them."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> LeanComputeLogManager:
        """Make the manager of an instance; called by Dagster."""
        return cls(str(Path(config_value["home"]) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Write what this process prints to the files of a run, and show it where it would have gone."""
        if sys.platform != "linux":  # whose tail need not be GNU's
            with super().capture_logs(log_key) as context:
                yield context
            return
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
    """Copy what is written to a file to where a stream leads now."""
    try:
        terminal = stream.fileno()
    except io.UnsupportedOperation:  # a stream in memory, which is not redirected either
        yield
        return
    follows = subprocess.Popen(["tail", "-f", "-c", "+0", f"--pid={os.getpid()}", str(path)], stdout=terminal)
    try:
        yield
    finally:
        follows.terminate()
        follows.wait()
