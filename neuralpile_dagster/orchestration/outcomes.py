"""What became of a build's runs, in words for the terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import dagster as dg


@dataclass
class Outcome:
    """What a build did: a line per thing made, failed checks that only warn, a reason per thing that failed.

    ``warnings`` maps an asset's check to the sessions concerned and what it said of the first one.
    """

    made: list[str] = field(default_factory=list)
    warnings: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """All of it as text."""
        lines = [*self.made]
        for check, (sessions, said) in self.warnings.items():
            about = f" in {len(sessions)} sessions, e.g. {sessions[0]}" if sessions else ""
            lines.append(f"warning: {check}{about}: {said}")
        if self.failed:
            lines += [f"{len(self.failed)} failed:", *(f"  {name}: {why}" for name, why in self.failed.items())]
        return "\n".join(lines)


def reason_of(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed, in one paragraph: our own errors without the name of their class, others with the run's id."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            message = " ".join((error.cause or error).message.split())
            told = re.sub(r"^(neuralpile_dagster\.errors\.\w+|dagster\.[\w.]*\.Failure): ", "", message)
            return told if told != message else f"{message} (unexpected; the trace is in the UI, run {result.run_id})"
    return f"run {result.run_id} failed; see its log in the UI"
