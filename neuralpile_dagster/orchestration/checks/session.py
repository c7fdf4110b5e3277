"""Checks of one session's spike counts. One function is one check."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from neuralpile_dagster.binning.segments import plan_segments
from neuralpile_dagster.errors import TableError
from neuralpile_dagster.orchestration.checks.verdict import Verdict, capped
from neuralpile_dagster.records import CountsRecord, StoredFile
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.footer import read_footer
from neuralpile_dagster.tables.rows import RowReader

SILENT_SHARE = 0.2
"""Share of silent units above which a person should look."""


@dataclass(frozen=True)
class SessionEvidence:
    """What the checks of a session look at: its record, the store it is in, and the inputs hash it should have."""

    record: CountsRecord
    store: Store
    inputs_now: str


def spikes_conserved(evidence: SessionEvidence) -> Verdict:
    """Kept, saturated and dropped spikes add up to the spikes read."""
    stats = evidence.record.stats
    return Verdict(
        passed=stats.unaccounted == 0,
        expected=stats.spikes_read,
        found=stats.spikes_read - stats.unaccounted,
        remedy="this is a defect of binning: report it with the file's name",
        details={
            "kept": stats.spikes_kept,
            "dropped_negative": stats.dropped_negative,
            "dropped_nan": stats.dropped_nan,
            "dropped_beyond_last_edge": stats.dropped_beyond,
            "lost_to_saturation": stats.lost_to_saturation,
        },
    )


def rows_follow_the_contract(evidence: SessionEvidence) -> Verdict:
    """Schema, dtype, units of the first and last segment, and as many units as the units table has."""
    record = evidence.record
    expected = f"{record.stats.n_units} units in every segment, uint8, rows of {record.session_id}"
    try:
        reader = RowReader(evidence.store.open(record.file.key))
        units = read_footer(evidence.store.open(record.units_file.key), record.units_file.key).n_rows
        rows = [reader.row(position) for position in sorted({0, reader.n_rows - 1})]
    except TableError as error:
        return Verdict(False, expected, str(error), "delete the file and materialize the session again")
    wrong = [row.segment_id for row in rows if len(row.counts) != units or row.session_id != record.session_id]
    good = not wrong and units == record.stats.n_units and reader.n_rows == len(record.rows)
    found = f"{units} units in the units table, {reader.n_rows} rows" + (f", wrong: {capped(wrong)}" if wrong else "")
    return Verdict(good, expected, found, "delete the file and materialize the session again")


def segments_cover_the_session(evidence: SessionEvidence) -> Verdict:
    """The segments are those of the rule: every bin exactly once, ids in order."""
    record, stats = evidence.record, evidence.record.stats
    plan = plan_segments(stats.n_units, stats.n_bins, record.max_tokens)
    due = [(segment.id, segment.stop - segment.start) for segment in plan]
    made = [(row.segment_id, row.n_bins) for row in record.rows]
    bins = sum(row.n_bins for row in record.rows)
    return Verdict(
        passed=due == made and bins == stats.n_bins and stats.tokens == stats.n_units * stats.n_bins,
        expected=f"{len(due)} segments, {stats.n_bins} bins",
        found=f"{len(made)} segments, {bins} bins",
        remedy="materialize the session again",
    )


def _digest(store: Store, file: StoredFile) -> str:
    with store.open(file.key) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_is_as_recorded(evidence: SessionEvidence) -> Verdict:
    """The bytes in the store are those that were written."""
    record = evidence.record
    changed = [f.key for f in (record.file, record.units_file) if _digest(evidence.store, f) != f.sha256]
    return Verdict(
        passed=not changed,
        expected=f"sha256 {record.file.sha256[:16]}",
        found=f"changed: {capped(changed)}" if changed else f"sha256 {record.file.sha256[:16]}",
        remedy="delete the file and materialize the session again",
    )


def source_is_as_listed(evidence: SessionEvidence) -> Verdict:
    """The counts were made from the source files that the manifest lists now, with today's code and settings."""
    return Verdict(
        passed=evidence.record.inputs == evidence.inputs_now,
        expected=evidence.inputs_now[:16],
        found=evidence.record.inputs[:16],
        remedy="materialize the session again: its source, the code or a setting changed since",
    )


def no_saturated_bins(evidence: SessionEvidence) -> Verdict:
    """No bin holds more than 255 spikes."""
    stats = evidence.record.stats
    return Verdict(
        passed=stats.saturated_bins == 0,
        expected=0,
        found=stats.saturated_bins,
        remedy="look at the units with the largest counts; a narrower bin width would keep their spikes",
        details={"largest_count": stats.max_count, "spikes_lost": stats.lost_to_saturation},
    )


def few_silent_units(evidence: SessionEvidence) -> Verdict:
    """At most a fifth of the units has no spike."""
    stats = evidence.record.stats
    share = stats.silent_units / max(stats.n_units, 1)
    return Verdict(
        passed=share <= SILENT_SHARE,
        expected=f"at most {SILENT_SHARE:.0%} of {stats.n_units} units",
        found=f"{stats.silent_units} silent units ({share:.1%})",
        remedy="see the units table for their quality labels and obs_intervals",
    )


def plausible_rates(evidence: SessionEvidence) -> Verdict:
    """No unit fires above 1 kHz in any bin."""
    stats = evidence.record.stats
    worst = sorted(stats.implausible_units, key=lambda unit: -unit[1])
    return Verdict(
        passed=stats.implausible_bins == 0,
        expected="no bin above 1 kHz (20 spikes in 20 ms)",
        found=f"{stats.implausible_bins} bins in {len(worst)} units",
        remedy="look at these rows of the units table: noise, or several units merged in sorting",
        details={"rows_and_bins": capped([f"row {row}: {bins} bins" for row, bins in worst])} if worst else {},
    )


def no_duplicate_spikes(evidence: SessionEvidence) -> Verdict:
    """No two spikes of a unit have the same time."""
    stats = evidence.record.stats
    return Verdict(
        passed=stats.duplicate_spikes == 0,
        expected=0,
        found=stats.duplicate_spikes,
        remedy="they count as spikes, as in the published pile; ask the recording's authors",
        details={"share": round(stats.duplicate_spikes / max(stats.spikes_read, 1), 6)},
    )


SESSION_CHECKS = {
    check.__name__: check
    for check in (
        spikes_conserved,
        rows_follow_the_contract,
        segments_cover_the_session,
        file_is_as_recorded,
        source_is_as_listed,
        no_saturated_bins,
        few_silent_units,
        plausible_rates,
        no_duplicate_spikes,
    )
}


def judge(evidence: SessionEvidence) -> dict[str, Verdict]:
    """All verdicts on a session, by the name of the check."""
    return {name: check(evidence) for name, check in SESSION_CHECKS.items()}
