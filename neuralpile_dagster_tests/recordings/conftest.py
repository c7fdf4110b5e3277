"""A good recording, for tests to damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralpile_dagster_tests.fixtures.damaging import TRAINS
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_units_nwb(tmp_path / "sub-1_ses-1.nwb", TRAINS)
