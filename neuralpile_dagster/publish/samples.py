"""Random rows for pictures, with what is known of them: from records of the store, or from a published repository.

Drawing belongs in `plots`; finding the files that a person names belongs in `ledger.samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuralpile_dagster.files import write_bytes
from neuralpile_dagster.plots.window import NO_FACTS, Ordering, RasterSample, SegmentFacts, sample_window
from neuralpile_dagster.publish.configs import EXTRA_SCHEMAS, config_path
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.rows import Row, RowReader
from neuralpile_dagster.tables.units import read_units

Describe = Callable[[Row], SegmentFacts]
"""What is known of a row beside its counts."""
CARD_PICTURE, CARD_SAMPLES, CARD_SEED = "raster.png", 4, 0
"""The picture on a card: what ``neuralpile raster REPOSITORY -n 4`` draws."""
SYNTHETIC_PREFIX = "sample-"
"""Prefix of synthetic datasets' names, reserved for them by `catalog.model.Dataset`."""


@dataclass(frozen=True)
class RowFiles:
    """Files of rows to draw, and what is known of their rows.

    Attributes
    ----------
    names : sequence of str
    open_file : callable
        Opens one of them by its name.
    synthetic : bool
        Whether titles must say so.
    describe : callable
    """

    names: Sequence[str]
    open_file: Callable[[str], pa.NativeFile]
    synthetic: bool = False
    describe: Describe = lambda _: NO_FACTS

    def random(self, count: int, seed: int) -> list[RasterSample]:
        """Windows of randomly chosen rows of randomly chosen files; same seed, same windows.

        Rows of a file are chosen in proportion to their compressed bytes: silent ones have next to none.
        """
        rng = np.random.default_rng(seed)
        n_files = len(self.names)
        chosen = sorted(rng.choice(n_files, size=min(count, n_files), replace=False)) if n_files else []
        samples: list[RasterSample] = []
        with ExitStack() as stack:
            readers = [stack.enter_context(self._reader(self.names[i])) for i in chosen]
            for reader, wanted in zip(readers, _shares([reader.n_rows for reader in readers], count), strict=True):
                for number in _random_rows(reader, wanted, rng):
                    samples.append(self._sample(reader.row(number), rng))
        return samples

    def in_orders(self, orderings: Iterable[Ordering], seed: int) -> list[RasterSample]:
        """One window of one random row of the first file, in several orders of its units; same seed, same window."""
        with self._reader(self.names[0]) as reader:
            row = reader.row(_random_rows(reader, 1, np.random.default_rng(seed))[0])
        return [self._sample(row, np.random.default_rng(seed), ordering) for ordering in orderings]

    def every(self, seed: int) -> Iterator[RasterSample]:
        """A window of every row, in order, one row in memory; same seed, same windows."""
        rng = np.random.default_rng(seed)
        for name in self.names:
            with self._reader(name) as reader:
                for number in range(reader.n_rows):
                    yield self._sample(reader.row(number), rng)

    def _reader(self, name: str) -> RowReader:
        return RowReader(self.open_file(name), name)

    def _sample(self, row: Row, rng: np.random.Generator, ordering: Ordering | None = None) -> RasterSample:
        label = f"{row.source_dataset} · " if row.source_dataset else ""
        made_up = self.synthetic or (row.source_dataset or "").startswith(SYNTHETIC_PREFIX)
        title = f"{label}{row.session_id} · {row.segment_id}"
        return sample_window(row.counts, title, rng, made_up, self.describe(row), ordering)


def _random_rows(reader: RowReader, count: int, rng: np.random.Generator) -> list[int]:
    weights = np.array(reader.group_bytes, float) + 1
    return sorted(rng.choice(reader.n_rows, count, False, weights / weights.sum()).tolist()) if count else []


def _shares(available: Sequence[int], count: int) -> list[int]:
    """Number of rows to take from each file, ``count`` in all: equal shares, limited by the rows available."""
    shares = [0] * len(available)
    while sum(shares) < min(count, sum(available)):
        for position, rows in enumerate(available):
            if shares[position] < rows and sum(shares) < count:
                shares[position] += 1
    return shares


def recorded_facts(store: Store, records: Iterable[CountsRecord]) -> Describe:
    """Facts of rows from the records of their sessions, and from the units tables beside them."""
    by_session = {(record.subject_id, record.session_id): record for record in records}

    def describe(row: Row) -> SegmentFacts:
        record = by_session.get((row.subject_id, row.session_id))
        if record is None:
            return NO_FACTS
        with store.open(record.units_file.key) as file:
            areas = read_units(file, record.units_file.key)["brain_area"].to_pylist()
        ends = accumulate(segment.n_bins for segment in record.rows)
        starts = {s.segment_id: end - s.n_bins for s, end in zip(record.rows, ends, strict=True)}
        first = starts.get(row.segment_id)
        stats = record.stats
        clock = None if stats.clock is None else stats.clock.start_s
        return SegmentFacts(areas, stats.bin_width_s, first, stats.n_bins, clock, stats.activity)

    return describe


def published_facts(open_file: Callable[[str], pa.NativeFile], paths: Iterable[str]) -> Describe:
    """Facts of rows from the ``sessions`` and ``units`` configs of a repository, as far as it has them.

    Parameters
    ----------
    open_file : callable
        Opens a file of the repository.
    paths : iterable of str
        Its files.
    """
    present = set(paths)
    sessions, units = (
        _published_table(open_file, name) if config_path(name) in present else None for name in ("sessions", "units")
    )

    def describe(row: Row) -> SegmentFacts:
        known = _rows_of_session(sessions, row)
        if not known:
            return NO_FACTS
        session = known[0]
        areas = [unit["brain_area"] for unit in sorted(_rows_of_session(units, row), key=lambda unit: unit["row"])]
        number, length = row.segment_id.rpartition("_")[2], row.counts.shape[1]
        first = None
        if number.isdigit():  # all segments have one length but the last, which ends with the session
            last = int(number) == session["n_segments"] - 1
            first = session["n_bins"] - length if last else int(number) * length
        return SegmentFacts(areas, session["bin_width_s"], first, session["n_bins"], session.get("origin_s"))

    return describe


def _published_table(open_file: Callable[[str], pa.NativeFile], name: str) -> pa.Table | None:
    path = config_path(name)
    with open_file(path) as file, damaged(path):
        table = open_parquet(file, path).read()
    columns = set(EXTRA_SCHEMAS[name][0].names)
    return table if columns <= set(table.schema.names) else None


def _rows_of_session(table: pa.Table | None, row: Row) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    if table is None:
        return []
    ids = {"subject_id": row.subject_id, "session_id": row.session_id, "source_dataset": row.source_dataset}
    for name, value in ids.items():
        if name in table.schema.names and value is not None:
            table = table.filter(pc.equal(table[name], value))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def folder_samples(
    folder: Path, count: int, seed: int, synthetic: bool = False, shards: Sequence[str] | None = None
) -> list[RasterSample]:
    """Windows of random rows of a published folder, or of one laid out to be published.

    ``shards`` are the paths of its Parquet files of rows; None takes all files in ``data/``.
    """

    def open_file(name: str) -> pa.NativeFile:
        return pa.OSFile(str(folder / name), "rb")

    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))
    files = shards or [path for path in paths if path.startswith("data/")]
    made_up = synthetic or folder.absolute().name.startswith(SYNTHETIC_PREFIX)
    return RowFiles(files, open_file, made_up, published_facts(open_file, paths)).random(count, seed)


def write_card_picture(folder: Path, shards: Iterable[str], synthetic: bool) -> None:
    """Draw random rows of a folder that is laid out to be published, into its `CARD_PICTURE`."""
    from neuralpile_dagster.plots.raster import raster_png

    samples = folder_samples(folder, CARD_SAMPLES, CARD_SEED, synthetic, sorted(shards))
    write_bytes(folder / CARD_PICTURE, raster_png(samples))
