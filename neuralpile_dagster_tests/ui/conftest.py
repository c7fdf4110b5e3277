"""A home with two small datasets, its UI served, and a browser on it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from neuralpile_dagster.testing.nwb import poisson_trains, write_units_nwb
from neuralpile_dagster_tests.fixtures.browser import browser_page, chromium
from neuralpile_dagster_tests.fixtures.house import cut, neuralpile
from neuralpile_dagster_tests.fixtures.ui import served

SESSIONS = ("sub-A_ses-1", "sub-A_ses-2", "sub-B_ses-3")
GOOD, DAMAGED = SESSIONS[0], SESSIONS[1]
_CATALOG = """
datasets:
  - name: ui-mice
    title: Three mice of which the archive once had five (synthetic, for tests)
    source: {archive: dandi, id: "990301"}
    species: mouse
    sessions_published: 5
  - name: whole-mice
    title: Three mice without faults (synthetic, for tests)
    source: {archive: dandi, id: "990302"}
    species: mouse
"""
_PAGE = pytest.StashKey[Page]()


@dataclass
class Site:
    """The UI at ``address`` as ``page`` sees it; ``built`` is what the build of ``whole-mice`` and the pile said."""

    address: str
    page: Page
    built: str = field(repr=False)

    def go(self, path: str) -> Page:
        """Open a page of the UI."""
        self.page.goto(self.address + path)
        return self.page

    def wait(self, path: str, text: str, times: int = 15) -> Page:
        """Open a page of the UI, again and again, until it shows a text: not every page follows what happens."""
        for _ in range(times):
            try:
                self.go(path).get_by_text(text).first.wait_for(timeout=8_000)
            except Error:
                continue
            return self.page
        expect(self.page.get_by_text(text).first).to_be_visible()
        return self.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The UI of a fresh home; skips where Chromium is absent."""
    if chromium() is None:
        pytest.skip("chromium is not installed (apt-get install chromium): the UI is not looked at")
    folder = tmp_path_factory.mktemp("ui")
    home, archive = folder / "home", folder / "archive"
    home.mkdir()
    (home / "catalog.yaml").write_text(_CATALOG)
    for dataset, seed in (("990301", 0), ("990302", 10)):
        for number, session in enumerate(SESSIONS):
            path = archive / dataset / session.split("_")[0] / f"{session}.nwb"
            write_units_nwb(path, poisson_trains(20, 60.0, seed=seed + number))
    cut(archive / "990301" / "sub-A" / f"{DAMAGED}.nwb")
    with served(home, str(archive), folder / "ui.log") as address:
        # before there is a browser: Playwright keeps an event loop running in this thread
        built = neuralpile("build", "whole-mice", "--merge", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=archive)
        assert built.code == 0, built.err
        with browser_page() as page:
            request.config.stash[_PAGE] = page
            yield Site(address, page, built.out)
        del request.config.stash[_PAGE]


@pytest.fixture(scope="module")
def discovered(site: Site) -> Site:
    """The manifest of ``ui-mice`` is materialized with a click."""
    page = site.go("/assets/ui_mice/manifest")
    page.get_by_role("button", name=re.compile("Materialize$")).click()
    page.get_by_text("Launched run").first.wait_for()
    return site


@pytest.fixture(scope="module")
def launched(discovered: Site) -> Site:
    """A backfill of all three sessions of ``ui-mice`` is launched from the list of its assets."""
    discovered.wait("/assets/ui_mice/manifest", "sessions_table")
    page = discovered.go("/locations/neuralpile_dagster.definitions/asset-groups/ui_mice/list")
    for asset in ("spike_trains", "spike_counts"):
        page.locator("label", has=page.get_by_test_id(f"checkbox-ui_mice/{asset}")).click()
    page.get_by_role("button", name="Materialize selected").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All", exact=True).click()
    expect(dialog.get_by_text("3 partitions")).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("Created backfill").first.wait_for()
    return discovered


@pytest.fixture(scope="module")
def backfilled(launched: Site) -> Site:
    """The backfill is over."""
    launched.wait("/assets/ui_mice/spike_counts?view=partitions", "Failed (1)")
    return launched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the browser showed when a test failed, and say where."""
    report = yield
    page = item.config.stash.get(_PAGE, None)
    if report.failed and page is not None:
        path = Path(item.config.rootpath, "build", "ui-failures", f"{item.name}.png")
        page.screenshot(path=path, full_page=True)
        report.sections.append(("Screenshot", f"{path}\nof {page.url}"))
    return report
