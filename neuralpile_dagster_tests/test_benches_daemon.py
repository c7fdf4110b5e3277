"""The benches that wait for Dagster's daemon, in a file of their own: so they wait beside other tests."""

from __future__ import annotations

import pytest

from neuralpile_dagster_tests.fixtures.benches import WITH_DAEMON, require_a_table_and_ratios
from neuralpile_dagster_tests.fixtures.cluster import require_programs

pytestmark = pytest.mark.slow_first


@pytest.mark.parametrize("name", WITH_DAEMON)
def test_a_tiny_run_of_the_bench_ends_well_with_a_table_and_ratios(name: str):
    if name == "workers":
        require_programs()
    require_a_table_and_ratios(name)
