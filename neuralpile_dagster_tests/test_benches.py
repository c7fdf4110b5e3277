"""Every bench runs and prints its ratios; how large they are is nobody's business here."""

from __future__ import annotations

import pytest

from bench.__main__ import benches
from neuralpile_dagster_tests.fixtures.benches import require_a_table_and_ratios
from neuralpile_dagster_tests.servers.cluster import missing_programs

pytestmark = [pytest.mark.slow_first, pytest.mark.asked_for]
FIRST = ("workers", "backfill")
"""They wait for Dagster's daemon, longest of all."""


@pytest.mark.parametrize("name", sorted(benches(), key=lambda name: name not in FIRST))
def test_a_tiny_run_of_the_bench_ends_well_with_a_table_and_ratios(name: str):
    if name == "workers" and (missing := missing_programs()):
        pytest.skip(missing)
    require_a_table_and_ratios(name)
