"""Every check as one row: what it judges, how severe it is when it fails, why, its function, and whether it blocks.

Asset check specs, verdicts and the severities that a catalog row may override (``severity: {tokens_published: warn}``)
derive from these rows: a new check is one function and one row. What a check looks at belongs in its function, running
the checks in `judging`.
"""

from __future__ import annotations

from typing import Any

from neuralpile_dagster.checks import dataset, motifs, pile, plausibility, session
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.model import Check
from neuralpile_dagster.checks.motifs import MadeEvidence
from neuralpile_dagster.checks.pile import PileEvidence
from neuralpile_dagster.checks.session import SessionEvidence

MANIFEST_CHECKS: tuple[Check[ManifestEvidence], ...] = (
    Check(
        "sessions_expected",
        "manifest",
        "warn",
        "Live dandisets grow and shrink; the number published once is a reference, not a requirement.",
        lambda e: dataset.sessions_expected(e.dataset, e.manifest),
    ),
    Check(
        "subjects_published",
        "manifest",
        "warn",
        "Some published subject counts are those of the whole dandiset.",
        lambda e: dataset.subjects_published(e.dataset, e.manifest),
    ),
    Check(
        "no_session_vanished",
        "manifest",
        "warn",
        "Results of a vanished session stay published until a person drops them.",
        lambda e: dataset.no_session_vanished(e.manifest),
    ),
)
SESSION_CHECKS: tuple[Check[SessionEvidence], ...] = (
    Check(
        "spikes_conserved",
        "spike_counts",
        "error",
        "A spike that is neither kept nor counted as lost means that binning is wrong.",
        session.spikes_conserved,
        blocking=True,
    ),
    Check(
        "rows_follow_the_contract",
        "spike_counts",
        "error",
        "Code trained on the published pile reads exactly this schema.",
        session.rows_follow_the_contract,
        blocking=True,
    ),
    Check(
        "segments_cover_the_session",
        "spike_counts",
        "error",
        "Missing or doubled bins are wrong data for every user.",
        session.segments_cover_the_session,
        blocking=True,
    ),
    Check(
        "file_is_as_recorded",
        "spike_counts",
        "error",
        "A file that changed after it was made is damaged or not ours.",
        session.file_is_as_recorded,
        blocking=True,
    ),
    Check(
        "counts_match_spike_trains",
        "spike_counts",
        "error",
        "Counts are made from the recording in memory: damage to its stored copy would not show in them.",
        session.counts_match_spike_trains,
        blocking=True,
    ),
    Check(
        "source_is_as_listed",
        "spike_counts",
        "warn",
        "The archive lists other bytes than the ones that were read: made from an old file.",
        session.source_is_as_listed,
    ),
    Check(
        "subject_and_species_agree",
        "spike_counts",
        "warn",
        "Rows are published with the path's subject and cards with a species; the file may name others.",
        session.subject_and_species_agree,
    ),
    Check(
        "no_saturated_bins",
        "spike_counts",
        "warn",
        "More than 255 spikes in a bin is not physiology; the published pile has none.",
        session.no_saturated_bins,
    ),
    Check(
        "few_silent_units",
        "spike_counts",
        "warn",
        "Silent units are tokens too, but many of them hint at a wrong unit table.",
        session.few_silent_units,
    ),
    Check(
        "plausible_rates",
        "spike_counts",
        "warn",
        "Above 1 kHz (20 spikes per 20 ms bin) a unit is noise or badly sorted.",
        session.plausible_rates,
    ),
    Check(
        "no_duplicate_spikes",
        "spike_counts",
        "warn",
        "Equal spike times within a unit come from merging; they count as spikes here.",
        session.no_duplicate_spikes,
    ),
    Check(
        "spikes_are_in_bins",
        "spike_counts",
        "warn",
        "Spikes dropped for their times (negative, NaN) hint at times relative to trials, or another clock.",
        lambda e: plausibility.spikes_are_in_bins(e.record.stats),
    ),
    Check(
        "plausible_clock",
        "spike_counts",
        "warn",
        "Times that fall back, are all whole numbers, or end far behind the others are not seconds of one clock.",
        lambda e: plausibility.plausible_clock(e.record.stats),
    ),
    Check(
        "time_is_observed",
        "spike_counts",
        "warn",
        "The zeros of bins before the first spike, or outside obs_intervals, are not measurements.",
        lambda e: plausibility.time_is_observed(e.record.stats),
    ),
)
COMPONENT_CHECKS: tuple[Check[ComponentEvidence], ...] = (
    Check(
        "no_sessions_left_failed",
        "hub_dataset",
        "warn",
        "The publishing step itself refuses below min_session_share; this names the rest.",
        lambda e: dataset.no_sessions_left_failed(e.manifest, list(e.records), e.failed),
    ),
    Check(
        "tokens_published",
        "hub_dataset",
        "warn",
        "The published numbers are another build's; a difference needs a reason, not a stop.",
        lambda e: dataset.tokens_published(e.dataset, e.published),
    ),
    Check(
        "no_twin_sessions",
        "hub_dataset",
        "warn",
        "The same spikes twice weigh double in training and leak from train to test.",
        lambda e: dataset.no_twin_sessions(e.records),
    ),
    Check(
        "sessions_resemble_each_other",
        "hub_dataset",
        "warn",
        "A session far from its dataset's median rate or length was read with another clock, or unit of time.",
        lambda e: plausibility.sessions_resemble_each_other(e.records),
    ),
    Check(
        "card_counts_equal_footers",
        "hub_dataset",
        "error",
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
        blocking=True,
    ),
    Check(
        "hub_equals_record",
        "hub_dataset",
        "error",
        "Files on the hub that we did not publish, or lack, are not our dataset.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.published.shards),
        blocking=True,
    ),
    Check(
        "component_reads_back",
        "hub_dataset",
        "error",
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "spike_times_give_the_counts",
        "hub_dataset",
        "error",
        "Published spike times are those that the published counts were made from, or users compare two datasets.",
        lambda e: dataset.spike_times_give_the_counts(e.hub, e.published, e.dataset.max_session_tokens),
    ),
    Check(
        "hub_dataset_is_current",
        "hub_dataset",
        "warn",
        "Sessions made again since the last publication are not in it.",
        lambda e: dataset.hub_dataset_is_current(e.published, e.inputs_now),
    ),
)
PILE_CHECKS: tuple[Check[PileEvidence], ...] = (
    Check(
        "tokens_equal_components",
        "pile",
        "error",
        "A merge neither adds nor loses data.",
        lambda e: pile.tokens_equal_components(e.published, e.plan),
        blocking=True,
    ),
    Check(
        "every_row_exactly_once",
        "pile",
        "error",
        "A merge neither adds nor loses data.",
        lambda e: pile.every_row_exactly_once(e.plan),
        blocking=True,
    ),
    Check(
        "train_and_test_disjoint",
        "pile",
        "error",
        "Leakage makes every reported score worthless.",
        lambda e: pile.train_and_test_disjoint(e.plan),
        blocking=True,
    ),
    Check(
        "split_sizes",
        "pile",
        "error",
        "The card states the split that users compare results on.",
        lambda e: pile.split_sizes(e.plan),
        blocking=True,
    ),
    Check(
        "split_is_stable",
        "pile",
        "error",
        "A model trained on the train split published before would be tested on what it has seen.",
        lambda e: pile.split_is_stable(e.plan, e.earlier),
        blocking=True,
    ),
    Check(
        "benchmarks_in_train",
        "pile",
        "warn",
        "A model trained on the pile and tested on a public benchmark would be tested on what it has seen.",
        lambda e: pile.benchmarks_in_train(e.published, e.benchmarks),
    ),
    Check(
        "shuffled",
        "pile",
        "warn",
        "Neighbouring rows of one component bias training that reads in order.",
        lambda e: pile.shuffled(e.plan),
    ),
    Check(
        "card_counts_equal_pile",
        "pile",
        "error",
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
        blocking=True,
    ),
    Check(
        "pile_is_as_published",
        "pile",
        "error",
        "What users load must be what was planned.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, pile.shards_of(e.published)),
        blocking=True,
    ),
    Check(
        "pile_reads_back",
        "pile",
        "error",
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "counts_as_published",
        "pile",
        "warn",
        "The values of the published pile's tokens are the only outside measure of what the whole pile contains.",
        lambda e: pile.counts_as_published(e.published, e.settings),
    ),
)
MOTIF_CHECKS: tuple[Check[MadeEvidence], ...] = (
    Check(
        "motif_frequencies_sum_to_patches",
        "motifs",
        "error",
        "Probabilities are shares of all patches; a patch that is lost or doubled makes all of them wrong.",
        lambda e: motifs.frequencies_sum_to_patches(e.record),
        blocking=True,
    ),
    Check(
        "motif_spikes_conserved",
        "motifs",
        "error",
        "Padding adds no spike and cutting loses none: the motifs hold what the rows hold.",
        motifs.motif_spikes_conserved,
        blocking=True,
    ),
    Check(
        "silence_counted_again",
        "motifs",
        "error",
        "Silence is most of all patches, and no file lists it: it is only counted.",
        motifs.silence_counted_again,
        blocking=True,
    ),
    Check(
        "motif_table_in_order",
        "motifs",
        "error",
        "A vocabulary is the first rows of the table.",
        motifs.motif_table_in_order,
        blocking=True,
    ),
    Check(
        "card_counts_equal_motifs",
        "motifs_hub_dataset",
        "error",
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
        blocking=True,
    ),
    Check(
        "motifs_are_as_published",
        "motifs_hub_dataset",
        "error",
        "What users load must be what was counted.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.record.shards),
        blocking=True,
    ),
    Check(
        "motifs_read_back",
        "motifs_hub_dataset",
        "error",
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "lossless_share_as_stated",
        "tokens_hub_dataset",
        "error",
        "The card states how much of the pile decodes to what it was; the motif table says it independently.",
        motifs.lossless_share_as_stated,
        blocking=True,
    ),
    Check(
        "tokens_decode_to_counts",
        "tokens_hub_dataset",
        "error",
        "Tokens are worth what they decode to.",
        motifs.tokens_decode_to_counts,
        blocking=True,
    ),
    Check(
        "card_counts_equal_tokens",
        "tokens_hub_dataset",
        "error",
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
        blocking=True,
    ),
    Check(
        "tokens_are_as_published",
        "tokens_hub_dataset",
        "error",
        "What users load must be what was encoded.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.record.shards),
        blocking=True,
    ),
    Check(
        "tokens_read_back",
        "tokens_hub_dataset",
        "error",
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
)
ALL_CHECKS: tuple[Check[Any], ...] = (*MANIFEST_CHECKS, *SESSION_CHECKS, *COMPONENT_CHECKS, *PILE_CHECKS, *MOTIF_CHECKS)
CHECKS = {check.name: check for check in ALL_CHECKS}
