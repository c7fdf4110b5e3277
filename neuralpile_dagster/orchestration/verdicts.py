"""What the checks of spike counts say of all sessions of a dataset, kept as the newest verdict of each check.

The UI shows the newest event of a check, whatever it is about: one session, or a run that ended before it judged any.
Here belongs making that event one about all sessions; what a check finds in one session belongs in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.checks.registry import checks_of, is_blocking, judge
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.errors import RecordingError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.checks import evaluations, is_about, latest_event
from neuralpile_dagster.orchestration.private_dagster import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
    PartitionKeyFilter,
)
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store

CHECKS = tuple(check.name for check in checks_of("spike_counts"))
NAMED = 5
"""Sessions that fail a check named in its verdict; all of them are in the check's execution history."""


@dataclass(frozen=True)
class Judged:
    """The last verdict of a check on a session, and the run that gave it."""

    passed: bool
    run_id: str


@dataclass(frozen=True)
class _Sessions:
    """A dataset's sessions: their keys, the last verdicts of each check, and the runs in which sessions failed."""

    instance: dg.DagsterInstance
    dataset: Dataset
    known: Sequence[str]
    judged: Mapping[str, dict[str, Judged]]
    failed_in: dict[str, str]

    @classmethod
    def read(
        cls, instance: dg.DagsterInstance, store: Store, settings: Settings, dataset: Dataset, checks: Sequence[str]
    ) -> _Sessions:
        """As they are now; the verdicts are of these checks."""
        known, judged = names.known_sessions(instance, dataset), _last_verdicts(instance, dataset, checks)
        failures = documents.read_failures(store, dataset, settings)
        return cls(instance, dataset, known, judged, {key: failure.run_id for key, failure in failures.items()})

    def note(self, key: str, verdicts: Mapping[str, Verdict], run_id: str) -> None:
        """Take new verdicts on a session."""
        for name, verdict in verdicts.items():
            self.judged[name][key] = Judged(verdict.passed, run_id)
        self.failed_in.pop(key, None)  # an earlier run

    def some_fail(self, check: str) -> bool:
        """Whether any session fails a check."""
        return any(not last.passed for last in self.judged[check].values())

    def verdict(self, check: str) -> Verdict:
        """Combine the last verdicts on single sessions; those that failed since were not judged again."""
        known, judged, failed_in = self.known, self.judged[check], self.failed_in
        unjudged = [k for k in known if k in failed_in and (k not in judged or judged[k].run_id != failed_in[k])]
        last = {key: judged[key] for key in known if key in judged and key not in unjudged}
        wrong = [key for key, verdict in last.items() if not verdict.passed]
        said = {key: self._last_words(check, key) for key in wrong[:NAMED]}
        waiting = len(known) - len(last) - len(unjudged)
        not_those = capped([f"{key} ({said[key][0]})" if key in said else key for key in wrong], NAMED)
        found = f"{len(last) - len(wrong)} of {len(known)} known sessions pass"
        found += f"; not {not_those}" if wrong else ""
        found += f"; {len(unjudged)} failed before they were judged" if unjudged else ""
        found += f"; {waiting} not judged yet" if waiting else ""
        return Verdict(
            passed=not wrong,
            expected="every checked session passes",
            found=found,
            remedy=next((remedy for _, remedy in said.values() if remedy), ""),
            details={"note": "verdicts on single sessions are in the execution history"},
        )

    def _last_words(self, check: str, key: str) -> tuple[str, str]:
        """What a check found in a session, and the remedy."""
        history = self.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(names.spike_counts_key(self.dataset), check),
            1,
            partition_filter=PartitionKeyFilter(key=key),
        )
        said = history[0].evaluation if history else None
        if said is None:
            return "", ""
        remedy = said.metadata.get("what_to_do")
        return _found(said), str(remedy.value) if remedy else ""


@dataclass
class SessionJudge:
    """Run the checks on the sessions of one run, and log their verdicts.

    Parameters
    ----------
    context : dagster.AssetExecutionContext or dagster.OpExecutionContext
    dataset : Dataset
    store : Store
    settings : Settings
    """

    context: dg.AssetExecutionContext | dg.OpExecutionContext
    dataset: Dataset
    store: Store
    settings: Settings

    @cached_property
    def _sessions(self) -> _Sessions:
        """As at the run's first verdict, and what the run has judged since: no session reads those of all others."""
        return _Sessions.read(self.context.instance, self.store, self.settings, self.dataset, CHECKS)

    def judge(self, key: str, evidence: SessionEvidence) -> None:
        """Log every check's verdict on a session; raises `RecordingError` when a blocking one failed."""
        verdicts = judge("spike_counts", evidence)
        event = latest_event(self.context.instance, names.spike_counts_key(self.dataset), key)
        self._sessions.note(key, verdicts, self.context.run.run_id)
        for evaluation in evaluations(verdicts, self.dataset, key, event):
            self._log(evaluation)
        if hidden := [name for name, verdict in verdicts.items() if verdict.passed and self._sessions.some_fail(name)]:
            # until the end of the run, the UI would show that the check passed
            said = {name: self._sessions.verdict(name) for name in hidden}
            keep_newest(self.context.instance, self.store, self.settings, self.dataset, hidden, said)
        for name, verdict in verdicts.items():
            if not verdict.passed and is_blocking(name, self.dataset):
                raise RecordingError(
                    f"{key} fails the check {name}",
                    found=str(verdict.found),
                    expected=str(verdict.expected),
                    remedy=verdict.remedy,
                )

    def note_failure(self, key: str) -> None:
        """Take note that a session failed in this run, whether it was judged before or not."""
        self._sessions.failed_in[key] = self.context.run.run_id

    def finish(self) -> None:
        """Log a verdict per check on all sessions of the dataset, those of earlier runs and failed ones included."""
        sessions = _Sessions.read(self.context.instance, self.store, self.settings, self.dataset, CHECKS)
        verdicts = {name: sessions.verdict(name) for name in CHECKS}
        event = latest_event(self.context.instance, names.spike_counts_key(self.dataset))
        for evaluation in evaluations(verdicts, self.dataset, None, event):
            self._log(evaluation)  # the run's own, which without it would be "Execution failed"
        keep_newest(self.context.instance, self.store, self.settings, self.dataset, verdicts=verdicts)

    def _log(self, evaluation: dg.AssetCheckEvaluation) -> None:
        self.context.log_event(evaluation)  # type: ignore[arg-type, unused-ignore]  # of ops too: asset contexts are those


def keep_newest(
    instance: dg.DagsterInstance,
    store: Store,
    settings: Settings,
    dataset: Dataset,
    checks: Sequence[str] = CHECKS,
    verdicts: Mapping[str, Verdict] | None = None,
) -> list[str]:
    """Report the verdict on all sessions where the UI does not show it; return the names of those checks.

    It shows a check's newest event, if that is about the newest materialization.
    Left alone are checks that never ran, and, so that a run in progress is shown
    as such, those that a run is about to make. ``verdicts`` are those on all
    sessions where they are known already, which saves a query per check.
    """
    keys = {name: dg.AssetCheckKey(names.spike_counts_key(dataset), name) for name in checks}
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    ran = [name for name, key in keys.items() if key in newest]
    if not ran:
        return []
    wrong = {}
    event = latest_event(instance, names.spike_counts_key(dataset))
    if verdicts is None:
        sessions = _Sessions.read(instance, store, settings, dataset, ran)
        verdicts = {name: sessions.verdict(name) for name in ran}
    for name in ran:
        verdict, record = verdicts[name], newest[keys[name]]
        if record.status not in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES:
            run = instance.get_run_by_id(record.run_id)
            shown = run is not None and not run.is_finished
        else:
            said = record.evaluation
            about_all = said is not None and said.partition is None and _found(said) == str(verdict.found)
            shown = about_all and is_about(record, event)
        if not shown:
            wrong[name] = verdict
    for evaluation in evaluations(wrong, dataset, None, event):
        instance.report_runless_asset_event(evaluation)
    return list(wrong)


def _last_verdicts(
    instance: dg.DagsterInstance, dataset: Dataset, checks: Sequence[str]
) -> dict[str, dict[str, Judged]]:
    keys = [dg.AssetCheckKey(names.spike_counts_key(dataset), name) for name in checks]
    found: dict[str, dict[str, Judged]] = {name: {} for name in checks}
    for state in instance.event_log_storage.get_asset_check_partition_info(keys):
        # earlier versions planned a check for each session: not completed where the session failed
        if state.partition_key and state.latest_execution_status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES:
            passed = state.latest_execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED
            found[state.check_key.name][state.partition_key] = Judged(passed, state.latest_planned_run_id)
    return found


def _found(said: dg.AssetCheckEvaluation) -> str:
    found = said.metadata.get("found")
    return str(found.value) if found else ""
