"""What a failed check means: the one table of severities. Which check finds what is in the other modules.

``error`` turns the asset red; ``warn`` yellow. ``blocking`` also stops what is
downstream in the same run. A catalog row overrides severities by check name
(``severity: {tokens_published: warn}``).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from neuralpile_dagster.catalog.model import Dataset, Severity
from neuralpile_dagster.errors import CatalogError

Layer = Literal["manifest", "spike_trains", "spike_counts", "hub_dataset", "pile"]


@dataclass(frozen=True)
class Policy:
    """How severe a failed check is, whether it blocks, and why."""

    layer: Layer
    severity: Severity
    blocking: bool
    why: str


POLICIES: dict[str, Policy] = {
    # manifest
    "sessions_expected": Policy(
        "manifest", "warn", False, "Live dandisets grow and shrink; the number published once is a reference, no law."
    ),
    "subjects_published": Policy(
        "manifest", "warn", False, "Some published subject counts are those of the whole dandiset."
    ),
    "no_session_vanished": Policy(
        "manifest", "warn", False, "Results of a vanished session stay published until a person drops them."
    ),
    # one session
    "spikes_conserved": Policy(
        "spike_counts", "error", True, "A spike that is neither kept nor counted as lost means that binning is wrong."
    ),
    "rows_follow_the_contract": Policy(
        "spike_counts", "error", True, "Code trained on the published pile reads exactly this schema."
    ),
    "segments_cover_the_session": Policy(
        "spike_counts", "error", True, "Missing or doubled bins are wrong data for every user."
    ),
    "file_is_as_recorded": Policy(
        "spike_counts", "error", True, "A file that changed after it was made is damaged or not ours."
    ),
    "source_is_as_listed": Policy(
        "spike_counts",
        "warn",
        False,
        "The archive lists other bytes than the ones that were read: made from an old file.",
    ),
    "no_saturated_bins": Policy(
        "spike_counts", "warn", False, "More than 255 spikes in a bin is not physiology; the published pile has none."
    ),
    "few_silent_units": Policy(
        "spike_counts", "warn", False, "Silent units are tokens too, but many of them hint at a wrong unit table."
    ),
    "plausible_rates": Policy(
        "spike_counts", "warn", False, "Above 1 kHz (20 spikes per 20 ms bin) a unit is noise or badly sorted."
    ),
    "no_duplicate_spikes": Policy(
        "spike_counts", "warn", False, "Equal spike times within a unit come from merging; they count as spikes here."
    ),
    # one dataset
    "no_sessions_left_failed": Policy(
        "hub_dataset", "warn", False, "The publishing step itself refuses below min_session_share; this names the rest."
    ),
    "tokens_published": Policy(
        "hub_dataset",
        "warn",
        False,
        "The published numbers are another build's; a difference needs a reason, not a stop.",
    ),
    "no_twin_sessions": Policy(
        "hub_dataset", "warn", False, "The same spikes twice weigh double in training and leak from train to test."
    ),
    "card_counts_equal_footers": Policy(
        "hub_dataset", "error", True, "A wrong num_examples breaks load_dataset for every user."
    ),
    "hub_equals_record": Policy(
        "hub_dataset", "error", True, "Files on the hub that we did not publish, or lack, are not our dataset."
    ),
    "component_reads_back": Policy(
        "hub_dataset", "error", False, "What load_dataset gives to users must be what was made."
    ),
    "hub_dataset_is_current": Policy(
        "hub_dataset", "warn", False, "Sessions made anew since the last publication are not in it."
    ),
    # the pile
    "tokens_equal_components": Policy("pile", "error", True, "A merge neither adds nor loses data."),
    "every_row_exactly_once": Policy("pile", "error", True, "A merge neither adds nor loses data."),
    "train_and_test_disjoint": Policy("pile", "error", True, "Leakage makes every reported score worthless."),
    "split_sizes": Policy("pile", "error", True, "The card states the split that users compare results on."),
    "shuffled": Policy("pile", "warn", False, "Neighbouring rows of one component bias training that reads in order."),
    "card_counts_equal_pile": Policy("pile", "error", True, "A wrong num_examples breaks load_dataset for every user."),
    "pile_is_as_published": Policy("pile", "error", True, "What users load must be what was planned."),
    "pile_reads_back": Policy("pile", "error", False, "What load_dataset gives to users must be what was made."),
}


def require_known_checks(dataset: Dataset) -> None:
    """Raise `CatalogError` when a row's ``severity`` names a check that a dataset does not have."""
    known = [name for name, policy in POLICIES.items() if policy.layer != "pile"]
    for name in dataset.severity:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise CatalogError(
                f"the catalog's row {dataset.name}, field severity: there is no check {name[:60]!r}",
                expected=f"one of {', '.join(known)}",
                remedy=f"did you mean {close[0]!r}?" if close else "correct or remove it",
            )


def severity_of(check: str, dataset: Dataset | None) -> Severity:
    """The severity of a check, with the dataset's own override."""
    if dataset is not None and check in dataset.severity:
        return dataset.severity[check]
    return POLICIES[check].severity
