"""A home with a small dataset, its UI served, and a browser on it."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from neuralpile_dagster_tests.fixtures.browser import browser_page, chromium
from neuralpile_dagster_tests.fixtures.commands import NEURALPILE, run
from neuralpile_dagster_tests.fixtures.house import Ran, cut, quick_folder
from neuralpile_dagster_tests.fixtures.ui import Served, ask, environment, served
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

SESSIONS = ("sub-A_ses-1", "sub-A_ses-2", "sub-B_ses-3")
GOOD, DAMAGED = SESSIONS[0], SESSIONS[1]
_CATALOG = """
datasets:
  - name: ui-mice
    title: Three mice of which the archive once had five (synthetic, for tests)
    source: {archive: dandi, id: "990301"}
    species: mouse
    sessions_published: 5
"""
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
_FOLLOW = "path => { history.pushState({}, '', path); dispatchEvent(new PopStateEvent('popstate', {state: {}})) }"
_PAGE = pytest.StashKey[Page]()


@dataclass(frozen=True)
class Running:
    """A home with its recordings, and its UI as programs use it."""

    home: Path
    archive: Path
    ui: Served

    def __call__(self, *arguments: str) -> Ran:
        """Run a command on the home; in a fork, because Playwright keeps an event loop running in this thread."""
        done = run([NEURALPILE, *arguments], environment(self.home, str(self.archive)))
        return Ran(done.returncode, done.stdout, done.stderr)

    def partitions(self, asset: str) -> dict[str, set[str]]:
        """Partition keys of an asset by status."""
        data = ask(self.ui.address, PARTITIONS, key={"path": asset.split("/")})
        return {status: set(keys) for status, keys in data["assetNodeOrError"]["assetPartitionStatuses"].items()}

    def wait_for_runs(self, number: int) -> None:
        """Wait until this many runs have ended."""
        end = time.monotonic() + PATIENCE_S
        while True:
            runs = ask(self.ui.address, RUNS)["runsOrError"]["results"]
            if sum(run["status"] in ENDED for run in runs) == number:
                return
            assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {number} runs to end: {runs}"
            time.sleep(0.5)


@dataclass(frozen=True)
class Site:
    """The UI as ``page`` sees it."""

    running: Running
    page: Page

    def go(self, path: str) -> Page:
        """Open a page of the UI, as a link on another one does: without loading all its scripts again."""
        address = self.running.ui.address
        if self.page.url.startswith(address):
            self.page.keyboard.press("Escape")  # a dialog that the page before has left open
            self.page.evaluate(_FOLLOW, path)
        else:
            self.page.goto(address + path)
        return self.page

    def wait(self, path: str, text: str, times: int = 15) -> Page:
        """Open a page of the UI, and load it again until it shows a text: not every page follows what happens."""
        self.go(path)
        for _ in range(times):
            try:
                self.page.get_by_text(text).first.wait_for(timeout=8_000)
            except Error:
                self.page.reload()
                continue
            return self.page
        expect(self.page.get_by_text(text).first).to_be_visible()
        return self.page


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """The UI of a fresh home; one for all tests, because its start costs as much as all of them."""
    with quick_folder() as folder:
        home, archive = folder / "home", folder / "archive"
        home.mkdir()
        (home / "catalog.yaml").write_text(_CATALOG)
        for session in SESSIONS:
            write_session(archive, session)
        cut(archive / recording(DAMAGED))
        with served(home, str(archive), folder / "ui.log") as ui:
            yield Running(home, archive, ui)


def write_session(archive: Path, session: str) -> None:
    """Write the recording of a session."""
    write_units_nwb(archive / recording(session), poisson_trains(20, 60.0, seed=SESSIONS.index(session)))


def recording(session: str) -> Path:
    """Path of a session's file in the archive."""
    return Path("990301", session.split("_")[0], f"{session}.nwb")


@pytest.fixture(scope="module")
def site(running: Running, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The UI in a browser; skips where Chromium is absent."""
    if chromium() is None:
        pytest.skip("chromium is not installed (apt-get install chromium): the UI is not looked at")
    with browser_page() as page:
        request.config.stash[_PAGE] = page
        yield Site(running, page)
    del request.config.stash[_PAGE]


@pytest.fixture(scope="module")
def discovered(site: Site) -> Site:
    """The manifest of ``ui-mice`` is materialized with a click."""
    page = site.go("/assets/ui_mice/manifest")
    page.get_by_role("button", name=re.compile("Materialize$")).click()
    page.get_by_text("Launched run").first.wait_for()
    site.running.wait_for_runs(1)
    return site


@pytest.fixture(scope="module")
def launched(discovered: Site) -> Site:
    """A backfill of all three sessions of ``ui-mice`` is launched from the list of its assets."""
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
    """The backfill is over; the file of one session was damaged."""
    launched.running.wait_for_runs(2)
    return launched


@pytest.fixture(scope="module")
def repaired(backfilled: Site) -> tuple[Site, Ran]:
    """The file is repaired, and a build, whose output this gives, has completed the dataset and the pile."""
    running = backfilled.running
    write_session(running.archive, DAMAGED)
    return backfilled, running("build", "ui-mice", "--merge")


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
