"""Every bench runs and prints its ratios; how large they are is nobody's business here."""

from __future__ import annotations

import pytest

from bench.__main__ import benches
from neuralpile_dagster_tests.fixtures.benches import WITH_DAEMON, require_a_table_and_ratios

pytestmark = pytest.mark.slow_first


@pytest.mark.parametrize("name", [name for name in benches() if name not in WITH_DAEMON])
def test_a_tiny_run_of_the_bench_ends_well_with_a_table_and_ratios(name: str):
    require_a_table_and_ratios(name)
