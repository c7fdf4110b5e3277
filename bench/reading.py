"""Reading for training: windows, rows, opening, workers and resuming, beside pyarrow, `datasets` and a memory map.

Rows are synthetic: 500 units x 20,000 bins with log-normal rates. Windows are 4 s (200 bins) of all units. CPU is the
median over rows or repetitions; wall time stands beside it. The memory map (a byte per token, made by `export_pile`)
is what other projects convert the pile to.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.common import Measured, measure, own_memory, save, show

SIZES = {
    "full": {"files": 4, "rows": 16, "units": 500, "bins": 20_000, "many": 50_000},
    "tiny": {"files": 2, "rows": 8, "units": 40, "bins": 4_000, "many": 300},
}
N_BINS = 200


def make(folder: Path, files: int, rows: int, units: int, bins: int, many: int) -> None:
    """Two piles: ``large`` rows, and ``many`` small ones; and the first as a memory map."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from neuralpile_dagster.reading import Pile
    from neuralpile_dagster.reading.export import export_pile
    from neuralpile_dagster.tables.rows import Row, write_rows
    from neuralpile_dagster.tables.schemas import PILE_SCHEMA, SESSIONS_SCHEMA

    rng = np.random.default_rng(0)

    def large() -> Iterator[Row]:
        for k in range(files * rows):
            rates = rng.lognormal(np.log(0.04), 1.1, (units, 1)).clip(0, 2)
            yield Row(rng.poisson(rates, (units, bins)).astype(np.uint8), "sub", f"ses-{k}", "segment_0", "synthetic")

    small = rng.poisson(0.4, (3, 20)).astype(np.uint8)
    made = {
        "large": (large(), files, rows, units, bins, 1),
        "many": (
            (Row(small, "sub", f"ses-{k // 20}", f"segment_{k % 20}", "synthetic") for k in range(many)),
            25,
            many // 25,
            3,
            20,
            20,
        ),
    }
    for name, (source, n_files, n_rows, n_units, n_bins, n_segments) in made.items():
        for file in range(n_files):
            path = folder / name / f"data/train-{file:05d}-00000000.parquet"
            write_rows(path, [next(source) for _ in range(n_rows)], PILE_SCHEMA)
        sessions = [
            {
                "source_dataset": "synthetic",
                "subject_id": "sub",
                "session_id": f"ses-{k}",
                "n_units": n_units,
                "n_bins": n_bins * n_segments,
                "n_segments": n_segments,
                "bin_width_s": 0.02,
            }
            for k in range(n_files * n_rows // n_segments)
        ]
        (folder / name / "sessions").mkdir()
        schema = SESSIONS_SCHEMA.append(pa.field("source_dataset", pa.string()))
        pq.write_table(pa.Table.from_pylist(sessions, schema), folder / name / "sessions/sessions.parquet")
    export_pile(Pile.open(folder / "large"), folder / "map", "unit-major", progress=lambda _: None)


def _timed(function: Callable[[int], Any], n: int) -> dict[str, float]:
    """Median CPU and wall seconds of a call, after one that is not counted."""
    function(0)
    cpu, wall = [], []
    for k in range(n):
        began = time.process_time(), time.perf_counter()
        function(k)
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return {"cpu_s": median(cpu), "wall_s": median(wall)}


def _pyarrow_rows(folder: Path) -> Callable[[int], np.ndarray]:
    import pyarrow.parquet as pq

    files = [pq.ParquetFile(path) for path in sorted((folder / "large/data").glob("*.parquet"))]
    places = [(file, group) for file in files for group in range(file.num_row_groups)]

    def row(k: int) -> np.ndarray:
        file, group = places[k % len(places)]
        units = file.read_row_group(group, columns=["spike_counts"], use_threads=False)["spike_counts"].chunk(0)
        units = units.flatten()
        return np.asarray(units.flatten()).reshape(len(units), -1)

    return row


def windows_of_rows(folder: Path) -> dict[str, Any]:
    """A window of a row that was not read before, whole rows, and windows of rows that are in the buffer."""
    from neuralpile_dagster.reading import Pile

    pile, by_pyarrow = Pile.open(folder / "large"), _pyarrow_rows(folder)
    n_rows, n_bins = pile.segments.num_rows, pile.segments["n_bins"][0].as_py()
    mapped = np.memmap(folder / "map/counts.u8", np.uint8, mode="r").reshape(n_rows, -1, n_bins)
    rng = np.random.default_rng(0)
    places = [(int(rng.integers(n_rows)), int(rng.integers(n_bins - N_BINS))) for _ in range(500)]
    buffer = {row: pile.packed(row) for row in {row for row, _ in places}}
    return {
        "first window, ours": _timed(lambda k: pile.window(k, 100, N_BINS), n_rows),
        "first window, pyarrow": _timed(lambda k: by_pyarrow(k)[:, 100 : 100 + N_BINS].copy(), n_rows),
        "row, ours": _timed(pile.counts, n_rows),
        "row, pyarrow": _timed(by_pyarrow, n_rows),
        "window from the buffer, ours": _timed(
            lambda k: pile.cut(places[k][0], buffer[places[k][0]], places[k][1], N_BINS), 500
        ),
        "window from the memory map": _timed(
            lambda k: mapped[places[k][0], :, places[k][1] : places[k][1] + N_BINS].copy(), 500
        ),
    }


def streamed_rows(folder: Path) -> dict[str, Any]:  # prints them itself
    """Rows through `datasets`, which cannot begin anywhere else than at a row."""
    import datasets

    files = {"train": sorted(map(str, (folder / "large/data").glob("*.parquet")))}
    rows = iter(datasets.load_dataset("parquet", data_files=files, split="train", streaming=True))
    next(rows)
    began, n = (time.process_time(), time.perf_counter()), 0
    for row in rows:
        np.array(row["spike_counts"], np.uint8)
        n += 1
        if time.perf_counter() - began[1] > 60:
            break
    print(json.dumps({"rows": n, "cpu_s": time.process_time() - began[0], "wall_s": time.perf_counter() - began[1]}))
    sys.stdout.flush()
    os._exit(0)  # a stream that is left early may never end


def job(folder: Path, worker: int, workers: int, batch_by: str) -> dict[str, Any]:
    """An epoch of batches, by one of several workers."""
    from neuralpile_dagster.reading import Pile, Windows

    windows = Windows(Pile.open(folder / "large"), N_BINS, batch_by=batch_by, batch_size=32)
    before, n, order = own_memory("VmRSS"), 0, []
    began = time.process_time()
    for batch in windows.iterate(worker, workers):
        n += len(batch["session"])
        order.append((batch["index"], int(batch["counts"].sum())))
    cpu = time.process_time() - began
    packed = float(np.mean([windows.pile.packed(row).page.nbytes for row in range(4)]))
    return {"windows": n, "cpu_s": cpu, "order": order, "before": before, "peak": own_memory("VmHWM"), "row": packed}


def opened(folder: Path) -> dict[str, Any]:
    """Opening a pile of many rows, and going on in the middle of an epoch."""
    from neuralpile_dagster.reading import Pile, Windows

    opening = _timed(lambda _: Pile.open(folder / "many"), 3)
    pile = Pile.open(folder / "many")
    state = Windows(pile, 5, epochs=None).state_dict() | {"samples": 1_000}

    def resume(_: int) -> None:
        windows = Windows(pile, 5, epochs=None)
        windows.load_state_dict(state)
        next(iter(windows))

    return {"rows": pile.segments.num_rows, "open": opening, "resume": _timed(resume, 3)}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "windows": windows_of_rows,
    "datasets": streamed_rows,
    "job": job,
    "opened": opened,
}


def _step(name: str, folder: Path, *arguments: Any) -> tuple[dict[str, Any], Measured]:
    done = measure(["-m", "bench.reading", "--step", name, str(folder), *map(str, arguments)])
    return done.json(), done


def _leave_after_a_batch(folder: Path) -> Measured:
    code = (
        "from neuralpile_dagster.reading import Pile, Windows\n"
        f"for batch in Windows(Pile.open({str(folder / 'large')!r}), {N_BINS}, epochs=None): break\n"
    )
    return measure(["-c", code])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small rows, for a smoke run")
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, *rest = options.step
        numbers = [int(each) if each.isdigit() else each for each in rest]
        print(json.dumps({"make": make}.get(name, STEPS.get(name))(Path(folder), *numbers)))  # type: ignore[misc]
        return
    size = SIZES["tiny" if options.tiny else "full"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _step("make", folder, *size.values())
        result = run(folder, size)
    print(f"\nwrote {save('reading-tiny' if options.tiny else 'reading', {'size': size, **result})}")


def run(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """All measurements, as tables and as numbers."""
    calls, _ = _step("windows", folder)
    streamed, _ = _step("datasets", folder)
    calls["row, `datasets` streaming"] = {key: streamed[key] / streamed["rows"] for key in ("cpu_s", "wall_s")}
    show(
        f"One call, {size['units']} units x {size['bins']:,} bins a row (median)",
        ["what", "CPU ms", "wall ms"],
        [[name, found["cpu_s"] * 1e3, found["wall_s"] * 1e3] for name, found in calls.items()],
    )
    jobs = {by: _step("job", folder, 0, 1, by)[0] for by in ("session", "padded")}
    parts = [_step("job", folder, worker, 4, "session")[0] for worker in range(4)]
    same = sorted(batch for part in parts for batch in part["order"]) == jobs["session"]["order"]
    alone = jobs["session"]
    over = alone["peak"] - alone["before"] - min(64, size["files"] * size["rows"]) * alone["row"]
    opened_, _ = _step("opened", folder)
    bare = measure(["-c", "pass"]).cpu_s
    light = measure(["-c", "import neuralpile_dagster.reading"]).cpu_s - bare
    left = _leave_after_a_batch(folder)
    rows = [[f"windows per CPU s, batches {by}", job["windows"] / job["cpu_s"]] for by, job in jobs.items()]
    facts = {
        "windows per CPU s from the buffer": 1 / calls["window from the buffer, ours"]["cpu_s"],
        "CPU of four workers together / of one": sum(part["cpu_s"] for part in parts) / alone["cpu_s"],
        "four workers see the same batches": same,
        "memory beyond the buffer, MB": (over + alone["before"]) / 1e6,
        f"opening {opened_['rows']:,} rows, CPU s": opened_["open"]["cpu_s"],
        "resuming in an epoch of them, CPU s": opened_["resume"]["cpu_s"],
        "importing, CPU s": light,
        "a process that leaves after one batch, wall s": left.wall_s,
    }
    show("A training job", ["what", "found"], [*rows, *([name, found] for name, found in facts.items())])

    def ratio(slow: str, fast: str) -> float:
        return calls[slow]["cpu_s"] / calls[fast]["cpu_s"]

    ratios = {
        "first window, pyarrow / ours": ratio("first window, pyarrow", "first window, ours"),
        "row, pyarrow / ours": ratio("row, pyarrow", "row, ours"),
        "row, `datasets` / ours": ratio("row, `datasets` streaming", "row, ours"),
        "window from the buffer / from a memory map": ratio(
            "window from the buffer, ours", "window from the memory map"
        ),
        "CPU, four workers / one": facts["CPU of four workers together / of one"],
    }
    return {"calls": calls, "jobs": {by: {**job, "order": None} for by, job in jobs.items()}, **facts, "ratios": ratios}


if __name__ == "__main__":
    main()
