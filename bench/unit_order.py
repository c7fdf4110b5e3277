"""The order of units: products of all pairs of units beside scipy's distances of the same counts, and the leaf order.

Rows are synthetic: groups of units with shared rates, log-normal among units, 0.1 spikes per token. Every way runs in a
process of its own, without imports; ours in one thread. The bench fails where the distances are not scipy's.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

import numpy as np

from bench.common import ROUNDS, measure, median_ratio, medians, own_memory, rounds, save, show
from neuralpile_dagster.session.unit_order import BYTES_PER_PAIR

SIZES = {"300 units": (300, 20_000), "1,000 units": (1_000, 10_000), "2,779 units": (2_779, 2_000)}
"""Units, bins."""
LEAVES = (500, 1_000, 2_000)
TINY, TINY_LEAVES = {"tiny": (40, 2_000)}, (60,)


def counts_of(n_units: int, n_bins: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shared = rng.gamma(0.5, 2.0, (20, n_bins))
    units = rng.lognormal(np.log(0.055), 1.1, n_units).clip(0, 2)
    groups = rng.integers(0, 20, n_units)
    counts = np.empty((n_units, n_bins), np.uint8)
    for unit in range(n_units):
        counts[unit] = rng.poisson(units[unit] * shared[groups[unit]]).clip(0, 255)
    return counts


def ours(n_units: int, n_bins: int) -> dict[str, Any]:
    """Products and distances of the counts, as four segments."""
    from neuralpile_dagster.binning.unit_order import UnitProducts

    counts = counts_of(n_units, n_bins)
    UnitProducts(n_units).add(counts[:, :10])  # compiled code is loaded
    began, session = time.process_time(), UnitProducts(n_units)
    for segment in np.array_split(counts, 4, axis=1):
        session.add(segment)
    distances = session.distances()
    return _found(counts, time.process_time() - began, distances)


def pdist(n_units: int, n_bins: int) -> dict[str, Any]:
    """Distances of the counts as float64, as the published scripts call it."""
    from scipy.spatial.distance import pdist

    counts = counts_of(n_units, n_bins)
    began = time.process_time()
    distances = pdist(counts.astype(np.float64), "cosine")
    seconds = time.process_time() - began
    return _found(counts, seconds, np.where(np.isnan(distances), 2.0, distances))


def _found(counts: np.ndarray, cpu_s: float, distances: np.ndarray) -> dict[str, Any]:
    return {
        "cpu_s": cpu_s,
        "tokens_per_cpu_s": counts.size / cpu_s,
        "spikes_per_token": float(counts.mean()),
        "sum of distances": float(distances.sum()),
    }


def leaves(n_units: int, n_bins: int) -> dict[str, Any]:
    """CPU seconds and memory of the order once the products are there."""
    from scipy.cluster import hierarchy  # noqa: F401 - imports do not count

    from neuralpile_dagster.binning.unit_order import UnitProducts

    before, session = own_memory("VmRSS"), UnitProducts(n_units)
    session.add(counts_of(n_units, n_bins))
    began = time.process_time()
    order = session.order()
    return {
        "cpu_s": time.process_time() - began,
        "memory_mb": (own_memory("VmHWM") - before) / 1e6,
        "is an order": bool(np.array_equal(np.sort(order), np.arange(n_units))),
    }


STEPS = {"ours": ours, "pdist": pdist, "leaves": leaves}


def _step(name: str, n_units: int, n_bins: int) -> dict[str, Any]:
    arguments = ["-m", "bench.unit_order", "--step", name, str(n_units), str(n_bins)]
    return dict(measure(arguments, {"NEURALPILE_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}).json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small session, for a smoke run")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, n_units, n_bins = options.step
        print(json.dumps(STEPS[name](int(n_units), int(n_bins))))
        return
    results: dict[str, Any] = {}
    for label, (n_units, n_bins) in (TINY if options.tiny else SIZES).items():
        every = rounds(
            {name: partial(_step, name, n_units, n_bins) for name in ("ours", "pdist")},
            1 if options.tiny else ROUNDS,
        )
        found = medians(every)
        if not np.isclose(found["ours"]["sum of distances"], found["pdist"]["sum of distances"], rtol=1e-9):
            raise RuntimeError(f"not scipy's distances: {label}")
        ratio = median_ratio(every, "tokens_per_cpu_s", "ours", "pdist")
        results[label] = {"units_bins": (n_units, n_bins), **found, "ratios": {"tokens per CPU s, ours / pdist": ratio}}
    show(
        "Distances between all units, million tokens per CPU second (medians)",
        ["units", "spikes per token", "ours", "scipy pdist, float64", "ours / pdist"],
        [
            [
                label,
                found["ours"]["spikes_per_token"],
                found["ours"]["tokens_per_cpu_s"] / 1e6,
                found["pdist"]["tokens_per_cpu_s"] / 1e6,
                *found["ratios"].values(),
            ]
            for label, found in results.items()
        ],
    )
    ordered = {n_units: _step("leaves", n_units, 2_000) for n_units in (TINY_LEAVES if options.tiny else LEAVES)}
    show(
        "Clustering and optimal order of the leaves",
        ["units", "CPU s", "peak memory beyond imports, MB", "announced, MB"],
        [
            [n_units, found["cpu_s"], found["memory_mb"], BYTES_PER_PAIR * n_units**2 / 1e6]
            for n_units, found in ordered.items()
        ],
    )
    print(f"\nwrote {save('unit_order-tiny' if options.tiny else 'unit_order', {**results, 'leaves': ordered})}")


if __name__ == "__main__":
    main()
