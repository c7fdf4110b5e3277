"""Checks of a manifest and of a published component: each with examples that pass and fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from neuralpile_dagster.checks import dataset as checks
from neuralpile_dagster.checks.dataset import ComponentEvidence, ManifestEvidence
from neuralpile_dagster.checks.registry import CHECKS, judge
from neuralpile_dagster.errors import DamagedRecording
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.documents import done_records
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster_tests.fixtures.house import MICE, SESSIONS, House
from neuralpile_dagster_tests.fixtures.sessions import manifest_of


@pytest.fixture(scope="module")
def evidence(built: House) -> ComponentEvidence:
    """What lies behind the published mice."""
    from neuralpile_dagster.hub import open_hub

    manifest = documents.read_manifest(built.store, MICE)
    return ComponentEvidence(
        dataset=MICE,
        manifest=manifest,
        records=done_records(built.store, MICE, built.settings, manifest),
        failed={},
        published=documents.require_published(built.store, MICE, built.settings),
        hub=open_hub(built.settings),
        repository_name="tiny-mice",
        folder=built.settings.home / "staging" / MICE.name,
    )


def row(**changes: Any) -> Any:
    return MICE.model_copy(update=changes)


def test_the_built_mice_pass_all_but_what_the_catalog_states_otherwise(evidence: ComponentEvidence) -> None:
    verdicts = judge("manifest", ManifestEvidence(MICE, evidence.manifest)) | judge("hub_dataset", evidence)
    assert sorted(verdicts) == sorted(n for n, p in CHECKS.items() if p.layer in ("manifest", "hub_dataset"))
    assert [name for name, verdict in verdicts.items() if not verdict.passed] == ["tokens_published"]


@pytest.mark.parametrize(("stated", "passed"), [(3, True), (2, False), (4, False), (None, True)])
def test_the_number_of_sessions_is_compared_with_the_catalog(stated: int | None, passed: bool) -> None:
    manifest = manifest_of("a", "b", "c", dropped={"metadata has no Units": 5})
    verdict = checks.sessions_expected(row(sessions_published=stated), manifest)
    assert (verdict.passed, verdict.found) == (passed, 3)
    assert verdict.details["files_dropped"] == {"metadata has no Units": 5}


def test_the_expected_number_of_sessions_goes_before_the_published_one() -> None:
    dataset = row(sessions_published=74, sessions_expected=3)
    assert checks.sessions_expected(dataset, manifest_of("a", "b", "c")).passed


def test_vanished_sessions_do_not_count_as_found() -> None:
    verdict = checks.sessions_expected(row(sessions_published=3), vanish(manifest_of("a", "b", "c"), "c"))
    assert (verdict.passed, verdict.expected, verdict.found) == (False, 3, 2)


def test_other_numbers_of_subjects_inform_and_never_fail() -> None:
    manifest = manifest_of("a", "b")
    verdict = checks.subjects_published(row(subjects_published=17), manifest)
    assert verdict.passed
    assert (verdict.expected, verdict.found) == (17, 1)
    assert "whole source" in verdict.details["note"]
    assert checks.subjects_published(row(subjects_published=1), manifest).details == {}


def test_a_session_that_the_archive_no_longer_lists_fails_and_is_named() -> None:
    assert checks.no_session_vanished(manifest_of("a", "b")).passed
    verdict = checks.no_session_vanished(vanish(manifest_of("a", "b"), "b"))
    assert (verdict.passed, verdict.found) == (False, "b")


def test_a_session_whose_key_another_one_has_now_fails_and_is_named_with_its_subject() -> None:
    gone = manifest_of("a").sessions[0].model_copy(update={"subject_id": "sub-9", "vanished": True})
    verdict = checks.no_session_vanished(manifest_of("a", "b").model_copy(update={"replaced": (gone,)}))
    assert not verdict.passed
    assert verdict.found == f"{gone.session_id} of sub-9 (another session has its key now)"


def test_failed_and_unbuilt_sessions_are_named_with_reasons_and_the_list_is_capped() -> None:
    keys = [f"s{number}" for number in range(9)]
    error = DamagedRecording("s3.nwb is truncated", found="5 bytes", remedy="fetch it again")
    verdict = checks.no_sessions_left_failed(manifest_of(*keys), ["s0"], {"s3": str(error)})
    assert not verdict.passed
    assert verdict.found == "8 without: s1, s2, s3, s4, s5 and 3 more"
    paragraphs = str(verdict.details["reasons"]).splitlines()
    assert paragraphs[:3] == ["s1: not built yet", "s2: not built yet", f"s3: {error}"]
    assert len(paragraphs) == 5
    assert checks.no_sessions_left_failed(manifest_of("a"), ["a"], {}).passed


def test_a_vanished_session_that_was_never_built_is_not_left_to_do() -> None:
    verdict = checks.no_sessions_left_failed(vanish(manifest_of("a", "b"), "b"), ["a"], {})
    assert verdict.passed
    assert verdict.expected == "1 session with spike counts"


def test_tokens_that_differ_from_the_published_number_fail_with_the_exact_difference(
    evidence: ComponentEvidence,
) -> None:
    tokens = evidence.published.totals.tokens
    verdict = checks.tokens_published(row(tokens_published=tokens - 3), evidence.published)
    assert (verdict.passed, verdict.expected, verdict.found) == (False, tokens - 3, tokens)
    assert verdict.details["difference"] == 3
    assert checks.tokens_published(row(tokens_published=tokens), evidence.published).passed
    assert checks.tokens_published(row(tokens_published=None), evidence.published).passed


def test_known_doubts_about_a_published_number_are_what_to_do(evidence: ComponentEvidence) -> None:
    dataset = row(tokens_published=1, notes=("another page says 1,830,825,994",))
    assert checks.tokens_published(dataset, evidence.published).remedy == "another page says 1,830,825,994"


def test_two_sessions_with_the_same_spikes_fail_and_are_named_together(evidence: ComponentEvidence) -> None:
    first, second, third = (evidence.records[key] for key in SESSIONS)
    twin = second.model_copy(update={"stats": first.stats})
    verdict = checks.no_twin_sessions({"a": first, "b": twin, "c": third})
    assert (verdict.passed, verdict.found) == (False, "a = b")
    assert checks.no_twin_sessions(evidence.records).passed


@pytest.mark.parametrize(
    "change", ["a session was made anew", "a session was added", "the title changed", "the source's version changed"]
)
def test_a_publication_is_not_current_after(evidence: ComponentEvidence, change: str) -> None:
    first = evidence.records[SESSIONS[0]]
    fewer = {key: record for key, record in evidence.records.items() if key != SESSIONS[0]}
    anew = first.model_copy(update={"file": first.file.model_copy(update={"sha256": "0" * 64})})
    changed = {
        "a session was made anew": replace(evidence, records={**evidence.records, SESSIONS[0]: anew}),
        "a session was added": replace(evidence, records=fewer),
        "the title changed": replace(evidence, dataset=row(title="Other mice")),
        "the source's version changed": replace(
            evidence, manifest=evidence.manifest.model_copy(update={"version": "2"})
        ),
    }[change]
    assert not is_current(changed)


def test_listing_the_same_files_again_leaves_a_publication_current(evidence: ComponentEvidence) -> None:
    later = evidence.manifest.listed_at.replace(year=2040)
    changed = replace(evidence, manifest=evidence.manifest.model_copy(update={"listed_at": later}))
    assert is_current(changed)


def is_current(evidence: ComponentEvidence) -> bool:
    return CHECKS["hub_dataset_is_current"].run(evidence).passed


def vanish(manifest: Manifest, *keys: str) -> Manifest:
    sessions = [s.model_copy(update={"vanished": s.key in keys}) for s in manifest.sessions]
    return manifest.model_copy(update={"sessions": tuple(sessions)})
