"""A home and an archive in which builds are tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuralpile_dagster_tests.nwb import poisson_trains, write_units_nwb
from neuralpile_dagster_tests.orchestration.house import Ran, neuralpile

CATALOG = """\
datasets:
  - name: mixed-mice
    title: Recordings of which some are damaged
    source: {archive: dandi, id: "990300"}
  - name: mixed-probes
    title: MATLAB files of which some are damaged
    source: {archive: figshare, id: "777"}
    reader: eight_probe_mat
    sessions: {include: ['\\.mat$']}
"""


@dataclass(frozen=True)
class Place:
    """A home, and an archive with both datasets."""

    home: Path
    archive: Path

    def __call__(self, *arguments: str, **environment: str | Path) -> Ran:
        places = {"NEURALPILE_HOME": self.home, "NEURALPILE_ARCHIVE": self.archive, **environment}
        return neuralpile(*arguments, **places)

    def recording(self, session: str) -> Path:
        return self.archive / "990300" / "sub-1" / f"{session}.nwb"


def write(place: Place, session: str, seed: int = 0) -> Path:
    return write_units_nwb(place.recording(session), poisson_trains(6, 8.0, seed=seed), index_dtype="int64")


def line_of(ran: Ran, name: str) -> str:
    (line,) = [line for line in ran.out.splitlines() if line.strip().startswith(f"{name}:")]
    return line
