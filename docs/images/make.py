"""Remake the pictures of README and docs from the synthetic demo: ``python docs/images/make.py [--home DIR]``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from neuralpile_dagster.ledger.samples import order_samples
from neuralpile_dagster.plots.raster import raster_png
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.session.unit_order import store_unit_order
from neuralpile_dagster.store import LocalStore, read_record
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
MOTIFS = "motif_shapes: [[1, 15]]\nvocabulary_sizes: [1000]\n"
MOTIF_PAGES = {
    "motif_graph": (f"/locations/{LOCATION}/asset-groups/neural_pile/lineage", "motifs_1x15", 900),
    "motif_table": ("/assets/neural_pile/motifs_1x15", "coverage", 1100),
}
"""Pictures of a home with `MOTIFS` in its catalog.yaml."""
ORDERED = "sample_eight_probe/spike_counts/spksSampleA_Feb18"
"""The session of the picture of unit order."""


def draw_unit_order(home: Path, folder: Path) -> None:
    """Order the units of a session in a copy of its store, and draw them before and after."""
    shutil.copytree(home / "store" / ORDERED.split("/")[0], folder / ORDERED.split("/")[0])
    store = LocalStore(folder)
    counts = read_record(store, f"{ORDERED}.json", CountsRecord)
    assert counts is not None, f"the demo has {ORDERED}"
    order = store_unit_order(store, "unit_order", "picture", counts, "")
    (HERE / "unit_order.png").write_bytes(raster_png(order_samples(store, counts, order, synthetic=True)))
    print(HERE / "unit_order.png")


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
        draw_unit_order(home, Path(folder) / "copy")
        take(home, PAGES, Path(folder) / "ui.log")
        if not (home / "catalog.yaml").exists():
            (home / "catalog.yaml").write_text(MOTIFS)
            environment = {**os.environ, "NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": "sample"}
            command = [Path(sys.executable).with_name("neuralpile"), "build", "sample-units", "--merge"]
            subprocess.run(command, env=environment, check=True)
        take(home, MOTIF_PAGES, Path(folder) / "ui.log")
        shutil.copy(home / "hub" / "local" / "neural-pile-1x15" / "motifs.png", HERE / "motifs.png")


def take(home: Path, pages: dict[str, tuple[str, str, int]], log: Path) -> None:
    """Serve a home and take pictures of these pages."""
    with served(home, "sample", log) as ui, browser_page() as page:
        for name, (path, text, height) in pages.items():
            page.set_viewport_size({"width": 1400, "height": height})
            page.goto(ui.address + path)
            page.get_by_text(text, exact=True).first.wait_for()
            page.wait_for_timeout(3000)  # the graph is laid out and fitted after its texts are there
            page.screenshot(path=HERE / f"{name}.png")
            print(f"{HERE / name}.png")


if __name__ == "__main__":
    main()
