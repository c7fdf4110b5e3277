"""What the whole pile would cost at given rates: core-hours, disk, network, and the schedule on many workers.

An estimate. Tokens and sessions per dataset are the catalog's; all sessions of a dataset are taken as equal, and
every dataset to have as many spikes per token as all together. Fetching overlaps nothing; publishing is left out.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass
from typing import Any

from bench.common import show
from neuralpile_dagster.catalog.rodent import RODENT

FIRST = 18
"""Rows of the catalog that make up the 441 G tokens."""
LINK_BYTES_PER_S = 80e6
"""What one worker is taken to receive from the archive; one connection's speed."""
WORKERS = (1, 16, 64, 256)


SUMMED = ("sessions", "tokens", "core_hours", "checks_core_hours", "archive_gb")


@dataclass(frozen=True)
class Rates:
    """Core-seconds (one thread) and stored bytes at a density of spikes; what any session costs, and Dagster's part.

    ``checks_s`` are those of checks and picture of a session of 200 M tokens, which is about the pile's mean.
    """

    s_per_token: float
    spikes_per_token: float
    trains_per_spike: float
    counts_per_token: float
    checks_s: float
    fixed_s: float
    overhead_s: float


def makespan(costs: list[float], workers: int) -> float:
    """When the last worker is done, each taking the longest session left."""
    free = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def report_pile(rates: Rates) -> dict[str, Any]:
    """Print and return the estimates."""
    rows: list[dict[str, Any]] = []
    for row in RODENT:
        tokens, number = row.tokens_published, row.sessions_due
        if not tokens or not number:
            raise RuntimeError(f"the catalog lacks tokens or sessions of {row.name}")
        spikes = tokens * rates.spikes_per_token
        work = number * rates.fixed_s + tokens * rates.s_per_token
        dagster, link = number * rates.overhead_s, spikes * 8 / LINK_BYTES_PER_S
        checks = number * rates.checks_s
        rows.append(
            {
                "dataset": row.name,
                "sessions": number,
                "tokens": tokens,
                "core_hours": (work + checks + dagster) / 3600,
                "checks_core_hours": checks / 3600,
                "dagster_share": dagster / (work + checks + dagster),
                "s_per_session": (work + checks + dagster + link) / number,
                "archive_gb": spikes * 8 / 1e9,
                "trains_gb": spikes * rates.trains_per_spike / 1e9,
                "counts_gb": tokens * rates.counts_per_token / 1e9,
            }
        )
    show("The whole pile, estimated", list(rows[0]), [list(row.values()) for row in rows])
    result: dict[str, Any] = {"rates": asdict(rates), "datasets": rows}
    for name, chosen in (("the first 18 datasets", rows[:FIRST]), ("all", rows)):
        result[name] = _together(name, chosen)
    return result


def _together(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    total = {key: sum(row[key] for row in rows) for key in SUMMED}
    counts, trains = (sum(row[f"{part}_gb"] for row in rows) for part in ("counts", "trains"))
    # component shards and the pile are copies of the encoded rows; the local hub's are links to them
    total |= {"disk_gb": trains + 3 * counts, "sent_gb": 2 * counts}
    show(f"Together, {name}", ["", "found"], [list(item) for item in total.items()])
    costs = [row["s_per_session"] for row in rows for _ in range(row["sessions"])]
    schedule = []
    for workers in WORKERS:
        hours = makespan(costs, workers) / 3600
        schedule.append({"workers": workers, "hours": hours, "times_faster": sum(costs) / 3600 / hours})
    show(
        f"Schedule of the sessions, {name}: one core and {LINK_BYTES_PER_S / 1e6:.0f} MB/s from the archive per worker",
        ["workers", "hours", "times faster than one"],
        [list(row.values()) for row in schedule],
    )
    print(f"\nno schedule can be shorter than its longest session: {max(costs) / 3600:.3g} h")
    ratios = {f"{row['workers']} workers / one": row["times_faster"] for row in schedule}
    share = sum(row["core_hours"] * row["dagster_share"] for row in rows) / total["core_hours"]
    return {**total, "schedule": schedule, "ratios": {**ratios, "Dagster's share of core-hours": share}}
