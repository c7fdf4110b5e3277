"""Dagster's UI as a person uses it: real server, daemon and runs, Chromium clicks and reads."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from neuralpile_dagster_tests.fixtures.house import Ran
from neuralpile_dagster_tests.fixtures.ui import processes, server
from neuralpile_dagster_tests.ui.conftest import DAMAGED, GOOD, SESSIONS, Running, Site

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow_first]
GRAPH = "/locations/neuralpile_dagster.definitions/asset-groups/ui_mice/lineage"
CHECKS = "/assets/ui_mice/spike_counts?view=checks"
PARTITIONS = "/assets/ui_mice/spike_counts?view=partitions"


def width(image: Locator) -> int:
    """Pixels of a picture that the browser could decode."""
    expect(image).to_be_visible()
    return int(image.evaluate("picture => picture.naturalWidth"))


def test_the_asset_graph_shows_the_four_assets_of_a_dataset(site: Site) -> None:
    page = site.go(GRAPH)
    for asset in ("manifest", "spike_trains", "spike_counts", "hub_dataset"):
        expect(page.get_by_text(asset, exact=True).filter(visible=True).first).to_be_visible()


def test_a_manifest_materialized_with_a_click_lists_its_sessions(launched: Site) -> None:
    page = launched.wait("/assets/ui_mice/manifest", "sessions_table")
    expect(page.get_by_text("3 sessions of 2 subjects in 3 files")).to_be_visible()
    for session in SESSIONS:
        expect(page.get_by_role("cell", name=session, exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="https://dandiarchive.org/dandiset/990301").first).to_be_visible()


def test_a_failed_check_shows_both_numbers_and_what_to_do(launched: Site) -> None:
    page = launched.wait("/assets/ui_mice/manifest?view=checks&checkDetail=sessions_expected", "expected 5, found 3")
    expect(page.get_by_text("what_to_do").first).to_be_visible()


def test_one_backfill_leaves_two_sessions_green_and_the_damaged_one_red(backfilled: Site) -> None:
    page = backfilled.wait(PARTITIONS, "Failed (1)")
    expect(page.get_by_text("Materialized (2)")).to_be_visible()
    backfilled.wait(f"{PARTITIONS}&partition={DAMAGED}", "failed, and did not materialize this asset")
    for layer in ("ui_mice/spike_trains", "ui_mice/spike_counts"):
        statuses = backfilled.running.partitions(layer)
        assert statuses["materializedPartitions"] == {*SESSIONS} - {DAMAGED}, layer
        assert statuses["failedPartitions"] == {DAMAGED}, layer
    reason = f"failed ui-mice {DAMAGED}: sub-A/{DAMAGED}.nwb cannot be opened as HDF5"
    assert reason in backfilled.running("status", "ui-mice").out


def test_the_page_of_a_session_shows_its_raster_and_its_tokens(backfilled: Site) -> None:
    page = backfilled.wait(f"{PARTITIONS}&partition={GOOD}", "silent_units")
    expect(page.get_by_text(re.compile(r"^[\d,]+ tokens$")).first).to_be_visible()
    assert width(page.locator('img[src^="data:image/png"]').first) > 100
    page.get_by_role("row", name="raster").get_by_text("[Show Markdown]").click()
    assert width(page.get_by_role("dialog").locator('img[src^="data:image/png"]')) >= 700


def test_a_session_that_is_current_is_not_called_unsynced(backfilled: Site) -> None:
    page = backfilled.wait(f"{PARTITIONS}&partition={GOOD}", "silent_units")
    expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()
    assert page.get_by_text("Unsynced").count() == 0


def test_no_check_is_called_failed_because_a_session_failed(backfilled: Site) -> None:
    page = backfilled.wait(
        "/assets/ui_mice/spike_counts?view=checks&checkDetail=plausible_rates", "known sessions pass"
    )
    expect(page.get_by_text("2 of 3 known sessions pass; 1 failed before they were judged").first).to_be_visible()
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()
    failed = page.get_by_text("Failed", exact=True).count()  # synthetic subjects do fail a check
    assert page.get_by_text("Succeeded", exact=True).count() > failed  # of those that the list shows at once
    page.get_by_text("Execution history").first.click()
    expect(page.get_by_text(f"{GOOD}: passed").first).to_be_visible()


def test_the_page_of_a_failed_session_says_why(backfilled: Site) -> None:
    page = backfilled.wait(f"{PARTITIONS}&partition={DAMAGED}", "View all historical events (1)")
    page.get_by_text("View all historical events (1)").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(DAMAGED, exact=True).click()
    expect(dialog.get_by_text("cannot be opened as HDF5")).to_be_visible()
    expect(dialog.get_by_text("a complete NWB (HDF5) file")).to_be_visible()


def test_the_run_of_a_batch_says_which_session_failed_and_why(backfilled: Site) -> None:
    page = backfilled.wait(f"{PARTITIONS}&partition={DAMAGED}", "View logs")
    page.get_by_role("link", name="View logs").or_(page.get_by_text("View logs")).first.click()
    expect(page.get_by_text(f"{DAMAGED}.nwb cannot be opened as HDF5").first).to_be_visible()
    expect(page.get_by_text("1 of 3 sessions of ui-mice failed; the others are done").first).to_be_visible()


def test_a_build_after_the_repair_makes_the_failed_session_alone_and_completes_the_backfill(
    repaired: tuple[Site, Ran],
) -> None:
    site, built = repaired
    assert (built.code, built.out.split(",")[0]) == (0, "local/ui-mice: 3 sessions")
    assert "ui-mice: 1 of 1 session of this batch" in built.err
    assert site.running.partitions("ui_mice/spike_counts")["materializedPartitions"] == set(SESSIONS)
    assert site.running.partitions("ui_mice/spike_counts")["failedPartitions"] == set()


def test_the_page_of_the_pile_lists_its_components_and_draws_rows(repaired: tuple[Site, Ran]) -> None:
    site, built = repaired
    tokens = re.search(r"local/neural-pile: ([\d,]+) tokens", built.out)
    assert tokens is not None, built
    page = site.wait("/assets/neural_pile/hub_dataset", "components")
    expect(page.get_by_role("cell", name="ui-mice", exact=True)).to_be_visible()
    expect(page.get_by_role("cell", name=tokens[1], exact=True).first).to_be_visible()
    assert width(page.locator('img[src^="data:image/png"]').first) > 0


def test_neuralpile_ui_fails_when_dagster_stops_by_itself(running: Running) -> None:
    server(running.home, "dagster._daemon").kill()
    assert running.ui.process.wait() == 1
    assert "Dagster's daemon stopped by itself; found: exit code -9" in (running.home.parent / "ui.log").read_text()
    assert [process.cmdline() for process in processes(running.home)] == []
    assert not (running.home / "ui.json").exists()
