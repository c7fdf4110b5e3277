"""Make a small home as the version in this checkout leaves it, to be opened by later versions.

`python -m neuralpile_dagster_tests.stored_homes.make NAME` builds two datasets and their pile from SYNTHETIC
recordings (one recording is truncated, so one failure is stored too) and packs the home and its archive into
``NAME.tar.xz`` beside this file. Run it in a checkout of the version whose home is wanted; a stored home is
never made again by a later version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

CATALOG = """\
datasets:
  - name: old-mice
    title: Synthetic mice of a stored home
    source: {archive: dandi, id: "990201", version: draft}
    sessions: {include: ['\\.nwb$']}
    reader: units
    species: mouse
  - name: old-rats
    title: Synthetic rats of a stored home
    source: {archive: dandi, id: "990202", version: draft}
    sessions: {include: ['\\.nwb$']}
    reader: units
    species: rat
  - name: old-broken
    title: Synthetic recordings of a stored home, one of them truncated
    source: {archive: dandi, id: "990203", version: draft}
    sessions: {include: ['\\.nwb$']}
    reader: units
    species: mouse
"""
FILES = {
    "990201/sub-A/sub-A_ses-1.nwb": 1,
    "990201/sub-A/sub-A_ses-2.nwb": 2,
    "990201/sub-B/sub-B_ses-3.nwb": 3,
    "990202/sub-R/sub-R_ses-1.nwb": 4,
    "990203/sub-C/sub-C_ses-1.nwb": 5,
    "990203/sub-C/sub-C_ses-2.nwb": 6,
}
TRUNCATED = "990203/sub-C/sub-C_ses-2.nwb"


def write_archive(archive: Path) -> None:
    """Write the recordings, as `dandi download` would lay them out."""
    for name, seed in FILES.items():
        write_units_nwb(archive / name, poisson_trains(4 + seed, 20.0 + seed, seed=seed))
    whole = (archive / TRUNCATED).read_bytes()
    (archive / TRUNCATED).write_bytes(whole[: len(whole) // 2])


def environment(root: Path) -> dict[str, str]:
    """The environment in which commands use the home below ``root``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NEURALPILE_", "DAGSTER_"))}
    return env | {"NEURALPILE_HOME": str(root / "home"), "NEURALPILE_ARCHIVE": str(root / "archive")}


def neuralpile(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the home below ``root``, in a process of its own."""
    command = [sys.executable, "-c", "from neuralpile_dagster.cli import main; main()", *arguments]
    return run(command, environment(root))


def main() -> None:
    """Make the home and pack it."""
    target = Path(__file__).with_name(f"{sys.argv[1]}.tar.xz")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_archive(root / "archive")
        (root / "home").mkdir()
        (root / "home" / "catalog.yaml").write_text(CATALOG)
        for names, code in ((("old-broken",), 1), (("old-mice", "old-rats", "--merge"), 0)):
            done = neuralpile(root, "build", *names)
            print(done.stdout, done.stderr)
            assert done.returncode == code
        for logs in (root / "home" / "storage").glob("*/compute_logs"):
            shutil.rmtree(logs)
        with tarfile.open(target, "w:xz") as packed:
            packed.add(root / "home", "home")
            packed.add(root / "archive", "archive")
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
