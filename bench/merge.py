"""The merge: copying encoded column chunks against decoding and encoding, the same shard in the same run.

``python -m bench.merge [--tiny]``. Sessions are synthetic; rows have 10 M
tokens as in the real datasets. Each figure comes from a fresh process; files
are in the page cache. Full size: ~4 minutes, 0.5 GB of disk.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import ROUNDS, Laps, measure, median_ratio, medians, rounds, save, show

SIZE = {"sessions": 20, "rows": 10, "units": 2_000, "bins": 5_000}
TINY = {"sessions": 4, "rows": 3, "units": 100, "bins": 500}
MANY = {"files": 1_900, "rows": [2_000, 11_000, 45_000]}
MANY_TINY = {"files": 20, "rows": [20, 100]}
PLAN = "plan"
PROMISES = ("identical_bytes_on_every_run", "column_chunks_as_encoded")


def _shard(folder: Path, plan: str = PLAN) -> tuple[Any, Any, str]:
    from neuralpile_dagster.merge.plan import load_plan
    from neuralpile_dagster.store import LocalStore

    store = LocalStore(folder)
    loaded = load_plan(store, plan)
    return store, loaded, loaded.record.shards[0].name


def copy(folder: Path, out: str) -> dict[str, Any]:
    """What the platform does."""
    from neuralpile_dagster.merge.shards import write_shard

    store, loaded, name = _shard(folder)
    laps = Laps()
    report = write_shard(loaded, name, store.open, folder / out)
    laps.lap("own")
    return {**laps.found, "rows": report.rows, "bytes": report.bytes, "decoded": report.decoded_rows}


def copy_all(folder: Path, plan: str) -> dict[str, Any]:
    """All shards, one after another, as one worker would."""
    from neuralpile_dagster.merge.shards import write_shard

    store, loaded, _ = _shard(folder, plan)
    laps = Laps()
    names = [shard.name for shard in loaded.record.shards]
    reports = [write_shard(loaded, name, store.open, folder / "many" / name) for name in names]
    laps.lap("own")
    shutil.rmtree(folder / "many")
    return {**laps.found, "shards": len(names), "rows": sum(report.rows for report in reports)}


def encode(folder: Path, out: str) -> dict[str, Any]:
    """The same shard, row by row: decoded and encoded, as rows of other programs are."""
    from neuralpile_dagster.files import atomic_write
    from neuralpile_dagster.tables.rows import RowReader, RowWriter
    from neuralpile_dagster.tables.schemas import PILE_SCHEMA

    store, loaded, name = _shard(folder)
    laps = Laps()
    with atomic_write(folder / out) as path, RowWriter(path, PILE_SCHEMA) as writer:
        for file, number, source in loaded.refs(name):
            with store.open(file) as opened, RowReader(opened, file) as reader:
                row = reader.row(number)
            writer.write(row.counts, row.subject_id, row.session_id, row.segment_id, source)
    laps.lap("own")
    return laps.found


def plain(folder: Path, out: str) -> dict[str, Any]:
    """The limit: a copy of the finished file."""
    from neuralpile_dagster.files import atomic_write

    laps = Laps()
    with atomic_write(folder / out) as path:
        shutil.copyfile(folder / "copy.parquet", path)
    laps.lap("own")
    return laps.found


def make(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    from bench import merge_data

    return merge_data.make(folder, size)


def make_many(folder: Path, files: int, rows: int) -> dict[str, Any]:
    from bench import merge_data

    return merge_data.make_many(folder, files, rows)


def inspect(folder: Path) -> dict[str, Any]:
    """Whether two runs gave the same file, and whether its column chunks are those that encoding gives."""
    import pyarrow.parquet as pq

    def chunks(path: Path) -> Iterator[bytes]:
        metadata = pq.read_metadata(path)
        with path.open("rb") as file:
            for row in range(metadata.num_row_groups):
                for column in range(metadata.num_columns):
                    chunk = metadata.row_group(row).column(column)
                    file.seek(chunk.dictionary_page_offset)
                    yield file.read(chunk.total_compressed_size)

    pairs = zip(chunks(folder / "copy.parquet"), chunks(folder / "encoded.parquet"), strict=True)
    return {
        "identical_bytes_on_every_run": filecmp.cmp(folder / "copy.parquet", folder / "again.parquet", shallow=False),
        "column_chunks_as_encoded": all(one == other for one, other in pairs),
    }


def start(folder: Path) -> dict[str, Any]:
    """Imports and nothing else, for the memory that they take."""
    from neuralpile_dagster.merge import plan, shards

    return {"modules": [plan.__name__, shards.__name__]}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (make, make_many, copy, copy_all, encode, plain, inspect, start)
}


def step(name: str, *arguments: Any) -> dict[str, Any]:
    """One step in a fresh process: what it says, its wall and CPU time and peak memory."""
    measured = measure(["-m", "bench.merge", "--step", name, *map(json.dumps, arguments)])
    return {**measured.json(), "wall_s": measured.wall_s, "cpu_s": measured.cpu_s, "peak_mb": measured.peak_bytes / 1e6}


def compare(folder: Path, size: dict[str, int], count: int = ROUNDS) -> dict[str, Any]:
    made = step("make", str(folder), size)
    step("copy", str(folder), "again.parquet")
    files = {"copy": "copy.parquet", "encode": "encoded.parquet", "plain": "plain.parquet"}
    every = rounds({way: partial(step, way, str(folder), file) for way, file in files.items()}, count)
    best, encoded, limit = medians(every).values()
    inspected = step("inspect", str(folder))
    result = {
        "size": size,
        "made": made,
        "copy": best,
        "encode": encoded,
        "plain": limit,
        "ratios": {
            f"decode and encode / copy, {what}": median_ratio(every, figure, "encode", "copy")
            for figure, what in {
                "own_s": "s",
                "own_cpu_s": "CPU s",
                "wall_s": "s of whole processes",
                "cpu_s": "CPU s of whole processes",
            }.items()
        },
        **{what: inspected[what] for what in PROMISES},
    }
    tokens = made["tokens"] * best["rows"] / (size["sessions"] * size["rows"])
    megabytes = best["bytes"] / 1e6
    show(
        f"One shard, {count} rounds: {best['rows']:.0f} rows, {tokens / 1e6:,.0f} M tokens, {megabytes:.1f} MB",
        ["", "s", "CPU s", "M tokens per CPU s", "whole process s", "CPU s", "peak MB"],
        [
            [n, r["own_s"], r["own_cpu_s"], tokens / r["own_cpu_s"] / 1e6, r["wall_s"], r["cpu_s"], r["peak_mb"]]
            for n, r in (("decode, encode", encoded), ("copy column chunks", best), ("copy the file", limit))
        ],
    )
    for what in PROMISES:
        print(f"{what.replace('_', ' ')}: {result[what]}")
    if broken := [what for what in PROMISES if not result[what]]:
        raise RuntimeError(f"the merge broke its promises: {', '.join(broken)}")
    return result


def memory(folder: Path, size: dict[str, Any]) -> list[dict[str, Any]]:
    idle = step("start", str(folder))["peak_mb"]
    runs = []
    for rows in size["rows"]:
        step("make_many", str(folder), size["files"], rows)
        run = step("copy_all", str(folder), f"many-{rows}/{PLAN}")
        shutil.rmtree(folder / f"many-{rows}")
        runs.append({"rows": run["rows"], "files": size["files"], **run, "idle_mb": idle})
    show(
        f"Memory against rows, from {size['files']:,} files (imports alone: {idle:,.0f} MB)",
        ["rows", "shards", "peak MB", "above imports MB", "s", "CPU s", "CPU ms per row"],
        [
            [
                run["rows"],
                run["shards"],
                run["peak_mb"],
                run["peak_mb"] - idle,
                run["own_s"],
                run["own_cpu_s"],
                run["own_cpu_s"] * 1e3 / run["rows"],
            ]
            for run in runs
        ],
    )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small data, for a smoke run")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, *arguments = options.step
        print(json.dumps(STEPS[name](Path(json.loads(folder)), *map(json.loads, arguments))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        results = {
            "shard": compare(Path(temporary), TINY, 1) if options.tiny else compare(Path(temporary), SIZE),
            "memory": memory(Path(temporary), MANY_TINY if options.tiny else MANY),
        }
    print(f"\nwritten to {save('merge-tiny' if options.tiny else 'merge', results)}", file=sys.stderr)


if __name__ == "__main__":
    main()
