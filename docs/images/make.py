"""Remake the pictures of README from the synthetic demo: ``python docs/images/make.py [--home DIR]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from neuralpile_dagster_tests.fixtures.browser import browser_page
from neuralpile_dagster_tests.fixtures.ui import served

HERE = Path(__file__).parent
SESSION = "sub-S1_ses-20200101T120000"
LOCATION = "neuralpile_dagster.definitions"
PAGES = {
    "asset_graph": (f"/locations/{LOCATION}/asset-groups/sample_units/lineage", "spike_counts", 640),
    "session": (f"/assets/sample_units/spike_counts?view=partitions&partition={SESSION}", "tokens", 1100),
}
"""Picture: page, a text that is there when the page is, height in pixels."""


def main() -> None:
    """Build the demo unless it is there, serve it, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="a home that `neuralpile demo` made; default: a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "home"
        if not (home / "hub").is_dir():
            subprocess.run(
                [Path(sys.executable).with_name("neuralpile"), "demo", "--home", home, "--no-ui"], check=True
            )
        with served(home, "sample", Path(folder) / "ui.log") as ui, browser_page() as page:
            for name, (path, text, height) in PAGES.items():
                page.set_viewport_size({"width": 1400, "height": height})
                page.goto(ui.address + path)
                page.get_by_text(text, exact=True).first.wait_for()
                page.wait_for_timeout(3000)  # the graph is laid out and fitted after its texts are there
                page.screenshot(path=HERE / f"{name}.png")
                print(f"{HERE / name}.png")


if __name__ == "__main__":
    main()
