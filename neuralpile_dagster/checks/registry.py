"""Every check as one row: what it judges, how severe it is when it fails, why, its function, and whether it blocks.

Asset check specs, verdicts and the severities that a catalog row may override (``severity: {tokens_published: warn}``)
derive from these rows: a new check is one function and one row. What a check looks at belongs in its function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from neuralpile_dagster.catalog.model import Dataset, Severity
from neuralpile_dagster.checks import dataset, motifs, pile, plausibility, session
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.model import Check, Layer, Verdict
from neuralpile_dagster.checks.motifs import MadeEvidence
from neuralpile_dagster.checks.pile import PileEvidence
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.errors import CatalogError, did_you_mean
from neuralpile_dagster.records import ShardRecord

_manifest = partial(Check[ManifestEvidence], "manifest")
_session = partial(Check[SessionEvidence], "spike_counts")
_component = partial(Check[ComponentEvidence], "hub_dataset")
_pile = partial(Check[PileEvidence], "pile")
_table = partial(Check[MadeEvidence], "motifs")
_tokens = partial(Check[MadeEvidence], "tokens_hub_dataset")


def _published(
    layer: Layer, names: tuple[str, str, str], why: str, shards: Callable[[Any], Sequence[ShardRecord]]
) -> tuple[Check[Any], ...]:
    """Three checks that every publication has: of its card, its files (and ``why``), and what users read."""
    card, files, reads_back = names
    return (
        Check(
            layer,
            card,
            "error",
            "A wrong num_examples breaks load_dataset for every user.",
            lambda e: dataset.card_counts_equal_footers(e.hub, e.repository_name),
            blocking=True,
        ),
        Check(
            layer,
            files,
            "error",
            why,
            lambda e: dataset.hub_equals_record(e.hub, e.repository_name, shards(e)),
            blocking=True,
        ),
        Check(
            layer,
            reads_back,
            "error",
            "What load_dataset gives to users must be what was made.",
            lambda e: dataset.users_read_what_was_made(e.hub, e.repository_name, e.folder),
        ),
    )


MANIFEST_CHECKS: tuple[Check[ManifestEvidence], ...] = (
    _manifest(
        "sessions_expected",
        "warn",
        "Live dandisets grow and shrink; the number published once is a reference, not a requirement.",
        lambda e: dataset.sessions_expected(e.dataset, e.manifest),
    ),
    _manifest(
        "subjects_published",
        "warn",
        "Some published subject counts are those of the whole dandiset.",
        lambda e: dataset.subjects_published(e.dataset, e.manifest),
    ),
    _manifest(
        "no_session_vanished",
        "warn",
        "Results of a vanished session stay published until a person drops them.",
        lambda e: dataset.no_session_vanished(e.manifest),
    ),
)
SESSION_CHECKS: tuple[Check[SessionEvidence], ...] = (
    _session(
        "spikes_conserved",
        "error",
        "A spike that is neither kept nor counted as lost means that binning is wrong.",
        session.spikes_conserved,
        blocking=True,
    ),
    _session(
        "rows_follow_the_contract",
        "error",
        "Code trained on the published pile reads exactly this schema.",
        session.rows_follow_the_contract,
        blocking=True,
    ),
    _session(
        "segments_cover_the_session",
        "error",
        "Missing or doubled bins are wrong data for every user.",
        session.segments_cover_the_session,
        blocking=True,
    ),
    _session(
        "file_is_as_recorded",
        "error",
        "A file that changed after it was made is damaged or not ours.",
        session.file_is_as_recorded,
        blocking=True,
    ),
    _session(
        "counts_match_spike_trains",
        "error",
        "Counts are made from the recording in memory: damage to its stored copy would not show in them.",
        session.counts_match_spike_trains,
        blocking=True,
    ),
    _session(
        "source_is_as_listed",
        "warn",
        "The archive lists other bytes than the ones that were read: made from an old file.",
        session.source_is_as_listed,
    ),
    _session(
        "subject_and_species_agree",
        "warn",
        "Rows are published with the path's subject and cards with a species; the file may name others.",
        session.subject_and_species_agree,
    ),
    _session(
        "no_saturated_bins",
        "warn",
        "More than 255 spikes in a bin is not physiology; the published pile has none.",
        session.no_saturated_bins,
    ),
    _session(
        "few_silent_units",
        "warn",
        "Silent units are tokens too, but many of them hint at a wrong unit table.",
        session.few_silent_units,
    ),
    _session(
        "plausible_rates",
        "warn",
        "Above 1 kHz (20 spikes per 20 ms bin) a unit is noise or badly sorted.",
        session.plausible_rates,
    ),
    _session(
        "no_duplicate_spikes",
        "warn",
        "Equal spike times within a unit come from merging; they count as spikes here.",
        session.no_duplicate_spikes,
    ),
    _session(
        "spikes_are_in_bins",
        "warn",
        "Spikes dropped for their times (negative, NaN) hint at times relative to trials, or another clock.",
        lambda e: plausibility.spikes_are_in_bins(e.record.stats),
    ),
    _session(
        "plausible_clock",
        "warn",
        "Times that fall back, are all whole numbers, or end far behind the others are not seconds of one clock.",
        lambda e: plausibility.plausible_clock(e.record.stats),
    ),
    _session(
        "time_is_observed",
        "warn",
        "The zeros of bins before the first spike, or outside obs_intervals, are not measurements.",
        lambda e: plausibility.time_is_observed(e.record.stats),
    ),
)
COMPONENT_CHECKS: tuple[Check[ComponentEvidence], ...] = (
    _component(
        "no_sessions_left_failed",
        "warn",
        "The publishing step itself refuses below min_session_share; this names the rest.",
        lambda e: dataset.no_sessions_left_failed(e.manifest, list(e.records), e.failed),
    ),
    _component(
        "tokens_published",
        "warn",
        "The published numbers are another build's; a difference needs a reason, not a stop.",
        lambda e: dataset.tokens_published(e.dataset, e.published),
    ),
    _component(
        "no_twin_sessions",
        "warn",
        "The same spikes twice weigh double in training and leak from train to test.",
        lambda e: dataset.no_twin_sessions(e.records),
    ),
    _component(
        "sessions_resemble_each_other",
        "warn",
        "A session far from its dataset's median rate or length was read with another clock, or unit of time.",
        lambda e: dataset.sessions_resemble_each_other(e.records),
    ),
    *_published(
        "hub_dataset",
        ("card_counts_equal_footers", "hub_equals_record", "component_reads_back"),
        "Files on the hub that we did not publish, or lack, are not our dataset.",
        lambda e: e.published.shards,
    ),
    _component(
        "spike_times_give_the_counts",
        "error",
        "Published spike times are those that the published counts were made from, or users compare two datasets.",
        lambda e: dataset.spike_times_give_the_counts(e.hub, e.published, e.dataset.max_session_tokens),
    ),
    _component(
        "hub_dataset_is_current",
        "warn",
        "Sessions made again since the last publication are not in it.",
        lambda e: dataset.hub_dataset_is_current(e.published, e.inputs_now),
    ),
)
PILE_CHECKS: tuple[Check[PileEvidence], ...] = (
    _pile(
        "tokens_equal_components",
        "error",
        "A merge neither adds nor loses data.",
        lambda e: pile.tokens_equal_components(e.published, e.plan),
        blocking=True,
    ),
    _pile(
        "every_row_exactly_once",
        "error",
        "A merge neither adds nor loses data.",
        lambda e: pile.every_row_exactly_once(e.plan),
        blocking=True,
    ),
    _pile(
        "train_and_test_disjoint",
        "error",
        "Leakage makes every reported score worthless.",
        lambda e: pile.train_and_test_disjoint(e.plan),
        blocking=True,
    ),
    _pile(
        "split_sizes",
        "error",
        "The card states the split that users compare results on.",
        lambda e: pile.split_sizes(e.plan),
        blocking=True,
    ),
    _pile(
        "split_is_stable",
        "error",
        "A model trained on the train split published before would be tested on what it has seen.",
        lambda e: pile.split_is_stable(e.plan, e.earlier),
        blocking=True,
    ),
    _pile(
        "benchmarks_in_train",
        "warn",
        "A model trained on the pile and tested on a public benchmark would be tested on what it has seen.",
        lambda e: pile.benchmarks_in_train(e.published, e.benchmarks),
    ),
    _pile(
        "shuffled",
        "warn",
        "Neighbouring rows of one component bias training that reads in order.",
        lambda e: pile.shuffled(e.plan),
    ),
    *_published(
        "pile",
        ("card_counts_equal_pile", "pile_is_as_published", "pile_reads_back"),
        "What users load must be what was planned.",
        lambda e: pile.shards_of(e.published),
    ),
    _pile(
        "counts_as_published",
        "warn",
        "The values of the published pile's tokens are the only outside measure of what the whole pile contains.",
        lambda e: pile.counts_as_published(e.published, e.settings),
    ),
)
MOTIF_CHECKS: tuple[Check[MadeEvidence], ...] = (
    _table(
        "motif_frequencies_sum_to_patches",
        "error",
        "Probabilities are shares of all patches; a patch that is lost or doubled makes all of them wrong.",
        lambda e: motifs.frequencies_sum_to_patches(e.record),
        blocking=True,
    ),
    _table(
        "motif_spikes_conserved",
        "error",
        "Padding adds no spike and cutting loses none: the motifs hold what the rows hold.",
        motifs.motif_spikes_conserved,
        blocking=True,
    ),
    _table(
        "silence_counted_again",
        "error",
        "Silence is most of all patches, and no file lists it: it is only counted.",
        motifs.silence_counted_again,
        blocking=True,
    ),
    _table(
        "motif_table_in_order",
        "error",
        "A vocabulary is the first rows of the table.",
        motifs.motif_table_in_order,
        blocking=True,
    ),
    *_published(
        "motifs_hub_dataset",
        ("card_counts_equal_motifs", "motifs_are_as_published", "motifs_read_back"),
        "What users load must be what was counted.",
        lambda e: e.record.shards,
    ),
    _tokens(
        "lossless_share_as_stated",
        "error",
        "The card states how much of the pile decodes to what it was; the motif table says it independently.",
        motifs.lossless_share_as_stated,
        blocking=True,
    ),
    _tokens(
        "tokens_decode_to_counts",
        "error",
        "Tokens are worth what they decode to.",
        motifs.tokens_decode_to_counts,
        blocking=True,
    ),
    *_published(
        "tokens_hub_dataset",
        ("card_counts_equal_tokens", "tokens_are_as_published", "tokens_read_back"),
        "What users load must be what was encoded.",
        lambda e: e.record.shards,
    ),
)
ALL_CHECKS: tuple[Check[Any], ...] = (*MANIFEST_CHECKS, *SESSION_CHECKS, *COMPONENT_CHECKS, *PILE_CHECKS, *MOTIF_CHECKS)
CHECKS = {check.name: check for check in ALL_CHECKS}


def checks_of(layer: str) -> list[Check[Any]]:
    """The checks of one layer, in the order of the table."""
    return [check for check in ALL_CHECKS if check.layer == layer]


def judge(layer: str, evidence: Any) -> dict[str, Verdict]:
    """All verdicts of a layer on its evidence, by the name of the check."""
    return {check.name: check.run(evidence) for check in checks_of(layer)}


def require_known_checks(row: Dataset) -> None:
    """Raise `CatalogError` when a row's ``severity`` names a check that a dataset does not have."""
    known = [name for name, check in CHECKS.items() if check.layer in ("manifest", "spike_counts", "hub_dataset")]
    for name in row.severity:
        if name not in known:
            raise CatalogError(
                f"the catalog's row {row.name}, field severity: there is no check {name[:60]!r}",
                expected=f"one of {', '.join(known)}",
                remedy=did_you_mean(name, known) or "correct or remove it",
            )


def severity_of(name: str, row: Dataset | None) -> Severity:
    """The severity of a check, with the dataset's own override."""
    return (row.severity if row else {}).get(name, CHECKS[name].severity)


def is_blocking(name: str, row: Dataset | None) -> bool:
    """Whether a failure of the check stops what is downstream: a warning never does."""
    return CHECKS[name].blocking and severity_of(name, row) == "error"
