"""A home with three small datasets, its UI served, and a browser on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from neuralpile_dagster.testing.nwb import poisson_trains, write_units_nwb
from neuralpile_dagster_tests.fixtures.browser import browser_page, chromium
from neuralpile_dagster_tests.fixtures.house import Ran, cut, neuralpile, quick_folder
from neuralpile_dagster_tests.fixtures.ui import Served, ask, served

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
  - name: tiny-mice
    title: Three mice for a program that backfills them (synthetic, for tests)
    source: {archive: dandi, id: "990100", version: draft}
"""
LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
RUNS = "query { runsOrError { ... on Runs { results { runId status } } } }"
PARTITIONS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions }
      }
    }
  }
}"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
PATIENCE_S = 240.0
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


@dataclass(frozen=True)
class Running:
    """A home with its recordings, and its UI as programs use it."""

    home: Path
    archive: Path
    ui: Served

    def __call__(self, *arguments: str) -> Ran:
        """Run a command on the home."""
        return neuralpile(*arguments, NEURALPILE_HOME=self.home, NEURALPILE_ARCHIVE=self.archive)

    def partitions(self, asset: str) -> dict[str, set[str]]:
        """Partition keys of an asset by status."""
        data = ask(self.ui.address, PARTITIONS, key={"path": asset.split("/")})
        return {status: set(keys) for status, keys in data["assetNodeOrError"]["assetPartitionStatuses"].items()}

    def backfill(self, dataset: str, *keys: str) -> None:
        """Backfill spike trains and counts of these sessions and wait until its runs have ended."""
        known = {run["runId"] for run in self._runs()}
        assets = [{"path": [dataset, layer]} for layer in ("spike_trains", "spike_counts")]
        params = {"assetSelection": assets, "partitionNames": list(keys)}
        launched = ask(self.ui.address, LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        wait_for(lambda: any(run["runId"] not in known for run in self._runs()), "the backfill to start a run")
        wait_for(lambda: all(run["status"] in ENDED for run in self._runs()), "the runs to end")

    def _runs(self) -> list[dict[str, str]]:
        return list(ask(self.ui.address, RUNS)["runsOrError"]["results"])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """The UI of a fresh home; one for all tests, because its start costs as much as all of them."""
    with quick_folder() as folder:
        home, archive = folder / "home", folder / "archive"
        home.mkdir()
        (home / "catalog.yaml").write_text(_CATALOG)
        for dataset, seed in (("990301", 0), ("990302", 10), ("990100", 20)):
            for number, session in enumerate(SESSIONS):
                path = archive / dataset / session.split("_")[0] / f"{session}.nwb"
                write_units_nwb(path, poisson_trains(20, 60.0, seed=seed + number))
        cut(archive / "990301" / "sub-A" / f"{DAMAGED}.nwb")
        with served(home, str(archive), folder / "ui.log") as ui:
            yield Running(home, archive, ui)


@pytest.fixture(scope="module")
def site(running: Running, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The UI in a browser; skips where Chromium is absent."""
    if chromium() is None:
        pytest.skip("chromium is not installed (apt-get install chromium): the UI is not looked at")
    # before there is a browser: Playwright keeps an event loop running in this thread
    built = running("build", "whole-mice", "--merge")
    assert built.code == 0, built.err
    with browser_page() as page:
        request.config.stash[_PAGE] = page
        yield Site(running.ui.address, page, built.out)
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
