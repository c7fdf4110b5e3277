"""Verdicts on the sessions of a batch as Dagster events: one per session and check, and one per check on the batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import RecordingError
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks import wiring
from neuralpile_dagster.orchestration.checks.session import SessionEvidence, judge
from neuralpile_dagster.orchestration.checks.verdict import Verdict, capped
from neuralpile_dagster.orchestration.provenance import latest_event


@dataclass
class SessionJudge:
    """Judges the sessions of one run and remembers what was said, by check and session."""

    context: dg.AssetExecutionContext
    dataset: Dataset
    said: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def judge(self, key: str, evidence: SessionEvidence) -> None:
        """Log every check's verdict on a session; raises `RecordingError` when a blocking one failed."""
        verdicts = judge(evidence)
        event = latest_event(self.context.instance, names.spike_counts_key(self.dataset), key)
        for evaluation in wiring.evaluations(verdicts, self.dataset, key, event):
            self.context.log_event(evaluation)
        for name, verdict in verdicts.items():
            self.said.setdefault(name, {})[key] = verdict
        for name, verdict in verdicts.items():
            if not verdict.passed and wiring.is_blocking(name, self.dataset):
                raise RecordingError(
                    f"{key} fails the check {name}",
                    found=str(verdict.found),
                    expected=str(verdict.expected),
                    remedy=verdict.remedy,
                )

    def sum_up(self) -> None:
        """Log a verdict per check on all sessions judged.

        The pages of asset and check show the newest verdict whatever its
        partition is: without this one, that of a session picked by chance.
        """
        verdicts = {name: _together(sessions) for name, sessions in self.said.items()}
        for evaluation in wiring.evaluations(verdicts, self.dataset, None):
            self.context.log_event(evaluation)


def _together(sessions: dict[str, Verdict]) -> Verdict:
    wrong = {key: verdict for key, verdict in sessions.items() if not verdict.passed}
    not_those = capped([f"{key} ({verdict.found})" for key, verdict in wrong.items()], 5)
    return Verdict(
        passed=not wrong,
        expected=f"all {len(sessions)} sessions of this run pass",
        found=f"{len(sessions) - len(wrong)} pass" + (f"; not {not_those}" if wrong else ""),
        remedy=next((verdict.remedy for verdict in wrong.values()), ""),
        details={"note": "verdicts on single sessions are under Partitions"},
    )
