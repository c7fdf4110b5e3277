"""Synthetic sessions and their plan, for `bench.merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuralpile_dagster.files import sha256_of
from neuralpile_dagster.merge.plan import plan_pile, save_plan
from neuralpile_dagster.merge.sources import SourceFile, source_from_parquet
from neuralpile_dagster.store import LocalStore, put_file
from neuralpile_dagster.tables.rows import RowWriter

RATE = 0.04  # spikes per bin: ~0.07 bytes per token, fewer than real sessions (0.095), so encoding looks cheaper
PLAN = "plan"


def make(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """Session files and a plan that has all rows but one in one train shard."""
    store = LocalStore(folder)
    files = []
    for session in range(size["sessions"]):
        rng = np.random.default_rng(session)
        rates = rng.lognormal(np.log(RATE), 1.0, size["units"])[:, None]

        def write(path: Path, rng: Any = rng, rates: Any = rates, session: int = session) -> None:
            with RowWriter(path) as writer:
                for row in range(size["rows"]):
                    counts = rng.poisson(rates, (size["units"], size["bins"])).astype(np.uint8)
                    writer.write(counts, f"sub-{session}", f"ses-{session}", f"segment_{row}")

        stored, _ = put_file(store, f"{session}.parquet", write)
        files.append(SourceFile(name=stored.key, size=stored.size, sha256=stored.sha256))
    source = source_from_parquet("synthetic", files, store.open)
    save_plan(store, PLAN, plan_pile([source], seed=0, test_size=1e-9))
    return {"tokens": int(source.row_tokens.sum()), "bytes": sum(file.size for file in files)}


def make_many(folder: Path, files: int, rows: int) -> dict[str, Any]:
    """Many small rows in many files, and their plan."""
    store = LocalStore(folder)
    rng = np.random.default_rng(0)
    sources = []
    for number in range(files):
        name = f"many-{rows}/{number}.parquet"
        (folder / name).parent.mkdir(exist_ok=True)
        with RowWriter(folder / name) as writer:
            for row in range(number, rows, files):
                writer.write(rng.poisson(1, (2, 40)).astype(np.uint8), "sub", f"ses-{number}", f"segment_{row}")
        sources.append(SourceFile(name=name, size=store.size(name) or 0, sha256=sha256_of(folder / name)))
    source = source_from_parquet("synthetic", sources, store.open)
    save_plan(store, f"many-{rows}/{PLAN}", plan_pile([source], seed=0, test_size=1e-9))
    return {}
