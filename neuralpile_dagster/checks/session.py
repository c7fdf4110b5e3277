"""Checks of one session's spike counts: that what is stored is what was made, from what the archive lists.

One function is one check, listed in `registry`. Whether spike times can be what they claim belongs in
`plausibility`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralpile_dagster.binning.source import count_source, plan_segments
from neuralpile_dagster.catalog.describe import same_species
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.checks.plausibility import UNKNOWN
from neuralpile_dagster.errors import TableError
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.recordings.model import Recording, SpikeTrains
from neuralpile_dagster.records import CountsRecord, TrainsRecord
from neuralpile_dagster.store import Store, digest_of
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.rows import COUNTS_COLUMN, RowReader
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster.tables.spike_trains import read_units_near
from neuralpile_dagster.tables.units import read_units

SILENT_SHARE = 0.2
"""Share of silent units above which a person should look."""


@dataclass(frozen=True)
class SessionEvidence:
    """What the checks of a session look at: its record, the store it is in, and the inputs hash it should have.

    ``dataset`` is the catalog's row; None where only the stored files are judged. ``trains`` is the record of the
    session's spike trains.
    """

    record: CountsRecord
    store: Store
    inputs_now: str
    dataset: Dataset | None = None
    trains: TrainsRecord | None = None


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


@dataclass(frozen=True)
class _StoredRow:
    """What a counts file says of one row without decoding its counts."""

    subject_id: str
    session_id: str
    segment_id: str
    tokens: int


def _stored_rows(evidence: SessionEvidence) -> list[_StoredRow]:
    key = evidence.record.file.key
    with evidence.store.open(key) as stream:
        file = open_parquet(stream, key)
        require_schema(file.schema_arrow, ROW_SCHEMA, key)
        with damaged(key):
            texts = file.read(columns=[name for name in ROW_SCHEMA.names if name != COUNTS_COLUMN]).to_pylist()
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    if len(groups) != len(texts):
        raise TableError(f"{key} has other row groups than rows", found=f"{len(groups)} groups, {len(texts)} rows")
    # the first column of a group: COUNTS_COLUMN is the first of the schema
    return [_StoredRow(**text, tokens=group.column(0).num_values) for text, group in zip(texts, groups, strict=True)]


def rows_follow_the_contract(evidence: SessionEvidence) -> Verdict:
    """Schema, dtype, ids, and in every row as many units as the units table has.

    Of the first and the last row the counts are read, though not unpacked; for the others the number of values tells.
    """
    record, stats = evidence.record, evidence.record.stats
    expected = f"{stats.n_units} units in each of {plural(len(record.rows), 'row')}, uint8, all of {record.session_id}"
    remedy = "delete the file and materialize the session again"
    try:
        stored = _stored_rows(evidence)
        units = open_parquet(evidence.store.open(record.units_file.key), record.units_file.key).metadata.num_rows
        with RowReader(evidence.store.open(record.file.key), record.file.key) as reader:
            shapes = {position: reader.shape(position) for position in {0, reader.n_rows - 1}}
    except TableError as error:
        return Verdict(False, expected, str(error), remedy)
    wrong = [
        row.segment_id
        for position, (row, due) in enumerate(zip(stored, record.rows, strict=False))
        if (row.subject_id, row.session_id) != (record.subject_id, record.session_id)
        or row.tokens != units * due.n_bins
        or (position in shapes and shapes[position] != (units, due.n_bins))
    ]
    good = not wrong and units == stats.n_units and len(stored) == len(record.rows)
    found = f"{plural(units, 'unit')} in the units table, {plural(len(stored), 'row')}"
    return Verdict(good, expected, found + (f"; wrong: {capped(wrong)}" if wrong else ""), remedy)


def segments_cover_the_session(evidence: SessionEvidence) -> Verdict:
    """The segments in the file are those of the rule: every bin exactly once, ids in order."""
    record, stats = evidence.record, evidence.record.stats
    plan = plan_segments(stats.n_units, stats.n_bins, record.max_tokens)
    due = [(segment.id, segment.n_bins * stats.n_units) for segment in plan]
    expected = f"{plural(len(due), 'segment')}, {stats.n_bins} bins, {sum(tokens for _, tokens in due):,} tokens"
    remedy = "delete the file and materialize the session again"
    try:
        stored = [(row.segment_id, row.tokens) for row in _stored_rows(evidence)]
    except TableError as error:
        return Verdict(False, expected, str(error), remedy)
    recorded = [(row.segment_id, row.n_bins * stats.n_units) for row in record.rows]
    wrong = [f"{name} of {tokens:,} tokens" for name, tokens in [*stored, *recorded] if (name, tokens) not in due]
    return Verdict(
        passed=due == stored == recorded and stats.tokens == stats.n_units * stats.n_bins,
        expected=expected,
        found=f"{plural(len(stored), 'segment')} in the file and {len(recorded)} in its record, {stats.tokens:,} tokens"
        + (f"; wrong: {capped(wrong, 5)}" if wrong else "" if due == stored == recorded else "; not in order"),
        remedy=remedy,
    )


def file_is_as_recorded(evidence: SessionEvidence) -> Verdict:
    """The bytes in the store are those that were written."""
    record = evidence.record
    changed = [f.key for f in (record.file, record.units_file) if digest_of(evidence.store, f) != f.sha256]
    return Verdict(
        passed=not changed,
        expected=f"sha256 {record.file.sha256[:16]}",
        found=f"changed: {capped(changed)}" if changed else f"sha256 {record.file.sha256[:16]}",
        remedy="delete the file and materialize the session again",
    )


SAMPLED_UNITS = 16
"""Units whose stored spikes are binned again; many enough for a wrong page or clock, few enough to take no time."""


def counts_match_spike_trains(evidence: SessionEvidence) -> Verdict:
    """Some units of the stored spike trains, binned again, give the stored counts.

    Counts are made from the recording itself, not from the stored spike trains. The units and the segment that
    are compared bin by bin follow from the digest of the spike trains; of the other segments, the units' totals are.
    """
    record, trains = evidence.record, evidence.trains
    expected = f"{SAMPLED_UNITS} units of the stored spike trains, binned again, with the stored counts"
    remedy = "delete the session's spike trains and materialize the session again"
    if trains is None or trains.inputs != record.trains_inputs:
        return Verdict(True, expected, "not compared: the counts are those of other spike trains")
    clock = record.stats.clock
    try:
        if (size := evidence.store.size(trains.file.key)) != trains.file.size:
            raise TableError(f"{trains.file.key} is not as recorded", found=f"{size} of {trains.file.size} bytes")
        if digest_of(evidence.store, trains.file) != trains.file.sha256:
            raise TableError(f"{trains.file.key} is not as recorded", found="another sha256")
        with evidence.store.open(trains.file.key) as file:
            pick = int(trains.file.sha256[:8], 16)
            first, sample = read_units_near(file, trains.file.key, pick, SAMPLED_UNITS)
        if clock is None and isinstance(sample.data, SpikeTrains) and sample.data.bin_rule == "from_first_spike":
            return Verdict(True, expected, UNKNOWN)
        wrong = _differences(evidence, first, sample, pick, (clock and clock.start_s) or 0.0)
    except (TableError, ValueError) as error:  # a record whose rows are not those of its numbers
        return Verdict(False, expected, str(error), remedy)
    units = f"units {first} to {first + len(sample.units) - 1}"
    return Verdict(not wrong, expected, f"{units}: " + (f"other {capped(wrong)}" if wrong else "as stored"), remedy)


def _differences(evidence: SessionEvidence, first: int, sample: Recording, pick: int, start_s: float) -> list[str]:
    """What differs between a sample of units from ``first`` on, binned again, and the stored counts."""
    from neuralpile_dagster.binning.binner import Binner

    record, key = evidence.record, evidence.record.file.key
    stats, sampled = record.stats, slice(first, first + len(sample.units))
    source = (
        Binner(sample.data, stats.bin_width_s, key, frame=(start_s, stats.n_bins))
        if isinstance(sample.data, SpikeTrains)
        else count_source(sample, stats.bin_width_s, key)
    )
    with evidence.store.open(record.units_file.key) as file:
        stored_totals = read_units(file, record.units_file.key)["n_spikes"].to_numpy()[sampled]
    totals, start, wrong = np.zeros(len(sample.units), np.int64), 0, []
    for number, row in enumerate(record.rows):
        counts = source.counts(start, start + row.n_bins)
        totals += counts.sum(axis=1, dtype=np.int64)
        start += row.n_bins
        if number == pick % len(record.rows):
            with RowReader(evidence.store.open(key), key) as reader:
                if not np.array_equal(reader.row(number).counts[sampled], counts):
                    wrong.append(f"counts in {row.segment_id}")
    return [*wrong, *([] if np.array_equal(totals, stored_totals) else ["totals in the units table"])]


def source_is_as_listed(evidence: SessionEvidence) -> Verdict:
    """The counts were made from the source files that the manifest lists now, with today's code and settings."""
    return Verdict(
        passed=evidence.record.inputs == evidence.inputs_now,
        expected=evidence.inputs_now[:16],
        found=evidence.record.inputs[:16],
        remedy="materialize the session again: its source, the code or a setting changed since",
    )


def subject_and_species_agree(evidence: SessionEvidence) -> Verdict:
    """Path, file and catalog name the same subject and species, where they name any."""
    record, facts = evidence.record, evidence.record.facts
    species = evidence.dataset.species if evidence.dataset else None
    subject_differs = facts.subject is not None and _bare(facts.subject) != _bare(record.subject_id)
    species_differs = bool(species and facts.species) and not same_species(str(species), str(facts.species))
    return Verdict(
        passed=not subject_differs and not species_differs,
        expected="the same subject and species in path, file and catalog",
        found=f"path: subject {record.subject_id}; file: subject {facts.subject or 'not stated'}, "
        f"species {facts.species or 'not stated'}; catalog: species {species or 'not stated'}",
        remedy="find out which is right: rows and units are published with the path's subject; correct `species` of "
        "the catalog row, give `same_session` a (?P<subject>...) group, or leave the session out with `exclude`",
    )


def _bare(subject: str) -> str:
    """A subject's letters and digits, without ``sub-``: archives replace other characters in folder names."""
    return "".join(filter(str.isalnum, subject.casefold().removeprefix("sub-")))


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
        expected=f"at most {SILENT_SHARE:.0%} of {plural(stats.n_units, 'unit')}",
        found=f"{plural(stats.silent_units, 'silent unit')} ({share:.1%})",
        remedy="see the units table for their quality labels and obs_intervals",
    )


def plausible_rates(evidence: SessionEvidence) -> Verdict:
    """No unit fires above 1 kHz in any bin."""
    stats = evidence.record.stats
    worst = sorted(stats.implausible_units, key=lambda unit: -unit[1])
    return Verdict(
        passed=stats.implausible_bins == 0,
        expected="no bin above 1 kHz (20 spikes in 20 ms)",
        found=f"{plural(stats.implausible_bins, 'bin')} in {plural(len(worst), 'unit')}",
        remedy="look at these rows of the units table: noise, or several units merged in sorting",
        details={"rows_and_bins": capped([f"row {row}: {plural(n, 'bin')}" for row, n in worst])} if worst else {},
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
