"""How many shards change when one session is added: cuts by priority (ours) beside filling shards in order.

Prints, for datasets of the catalog's sizes, the number of shards, and over
many additions of one session at a random place the mean, the share of at most
two, and the largest number of shards with new content, and the share of all
bytes in them. Session sizes are drawn log-normal (sigma 0.5), not real ones.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from bench.common import save, show
from neuralpile_dagster.publish.shards import MAX_SHARD_BYTES, SessionSizes, Shard, Slice, plan_shards

# name, sessions, compressed bytes: tokens x 0.095 bytes (docs/performance.md)
DATASETS = [
    ("vbn", 153, 14.6e9),
    ("ibl", 347, 6.6e9),
    ("shield", 99, 5.9e9),
    ("vcn", 32, 3.5e9),
    ("steinmetz", 39, 0.75e9),
    ("giocomo", 349, 0.1e9),
]


def fill_in_order(sessions: list[SessionSizes]) -> tuple[Shard, ...]:
    """The baseline: the next shard begins when this one is full."""
    shards: list[list[Slice]] = []
    filled = MAX_SHARD_BYTES + 1
    for session in sessions:
        if filled + session.size > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(Slice(session.key, 0, 1))
        filled += session.size
    return tuple(map(tuple, shards))


def measure(name: str, n: int, total: float, additions: int) -> dict[str, Any]:
    """Add a session ``additions`` times, to as many random datasets of that size."""
    result: dict[str, Any] = {"dataset": name, "sessions": n}
    for rule, plan in (("ours", plan_shards), ("in_order", fill_in_order)):
        changed, share, shards = [], [], []
        for seed in range(additions):
            rng = np.random.default_rng(seed)
            sizes = rng.lognormal(0, 0.5, n + 1)
            sizes *= total / sizes.sum()
            after = [SessionSizes(f"{seed}-{i:04d}", (int(size),)) for i, size in enumerate(sizes)]
            added = int(rng.integers(n + 1))
            before = set(plan(after[:added] + after[added + 1 :]))
            now = plan(after)
            new = [shard for shard in now if shard not in before]
            bytes_of = {session.key: session.size for session in after}
            changed.append(len(new))
            share.append(sum(bytes_of[part.key] for shard in new for part in shard) / total)
            shards.append(len(now))
        result[rule] = {
            "shards": round(float(np.mean(shards)), 1),
            "changed_mean": round(float(np.mean(changed)), 2),
            "at_most_two": round(float(np.mean(np.array(changed) <= 2)), 3),
            "changed_max": int(np.max(changed)),
            "bytes_share": round(float(np.mean(share)), 3),
        }
    what = {"changed_mean": "shards changed", "bytes_share": "bytes in them"}
    ratios = {f"ours / in order, {name}": result["ours"][key] / result["in_order"][key] for key, name in what.items()}
    return result | {"ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="few additions, for a smoke run")
    tiny = parser.parse_args().tiny
    additions = 5 if tiny else 2_000
    results = [measure(*dataset, additions) for dataset in DATASETS]
    columns = ["shards", "changed_mean", "at_most_two", "changed_max", "bytes_share"]
    rows = [
        [result["dataset"], rule, *(result[rule][column] for column in columns)]
        for result in results
        for rule in ("ours", "in_order")
    ]
    show("Shards with new content after one session is added", ["dataset", "rule", *columns], rows)
    found = {result["dataset"]: result for result in results}
    print(f"\nwrote {save('sharding-tiny' if tiny else 'sharding', {'additions': additions, 'results': found})}")


if __name__ == "__main__":
    main()
