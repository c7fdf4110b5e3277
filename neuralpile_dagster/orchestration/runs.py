"""Runs of assets in this process, and their outcome as text for the command line.

Which runs make a dataset or a pile belongs in `launch`.
"""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration import names

_QUIET: dict[str, Any] = {"loggers": {"progress": {}}}


@dataclass
class Outcome:
    """What a build did: a line per thing made, failed checks that only warn, a reason per thing that failed.

    ``warnings`` maps an asset's check to the sessions concerned and its message about the first one. ``sessions`` are
    the sessions that failed; where they keep a dataset from being published, it is among the ``failed``.
    """

    made: list[str] = field(default_factory=list)
    warnings: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """The outcome as text."""
        lines = [*self.made]
        for check, (sessions, said) in self.warnings.items():
            about = f" in {plural(len(sessions), 'session')}, e.g. {sessions[0]}" if sessions else ""
            lines.append(f"warning: {check}{about}: {self._without_reasons(said)}")
        if self.sessions:
            lines += [f"{plural(len(self.sessions), 'session')} failed:", *_reasons(self.sessions)]
        if self.failed:
            other = "other failure" if self.sessions else "failure"
            failed = {name: self._without_reasons(reason) for name, reason in self.failed.items()}
            lines += [f"{plural(len(failed), other)}:", *_reasons(failed)]
        return "\n".join(lines)

    def _without_reasons(self, text: str) -> str:
        """The text without the reasons of failed sessions, which the summary lists once."""
        for reason in filter(None, self.sessions.values()):
            text = text.replace(f": {reason}", "")
        return text


class Runner:
    """Run assets on an instance, in this process, and collect the outcomes."""

    def __init__(
        self, instance: dg.DagsterInstance, job: dg.JobDefinition, tags: Mapping[str, str] | None = None
    ) -> None:
        self.instance = instance
        self.job = job
        self.tags = dict(tags or {})
        self.outcome = Outcome()

    def run(
        self,
        keys: Sequence[dg.AssetKey],
        partitions: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Run assets for a contiguous range of partitions (or unpartitioned); return the reason if the run failed.

        Raises `KeyboardInterrupt` when the user stopped it: Dagster ends the run and would continue.
        """
        with watch_interrupts() as stop_requested:
            result = self.job.execute_in_process(
                instance=self.instance,
                asset_selection=list(keys),
                tags={**self.tags, **(names.range_tags(partitions) if partitions else {})},
                run_config={**_QUIET, **({"ops": config} if config else {})},
                raise_on_error=False,
            )
            if stop_requested():
                raise KeyboardInterrupt
        for evaluation in result.get_asset_check_evaluations():
            self._note(evaluation)
        return None if result.success else _reason_of(result)

    def run_batches(
        self, key: dg.AssetKey, partitions: dg.PartitionsDefinition[str], wanted: set[str], size: int
    ) -> list[str]:
        """Run an asset for the wanted partitions, batch after batch; return the reasons of the runs that failed."""
        batches = names.contiguous_batches(self.instance, partitions, wanted, size)
        return [reason for batch in batches if (reason := self.run([key], batch))]

    def fail(self, key: dg.AssetKey, reason: str) -> None:
        """Record why an asset is not made."""
        self.outcome.failed[key.to_user_string()] = reason

    def _note(self, evaluation: dg.AssetCheckEvaluation) -> None:
        """Record a failed check as a warning; one that fails a session is reported as that session's failure."""
        if evaluation.passed:
            return
        name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
        said = (evaluation.description or "").removeprefix(f"{evaluation.partition}: ")
        if evaluation.severity == dg.AssetCheckSeverity.WARN:
            sessions, _ = self.outcome.warnings.setdefault(name, ([], said))
            sessions += [evaluation.partition] if evaluation.partition else []
        elif evaluation.asset_key.path[-1] != "spike_counts":
            self.outcome.failed[name] = evaluation.description or "the check failed"


@contextmanager
def watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether this process has received SIGINT or SIGTERM since the beginning.

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
        writer.setblocking(False)  # required by `signal.set_wakeup_fd`
        noted = bytearray()

        def stop_requested() -> bool:
            with suppress(BlockingIOError):  # no signal came
                noted.extend(reader.recv(4096))
            return signal.SIGINT in noted or signal.SIGTERM in noted

        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield stop_requested
        finally:
            signal.set_wakeup_fd(before)


def _reasons(failed: Mapping[str, str]) -> list[str]:
    """A line for each reason, with the first name of those that failed for it."""
    failed_for: dict[str, list[str]] = {}
    for name, reason in failed.items():
        failed_for.setdefault(reason, []).append(name)
    return [
        f"  {first}{f' and {len(others):,} more' if others else ''}: {reason}"
        for reason, (first, *others) in failed_for.items()
    ]


def _reason_of(result: dg.ExecuteInProcessResult) -> str:
    """Reason of a run's failure in one paragraph: our errors without class name, unexpected ones with the run's id."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            message = " ".join((error.cause or error).message.split())
            told = re.sub(r"^(neuralpile_dagster\.errors\.\w+|dagster\.[\w.]*\.Failure): ", "", message)
            return told if told != message else f"{message} (unexpected; the trace is in the UI, run {result.run_id})"
    return f"run {result.run_id} failed; see its log in the UI"
