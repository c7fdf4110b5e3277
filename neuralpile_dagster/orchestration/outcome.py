"""What a build did, and why a run failed, as text for the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import dagster as dg

from neuralpile_dagster.orchestration.metadata.summaries import plural


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
            about = f" in {len(sessions)} sessions, e.g. {sessions[0]}" if sessions else ""
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


def _reasons(failed: Mapping[str, str]) -> list[str]:
    """A line for each reason, with the first name of those that failed for it."""
    names_of: dict[str, list[str]] = {}
    for name, reason in failed.items():
        names_of.setdefault(reason, []).append(name)
    return [
        f"  {names[0]}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in names_of.items()
    ]


def reason_of(result: dg.ExecuteInProcessResult) -> str:
    """Reason of a run's failure in one paragraph: our errors without class name, unexpected ones with the run's id."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            message = " ".join((error.cause or error).message.split())
            told = re.sub(r"^(neuralpile_dagster\.errors\.\w+|dagster\.[\w.]*\.Failure): ", "", message)
            return told if told != message else f"{message} (unexpected; the trace is in the UI, run {result.run_id})"
    return f"run {result.run_id} failed; see its log in the UI"
