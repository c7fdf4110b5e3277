"""What `bench.session` runs in processes of their own: ``python -m bench.session_steps STEP ...``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def store(recording: str, folder: str) -> None:
    """NWB file -> spike trains and spike counts in a store, checks and picture, as a Dagster run makes them.

    Prints wall and CPU seconds of the three parts, what they import included.
    """
    from neuralpile_dagster import process

    process.relax_collector()  # as the code location does
    from bench.common import Laps
    from neuralpile_dagster.archives.model import ArchiveFile
    from neuralpile_dagster.checks.registry import judge
    from neuralpile_dagster.checks.session import SessionEvidence
    from neuralpile_dagster.hdf5.opened import LocalFile
    from neuralpile_dagster.ledger.samples import session_sample
    from neuralpile_dagster.recordings.manifest import Session
    from neuralpile_dagster.recordings.model import read_session
    from neuralpile_dagster.session.build import build_spike_counts, pack_recording, store_recording, trains_inputs
    from neuralpile_dagster.settings import Settings
    from neuralpile_dagster.store import LocalStore

    path = Path(recording)
    listed = ArchiveFile(path=path.name, size=path.stat().st_size, file_id=path.name)
    session = Session(key="ses", subject_id="sub", session_id="ses", files=(listed,))
    target, settings = LocalStore(Path(folder)), Settings(home=Path(folder), store=folder)
    inputs = trains_inputs(session, "units")
    laps = Laps()
    contents = read_session("units", [LocalFile(path.name, path)])
    trains = store_recording(target, "sample/spike_trains", session, contents, "-", inputs)
    laps.lap("spike_trains")
    packed = pack_recording(contents, "ses", settings, consume=True)
    del contents
    counts = build_spike_counts(target, "sample/spike_counts", "ses", packed, trains, settings)
    laps.lap("spike_counts")
    verdicts = judge("spike_counts", SessionEvidence(counts, target, counts.inputs, trains=trains))
    if not verdicts["counts_match_spike_trains"].passed:
        raise RuntimeError(verdicts["counts_match_spike_trains"].found)
    from neuralpile_dagster.plots.raster import raster_markdown

    raster_markdown(session_sample(target, counts, synthetic=True), "raster", 29_000)
    laps.lap("checks")
    print(
        json.dumps(
            {
                **laps.found,
                "trains_bytes": trains.file.size,
                "counts_bytes": counts.file.size,
                "spikes": counts.stats.spikes_read,
                "tokens": counts.stats.tokens,
            }
        )
    )


def encode(rows: str, out: str) -> None:
    """Print the seconds in which pyarrow alone, in one thread, encodes the table whose rows a file of ours holds."""
    import pyarrow.parquet as pq

    from neuralpile_dagster.tables.arrow_rows import row_table, writer_settings
    from neuralpile_dagster.tables.rows import RowReader
    from neuralpile_dagster.tables.schemas import ROW_SCHEMA

    wall = cpu = 0.0
    with RowReader(Path(rows)) as reader, pq.ParquetWriter(out, ROW_SCHEMA, **writer_settings(ROW_SCHEMA)) as writer:
        for i in range(reader.n_rows):
            table = row_table(reader.row(i), ROW_SCHEMA)
            start, start_cpu = time.perf_counter(), time.process_time()
            writer.write_table(table, row_group_size=1)
            wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - start_cpu
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "bytes": Path(out).stat().st_size}))


def compare(ours: str, published: str) -> None:
    """Print whether two files hold the same counts in the same segments, bit for bit."""
    import numpy as np
    import pyarrow.parquet as pq

    from neuralpile_dagster.tables.rows import COUNTS_COLUMN, RowReader, counts_matrix

    rows = 0
    equal = True
    with RowReader(Path(ours)) as reader:
        for batch in pq.ParquetFile(published).iter_batches(batch_size=1):
            row = reader.row(rows)
            equal &= batch["segment_id"][0].as_py() == row.segment_id
            equal &= np.array_equal(counts_matrix(batch[COUNTS_COLUMN], published), row.counts)
            rows += 1
        equal &= rows == reader.n_rows
    print(json.dumps({"equal": bool(equal), "rows": rows}))


STEPS = {step.__name__: step for step in (store, encode, compare)}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
