"""Every check as one row: what it judges, how severe it is when it fails, whether it blocks, why, and its function.

Asset check specs, verdicts and the severities that a catalog row may override (``severity: {tokens_published: warn}``)
derive from these rows: a new check is one function and one row. What a check looks at belongs in its function.
"""

from __future__ import annotations

from typing import Any

from neuralpile_dagster.catalog.model import Dataset, Severity
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.checks import dataset, motifs, pile, plausibility, session
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.model import Check, Layer, Verdict
from neuralpile_dagster.checks.motifs import MadeEvidence
from neuralpile_dagster.checks.pile import PileEvidence
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.errors import CatalogError, did_you_mean
from neuralpile_dagster.hub.model import LoadableHub
from neuralpile_dagster.ledger.pile_analyses.model import PileAnalysis, PlannedPile
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store

MANIFEST_CHECKS: tuple[Check[ManifestEvidence], ...] = (
    Check(
        "sessions_expected",
        "manifest",
        "warn",
        False,
        "Live dandisets grow and shrink; the number published once is a reference, not a requirement.",
        lambda e: dataset.sessions_expected(e.dataset, e.manifest),
    ),
    Check(
        "subjects_published",
        "manifest",
        "warn",
        False,
        "Some published subject counts are those of the whole dandiset.",
        lambda e: dataset.subjects_published(e.dataset, e.manifest),
    ),
    Check(
        "no_session_vanished",
        "manifest",
        "warn",
        False,
        "Results of a vanished session stay published until a person drops them.",
        lambda e: dataset.no_session_vanished(e.manifest),
    ),
)
SESSION_CHECKS: tuple[Check[SessionEvidence], ...] = (
    Check(
        "spikes_conserved",
        "spike_counts",
        "error",
        True,
        "A spike that is neither kept nor counted as lost means that binning is wrong.",
        session.spikes_conserved,
    ),
    Check(
        "rows_follow_the_contract",
        "spike_counts",
        "error",
        True,
        "Code trained on the published pile reads exactly this schema.",
        session.rows_follow_the_contract,
    ),
    Check(
        "segments_cover_the_session",
        "spike_counts",
        "error",
        True,
        "Missing or doubled bins are wrong data for every user.",
        session.segments_cover_the_session,
    ),
    Check(
        "file_is_as_recorded",
        "spike_counts",
        "error",
        True,
        "A file that changed after it was made is damaged or not ours.",
        session.file_is_as_recorded,
    ),
    Check(
        "counts_match_spike_trains",
        "spike_counts",
        "error",
        True,
        "Counts are made from the recording in memory: damage to its stored copy would not show in them.",
        session.counts_match_spike_trains,
    ),
    Check(
        "source_is_as_listed",
        "spike_counts",
        "warn",
        False,
        "The archive lists other bytes than the ones that were read: made from an old file.",
        session.source_is_as_listed,
    ),
    Check(
        "subject_and_species_agree",
        "spike_counts",
        "warn",
        False,
        "Rows are published with the path's subject and cards with a species; the file may name others.",
        session.subject_and_species_agree,
    ),
    Check(
        "no_saturated_bins",
        "spike_counts",
        "warn",
        False,
        "More than 255 spikes in a bin is not physiology; the published pile has none.",
        session.no_saturated_bins,
    ),
    Check(
        "few_silent_units",
        "spike_counts",
        "warn",
        False,
        "Silent units are tokens too, but many of them hint at a wrong unit table.",
        session.few_silent_units,
    ),
    Check(
        "plausible_rates",
        "spike_counts",
        "warn",
        False,
        "Above 1 kHz (20 spikes per 20 ms bin) a unit is noise or badly sorted.",
        session.plausible_rates,
    ),
    Check(
        "no_duplicate_spikes",
        "spike_counts",
        "warn",
        False,
        "Equal spike times within a unit come from merging; they count as spikes here.",
        session.no_duplicate_spikes,
    ),
    Check(
        "spikes_are_in_bins",
        "spike_counts",
        "warn",
        False,
        "Spikes dropped for their times (negative, NaN) hint at times relative to trials, or another clock.",
        lambda e: plausibility.spikes_are_in_bins(e.record.stats),
    ),
    Check(
        "plausible_clock",
        "spike_counts",
        "warn",
        False,
        "Times that fall back, are all whole numbers, or end far behind the others are not seconds of one clock.",
        lambda e: plausibility.plausible_clock(e.record.stats),
    ),
    Check(
        "time_is_observed",
        "spike_counts",
        "warn",
        False,
        "The zeros of bins before the first spike, or outside obs_intervals, are not measurements.",
        lambda e: plausibility.time_is_observed(e.record.stats),
    ),
)
COMPONENT_CHECKS: tuple[Check[ComponentEvidence], ...] = (
    Check(
        "no_sessions_left_failed",
        "hub_dataset",
        "warn",
        False,
        "The publishing step itself refuses below min_session_share; this names the rest.",
        lambda e: dataset.no_sessions_left_failed(e.manifest, list(e.records), e.failed),
    ),
    Check(
        "tokens_published",
        "hub_dataset",
        "warn",
        False,
        "The published numbers are another build's; a difference needs a reason, not a stop.",
        lambda e: dataset.tokens_published(e.dataset, e.published),
    ),
    Check(
        "no_twin_sessions",
        "hub_dataset",
        "warn",
        False,
        "The same spikes twice weigh double in training and leak from train to test.",
        lambda e: dataset.no_twin_sessions(e.records),
    ),
    Check(
        "sessions_resemble_each_other",
        "hub_dataset",
        "warn",
        False,
        "A session far from its dataset's median rate or length was read with another clock, or unit of time.",
        lambda e: plausibility.sessions_resemble_each_other(e.records),
    ),
    Check(
        "card_counts_equal_footers",
        "hub_dataset",
        "error",
        True,
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
    ),
    Check(
        "hub_equals_record",
        "hub_dataset",
        "error",
        True,
        "Files on the hub that we did not publish, or lack, are not our dataset.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.published.shards),
    ),
    Check(
        "component_reads_back",
        "hub_dataset",
        "error",
        False,
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "spike_times_give_the_counts",
        "hub_dataset",
        "error",
        False,
        "Published spike times are those that the published counts were made from, or users compare two datasets.",
        lambda e: dataset.spike_times_give_the_counts(e.hub, e.published, e.dataset.max_session_tokens),
    ),
    Check(
        "hub_dataset_is_current",
        "hub_dataset",
        "warn",
        False,
        "Sessions made again since the last publication are not in it.",
        lambda e: dataset.hub_dataset_is_current(e.published, e.inputs_now),
    ),
)
PILE_CHECKS: tuple[Check[PileEvidence], ...] = (
    Check(
        "tokens_equal_components",
        "pile",
        "error",
        True,
        "A merge neither adds nor loses data.",
        lambda e: pile.tokens_equal_components(e.published, e.plan),
    ),
    Check(
        "every_row_exactly_once",
        "pile",
        "error",
        True,
        "A merge neither adds nor loses data.",
        lambda e: pile.every_row_exactly_once(e.plan),
    ),
    Check(
        "train_and_test_disjoint",
        "pile",
        "error",
        True,
        "Leakage makes every reported score worthless.",
        lambda e: pile.train_and_test_disjoint(e.plan),
    ),
    Check(
        "split_sizes",
        "pile",
        "error",
        True,
        "The card states the split that users compare results on.",
        lambda e: pile.split_sizes(e.plan),
    ),
    Check(
        "split_is_stable",
        "pile",
        "error",
        True,
        "A model trained on the train split published before would be tested on what it has seen.",
        lambda e: pile.split_is_stable(e.plan, e.earlier),
    ),
    Check(
        "benchmarks_in_train",
        "pile",
        "warn",
        False,
        "A model trained on the pile and tested on a public benchmark would be tested on what it has seen.",
        lambda e: pile.benchmarks_in_train(e.published, e.benchmarks),
    ),
    Check(
        "shuffled",
        "pile",
        "warn",
        False,
        "Neighbouring rows of one component bias training that reads in order.",
        lambda e: pile.shuffled(e.plan),
    ),
    Check(
        "card_counts_equal_pile",
        "pile",
        "error",
        True,
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
    ),
    Check(
        "pile_is_as_published",
        "pile",
        "error",
        True,
        "What users load must be what was planned.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, pile.shards_of(e.published)),
    ),
    Check(
        "pile_reads_back",
        "pile",
        "error",
        False,
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "counts_as_published",
        "pile",
        "warn",
        False,
        "The values of the published pile's tokens are the only outside measure of what the whole pile contains.",
        lambda e: pile.counts_as_published(e.published, e.settings),
    ),
)
MOTIF_CHECKS: tuple[Check[MadeEvidence], ...] = (
    Check(
        "motif_frequencies_sum_to_patches",
        "motifs",
        "error",
        True,
        "Probabilities are shares of all patches; a patch that is lost or doubled makes all of them wrong.",
        lambda e: motifs.frequencies_sum_to_patches(e.record),
    ),
    Check(
        "motif_spikes_conserved",
        "motifs",
        "error",
        True,
        "Padding adds no spike and cutting loses none: the motifs hold what the rows hold.",
        motifs.motif_spikes_conserved,
    ),
    Check(
        "silence_counted_again",
        "motifs",
        "error",
        True,
        "Silence is most of all patches, and no file lists it: it is only counted.",
        motifs.silence_counted_again,
    ),
    Check(
        "motif_table_in_order",
        "motifs",
        "error",
        True,
        "A vocabulary is the first rows of the table.",
        motifs.motif_table_in_order,
    ),
    Check(
        "card_counts_equal_motifs",
        "motifs_hub_dataset",
        "error",
        True,
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
    ),
    Check(
        "motifs_are_as_published",
        "motifs_hub_dataset",
        "error",
        True,
        "What users load must be what was counted.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.record.shards),
    ),
    Check(
        "motifs_read_back",
        "motifs_hub_dataset",
        "error",
        False,
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
    Check(
        "lossless_share_as_stated",
        "tokens_hub_dataset",
        "error",
        True,
        "The card states how much of the pile decodes to what it was; the motif table says it independently.",
        motifs.lossless_share_as_stated,
    ),
    Check(
        "tokens_decode_to_counts",
        "tokens_hub_dataset",
        "error",
        True,
        "Tokens are worth what they decode to.",
        motifs.tokens_decode_to_counts,
    ),
    Check(
        "card_counts_equal_tokens",
        "tokens_hub_dataset",
        "error",
        True,
        "A wrong num_examples breaks load_dataset for every user.",
        lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
    ),
    Check(
        "tokens_are_as_published",
        "tokens_hub_dataset",
        "error",
        True,
        "What users load must be what was encoded.",
        lambda e: dataset.hub_equals_record(e.hub, e.repository_name, e.record.shards),
    ),
    Check(
        "tokens_read_back",
        "tokens_hub_dataset",
        "error",
        False,
        "What load_dataset gives to users must be what was made.",
        lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
    ),
)
ALL_CHECKS: tuple[Check[Any], ...] = (
    *MANIFEST_CHECKS,
    *SESSION_CHECKS,
    *COMPONENT_CHECKS,
    *PILE_CHECKS,
    *MOTIF_CHECKS,
)
CHECKS = {check.name: check for check in ALL_CHECKS}


def checks_of(layer: Layer) -> list[Check[Any]]:
    """The checks of one layer, in the order of the table."""
    return [check for check in CHECKS.values() if check.layer == layer]


def judge_manifest(dataset: Dataset, manifest: Manifest) -> dict[str, Verdict]:
    """All verdicts on a manifest, by the name of the check."""
    evidence = ManifestEvidence(dataset, manifest)
    return {check.name: check.run(evidence) for check in MANIFEST_CHECKS}


def judge_session(evidence: SessionEvidence) -> dict[str, Verdict]:
    """All verdicts on a session's spike counts, by the name of the check."""
    return {check.name: check.run(evidence) for check in SESSION_CHECKS}


def judge_component(evidence: ComponentEvidence) -> dict[str, Verdict]:
    """All verdicts on a published component, by the name of the check."""
    return {check.name: check.run(evidence) for check in COMPONENT_CHECKS}


def judge_pile(store: Store, of: Pile, settings: Settings, hub: LoadableHub) -> dict[str, Verdict]:
    """All verdicts on a published pile, by the name of the check."""
    evidence = pile.read_evidence(store, of, settings, hub)
    return {check.name: check.run(evidence) for check in PILE_CHECKS}


def judge_made(of: PlannedPile, row: PileAnalysis, hub: LoadableHub) -> dict[str, Verdict]:
    """All verdicts on something made of a pile, by the name of the check."""
    evidence = motifs.read_evidence(of, row, hub)
    return {check.name: check.run(evidence) for check in MOTIF_CHECKS if check.layer == row.checks}


def require_known_checks(dataset: Dataset) -> None:
    """Raise `CatalogError` when a row's ``severity`` names a check that a dataset does not have."""
    known = [check.name for check in CHECKS.values() if check.layer in ("manifest", "spike_counts", "hub_dataset")]
    for name in dataset.severity:
        if name not in known:
            raise CatalogError(
                f"the catalog's row {dataset.name}, field severity: there is no check {name[:60]!r}",
                expected=f"one of {', '.join(known)}",
                remedy=did_you_mean(name, known) or "correct or remove it",
            )


def severity_of(name: str, dataset: Dataset | None) -> Severity:
    """The severity of a check, with the dataset's own override."""
    if dataset is not None and name in dataset.severity:
        return dataset.severity[name]
    return CHECKS[name].severity


def is_blocking(name: str, dataset: Dataset | None) -> bool:
    """Whether a failure of the check stops what is downstream: a warning never does."""
    return CHECKS[name].blocking and severity_of(name, dataset) == "error"
