"""Dagster's local logs of what runs print, with helper processes that a Ctrl-C in a terminal does not reach.

What a run prints goes into files in the home and, by ``tail``, to the terminal. Which logs an instance keeps is a line
of its ``dagster.yaml``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dagster import StringSource

from neuralpile_dagster.orchestration.private_dagster import ConfigurableClassData, UserConfigSchema
from neuralpile_dagster.orchestration.private_storage import CapturedLogContext, LocalComputeLogManager


class QuietComputeLogManager(LocalComputeLogManager):
    """`LocalComputeLogManager` whose helpers get no SIGINT: one of them prints a traceback, the other stops showing.

    Dagster ends both when a step ends, and they end when its process does.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """``home``: the instance's home, in which the files lie where Dagster's own class has them."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> QuietComputeLogManager:
        """Make the manager of an instance; called by Dagster."""
        return cls(str(Path(config_value["home"]) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Capture what this process prints, as Dagster does."""
        with ExitStack() as stack:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
            try:
                captured = stack.enter_context(super().capture_logs(log_key))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield captured
