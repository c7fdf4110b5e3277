"""Verdicts on the sessions of a batch as Dagster events: one per session and check, and one per check on all."""

from __future__ import annotations

from dataclasses import dataclass, field

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)

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
        """Log a verdict per check on all sessions of the dataset, those of earlier batches included.

        The pages of asset and check show the newest verdict whatever its
        partition is: without this one, that of a session picked by chance.
        """
        asset, log = names.spike_counts_key(self.dataset), self.context.instance.event_log_storage
        known = self.context.instance.get_dynamic_partitions(f"{self.dataset.key}_sessions")
        partitioned = self.context.has_partition_key or self.context.has_partition_key_range
        batch = self.context.partition_keys if partitioned else []
        verdicts = {}
        for name, said in self.said.items():
            states = {
                state.partition_key: state.latest_execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED
                for state in log.get_asset_check_partition_info([dg.AssetCheckKey(asset, name)])
                # one that is planned only is being made by another run, or failed before it was judged
                if state.latest_execution_status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
            }
            unjudged = [key for key in batch if key not in said]  # what was said of them earlier is of other counts
            passed = {key: states[key] for key in known if key in states and key not in unjudged}
            verdicts[name] = _together(passed, len(known), len(unjudged), said)
        for evaluation in wiring.evaluations(verdicts, self.dataset, None):
            self.context.log_event(evaluation)


def _together(passed: dict[str, bool], known: int, failed: int, said: dict[str, Verdict]) -> Verdict:
    """One verdict from those of each session; ``failed`` sessions of the batch were not judged."""
    wrong = [key for key, fine in passed.items() if not fine]
    not_those = capped([f"{key} ({said[key].found if key in said else 'of an earlier batch'})" for key in wrong], 5)
    waiting = known - len(passed) - failed
    found = f"{len(passed) - len(wrong)} of {known} known sessions pass"
    found += f"; not {not_those}" if wrong else ""
    found += f"; {failed} of this batch failed before they were judged" if failed else ""
    found += f"; {waiting} not judged yet" if waiting > 0 else ""
    return Verdict(
        passed=not wrong,
        expected="every session that was judged passes",
        found=found,
        remedy=next((said[key].remedy for key in wrong if key in said), ""),
        details={"note": "verdicts on single sessions are under Partitions"},
    )
