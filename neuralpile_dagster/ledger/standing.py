"""State of an analysis of a dataset: which sessions are done, due, failed, or made only when a person asks.

What an analysis is, and whether one session's record is up to date, belongs in `analyses`; of a pile's, in
`pile_analyses.standing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import TRANSIENT_WAIT, Analysis, analysis_inputs, is_current, read_analysis
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, map_items


@dataclass(frozen=True)
class AnalysisStanding:
    """State of one analysis of a dataset; ``due`` maps keys to the hash of their inputs, ``failed`` to reasons.

    Sessions whose upstream asset is missing are in neither. ``on_request`` are made only when a person asks.
    """

    analysis: Analysis
    done: int
    due: dict[str, str]
    failed: dict[str, str]
    on_request: frozenset[str] = frozenset()


def analysis_standing(
    store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, manifest: Manifest
) -> AnalysisStanding:
    """Read the state of an analysis; failures with unchanged inputs are not due, transient ones are after an hour."""
    sessions = [session for session in manifest.sessions if not session.vanished]
    failures = documents.read_failures(store, dataset, settings, analysis.name)

    def look(session: Session) -> tuple[str | None, bool, bool]:
        counts = None
        if analysis.made_from == "spike_counts":
            counts = documents.read_counts_record(store, dataset, settings, session.key)
        inputs = analysis_inputs(analysis, dataset, settings, session, counts)
        record = read_analysis(store, dataset, settings, analysis, session.key)
        current = is_current(store, record, inputs)
        return (
            inputs,
            current,
            current or record is not None or _is_automatic(store, dataset, settings, analysis, session),
        )

    done, due, failed, on_request = 0, {}, {}, set()
    for session, (inputs, current, automatic) in zip(sessions, map_items(store, look, sessions), strict=True):
        failure = failures.get(session.key)
        if current:
            done += 1
        elif inputs is None:
            continue
        elif failure is not None and failure.inputs == inputs:
            failed[session.key] = failure.message
            if failure.transient and datetime.now(UTC) - failure.at > TRANSIENT_WAIT:
                due[session.key] = inputs
        elif automatic:
            due[session.key] = inputs
        else:
            on_request.add(session.key)
    return AnalysisStanding(analysis, done, due, failed, frozenset(on_request))


def _is_automatic(store: Store, dataset: Dataset, settings: Settings, analysis: Analysis, session: Session) -> bool:
    """Whether a session that was never analysed is due without a person who asks."""
    if not analysis.on_request:
        return True
    trains = documents.read_trains_record(store, dataset, settings, session.key)
    return trains is not None and trains.annotate
