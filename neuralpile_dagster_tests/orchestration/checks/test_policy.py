"""What a failed check means: severities, what blocks, and a row's own severities."""

from __future__ import annotations

import dagster as dg
import pytest

from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.checks.policy import POLICIES, require_known_checks, severity_of
from neuralpile_dagster.checks.session import SESSION_CHECKS
from neuralpile_dagster.checks.verdict import Verdict
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.orchestration import checks
from neuralpile_dagster_tests.orchestration.house import MICE, House, house


def test_every_check_of_a_session_has_a_policy_and_every_policy_a_check() -> None:
    assert set(SESSION_CHECKS) == {name for name, policy in POLICIES.items() if policy.layer == "spike_counts"}


def test_only_errors_block() -> None:
    assert all(policy.severity == "error" for policy in POLICIES.values() if policy.blocking)


def test_every_policy_says_why() -> None:
    assert all(policy.why.endswith(".") for policy in POLICIES.values())


@pytest.mark.parametrize("row", [*RODENT, *SAMPLE], ids=lambda row: row.name)
def test_the_rows_of_the_package_name_known_checks(row) -> None:  # noqa: ANN001
    require_known_checks(row)


def test_a_row_overrides_a_severity_and_with_it_what_blocks() -> None:
    row = MICE.model_copy(update={"severity": {"no_saturated_bins": "error", "spikes_conserved": "warn"}})
    assert severity_of("no_saturated_bins", row) == "error"
    assert severity_of("no_saturated_bins", MICE) == "warn"
    assert not checks.is_blocking("spikes_conserved", row)
    assert checks.is_blocking("spikes_conserved", MICE)
    (evaluation,) = checks.evaluations({"no_saturated_bins": Verdict(False, 0, 3, "look")}, row, "ses-1")
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert evaluation.partition == "ses-1"


def test_a_failed_check_says_expected_found_and_what_to_do_and_a_passed_one_no_advice() -> None:
    failed, passed = (
        checks.results({"no_saturated_bins": Verdict(good, 0, 3, "look at the units", {"lost": 45})}, MICE)[0]
        for good in (False, True)
    )
    assert {name: value.value for name, value in failed.metadata.items()} == {
        "expected": 0,
        "found": 3,
        "lost": 45,
        "what_to_do": "look at the units",
    }
    assert failed.description == "expected 0, found 3"
    assert "what_to_do" not in passed.metadata


def test_a_severity_for_a_check_that_does_not_exist_is_refused_with_the_row_and_the_closest_name() -> None:
    row = MICE.model_copy(update={"severity": {"no_saturated_bin": "error"}})
    with pytest.raises(CatalogError, match=r"row tiny-mice, field severity.*'no_saturated_bins'"):
        require_known_checks(row)


def test_a_check_of_the_pile_cannot_be_overridden_by_a_dataset() -> None:
    with pytest.raises(CatalogError, match="there is no check 'shuffled'"):
        require_known_checks(MICE.model_copy(update={"severity": {"shuffled": "warn"}}))


def test_definitions_do_not_load_with_a_severity_for_an_unknown_check(built: House) -> None:
    row = MICE.model_copy(update={"severity": {"tokens": "error"}})
    with house(built.settings.home, built.archive, [row]) as made, pytest.raises(CatalogError, match="check 'tokens'"):
        _ = made.job


def test_an_overridden_warning_turns_the_check_red_in_a_real_run(built: House) -> None:
    row = MICE.model_copy(update={"severity": {"sessions_expected": "error"}, "sessions_published": 9})
    with house(built.settings.home, built.archive, [row]) as made:
        made.discover(row)
        (said,) = made.checks(dg.AssetKey(["tiny_mice", "manifest"]), "sessions_expected")
    assert (said.passed, said.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert said.metadata["expected"].value == 9
    assert said.metadata["found"].value == 3
