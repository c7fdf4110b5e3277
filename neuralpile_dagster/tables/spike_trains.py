"""Write and read a session's recording in the store: one row per unit, with labels and spike times or counts.

Lossless to the last bit. Why spike times are stored as they are is measured in docs/performance.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.recordings.model import BinnedCounts, BinRule, Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.tables.footer import damaged, open_parquet, require_schema
from neuralpile_dagster.tables.units import UNIT_FIELDS, unit_columns, units_of

TICKS = pa.list_(pa.field("element", pa.int64(), nullable=False))
COUNTS = pa.list_(pa.field("element", pa.uint8(), nullable=False))
TRAINS_SCHEMA = pa.schema([*UNIT_FIELDS, pa.field("ticks_per_s", pa.float64()), pa.field("ticks", TICKS, False)])
"""``ticks / ticks_per_s`` are spike times in seconds; where that is null, ``ticks`` are their float64 bit patterns."""
BINNED_SCHEMA = pa.schema([*UNIT_FIELDS, pa.field("counts", COUNTS, nullable=False)])

GROUP_VALUES = 1 << 22
"""Spikes (or tokens) of a row group, unless one unit has more: what is held in memory besides the recording."""
RATES_HZ = (1e3, 1e4, 2e4, 24414.0625, 2.5e4, 3e4, 32e3, 4e4, 1e5, 1e6)
"""Sampling clocks of common amplifiers (24414.0625 Hz: Tucker-Davis), and rounding to decimals."""
_CLOCKS = np.array(RATES_HZ)[:, None]
_PROBE = 64
_FACTS_KEY = b"neuralpile.recording"


def write_recording(target: Path | BinaryIO, recording: Recording) -> None:
    """Write a recording to a Parquet file; holds a row group besides it. The same recording gives the same bytes."""
    data = recording.data
    facts: dict[str, Any] = {"facts": asdict(recording.facts), "notes": recording.notes}
    if isinstance(data, SpikeTrains):
        schema, column = TRAINS_SCHEMA, "ticks"
        facts |= {"bin_rule": data.bin_rule, "n_spikes": data.n_spikes}
        tables = _train_tables(recording.units, data)
    else:
        schema, column = BINNED_SCHEMA, "counts"
        facts |= {name: value for name, value in vars(data).items() if name != "counts"}
        if not data.bins_dropped:
            del facts["bins_dropped"]  # files of before do not have it, and stay the same
        facts["n_bins"] = data.counts.shape[1]
        tables = _binned_tables(recording.units, data.counts)
    if len(recording.units) != data.n_units:
        raise ValueError(f"{len(recording.units)} units described, {data.n_units} recorded")
    ticks = column == "ticks"
    first = next(tables)
    # zstd saves nothing of bit patterns and takes a quarter of the time of writing them
    plain = {"ticks.list.element"} if ticks and first["ticks_per_s"].null_count == len(first) else set()
    with pq.ParquetWriter(
        target,
        schema.with_metadata({_FACTS_KEY: json.dumps(facts)}),
        compression={leaf: "none" if leaf in plain else "zstd" for leaf in _leaves(schema)},
        compression_level={leaf: 1 for leaf in _leaves(schema) if leaf not in plain},
        use_dictionary=[field.name for field in UNIT_FIELDS] + ([] if ticks else ["counts.list.element"]),
        column_encoding={"ticks.list.element": "DELTA_BINARY_PACKED"} if ticks else None,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=max(len(table), 1))
    pa.default_memory_pool().release_unused()  # what encoding took, while the caller still holds all spike times


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns."""
    found = []
    for field in schema:
        path, kind = field.name, field.type
        while pa.types.is_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        found.append(path)
    return found


def _groups(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of units that hold about `GROUP_VALUES` values each."""
    start = total = 0
    for unit, size in enumerate(sizes.tolist()):
        if total and total + size > GROUP_VALUES:
            yield start, unit
            start, total = unit, 0
        total += size
    yield start, len(sizes)


def _list_array(values: np.ndarray, sizes: np.ndarray, kind: pa.ListType) -> pa.ListArray:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values), type=kind)


def _train_tables(units: tuple[Unit, ...], trains: SpikeTrains) -> Iterator[pa.Table]:
    times = np.ascontiguousarray(trains.spike_times, np.float64)
    sizes = np.diff(trains.ends, prepend=0)
    rate: float | None = None
    stop = 0
    for first, last in _groups(sizes):
        start, stop = stop, stop + int(sizes[first:last].sum())
        group = times[start:stop]
        ticks = group.view(np.int64)  # not copied unless a unit's times are ticks
        rates = []
        end = 0
        for size in sizes[first:last].tolist():
            begin, end = end, end + size
            found, rate = to_ticks(group[begin:end], rate)
            rates.append(rate)
            if rate is not None:
                ticks = ticks.copy() if ticks.base is not None else ticks
                ticks[begin:end] = found
        columns = [pa.array(rates, pa.float64()), _list_array(ticks, sizes[first:last], TICKS)]
        yield pa.Table.from_arrays([*unit_columns(units[first:last]), *columns], schema=TRAINS_SCHEMA)


def _binned_tables(units: tuple[Unit, ...], counts: np.ndarray) -> Iterator[pa.Table]:
    sizes = np.full(len(counts), counts.shape[1], np.int64)
    for first, last in _groups(sizes):
        values = np.ascontiguousarray(counts[first:last]).reshape(-1)
        column = _list_array(values, sizes[first:last], COUNTS)
        yield pa.Table.from_arrays([*unit_columns(units[first:last]), column], schema=BINNED_SCHEMA)


def read_recording(file: Path | pa.NativeFile, name: str = "") -> Recording:
    """Read what `write_recording` wrote; holds one row group besides the recording.

    Raises `TableError`, naming the file ``name``, when it is damaged or another table.
    """
    name = name or (str(file) if isinstance(file, Path) else "a stored recording")
    with _understood(name):
        parquet, facts, session, notes = _open(file, name)
        due = facts["n_spikes"] if "bin_rule" in facts else parquet.metadata.num_rows * facts["n_bins"]
        _require_values(parquet, due, name)
        units, data = _data_of(_row_groups(parquet, name), due, facts, name)
    return Recording(data, units, session, notes)


def read_units_near(file: Path | pa.NativeFile, name: str, unit: int, most: int) -> tuple[int, Recording]:
    """Read a few units of what `write_recording` wrote; at most the row group with them is decoded.

    Parameters
    ----------
    file : Path or pyarrow.NativeFile
    name : str
        How errors call it.
    unit : int
        Number of a unit (any whole number: counted around) that is among them.
    most : int
        Units at most.

    Returns
    -------
    first : int
        Number of the first of them.
    recording : Recording
        The units and their data; sums such as ``BinnedCounts.spikes_read`` are those of the whole recording.

    Raises
    ------
    TableError
        As `read_recording`.
    """
    with _understood(name):
        parquet, facts, session, notes = _open(file, name)
        first, batch = _rows_near(parquet, unit % parquet.metadata.num_rows, most, name)
        table = pa.Table.from_batches([batch])
        due = len(table.column(table.num_columns - 1).chunk(0).flatten())
        units, data = _data_of([table], due, facts, name)
    return first, Recording(data, units, session, notes)


def read_bin_rule(file: Path, name: str) -> BinRule:
    """The rule by which stored spike times are binned; only the file's footer is read.

    Raises `TableError`, naming the file ``name``, when it is damaged, another table, or holds ready-made counts.
    """
    with _understood(name):
        rule: BinRule = _open(file, name)[1]["bin_rule"]
        return rule


def _rows_near(parquet: pq.ParquetFile, row: int, most: int, name: str) -> tuple[int, pa.RecordBatch]:
    """At most so many rows with this one among them, and the number of their first."""
    first = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if row >= first + rows:
            first += rows
            continue
        with damaged(name):
            for batch in parquet.iter_batches(most, row_groups=[group], use_threads=False):
                if row < first + len(batch):
                    return first, batch
                first += len(batch)
    raise TableError(f"{name} is damaged", found=f"no row {row}")


@contextmanager
def _understood(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise TableError(f"{name} is damaged", found=f"{type(error).__name__}: {error}") from error


def _open(
    file: Path | pa.NativeFile, name: str
) -> tuple[pq.ParquetFile, dict[str, Any], SessionFacts, tuple[str, ...]]:
    """Open a stored recording; the facts about its data have a ``bin_rule`` where these are spikes."""
    parquet = open_parquet(file, name)
    schema = parquet.schema_arrow
    if _FACTS_KEY not in (schema.metadata or {}):
        raise TableError(f"{name} is not a stored recording", found=", ".join(schema.names))
    facts: dict[str, Any] = json.loads(schema.metadata[_FACTS_KEY])
    session = SessionFacts(**facts.pop("facts"))
    notes = tuple(facts.pop("notes"))
    require_schema(schema, TRAINS_SCHEMA if "bin_rule" in facts else BINNED_SCHEMA, name)
    return parquet, facts, session, notes


def _require_values(parquet: pq.ParquetFile, due: int, name: str) -> None:
    """Raise when the file cannot hold so many values, before memory is allocated for them."""
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    held = sum(group.column(group.num_columns - 1).num_values for group in groups)
    if not 0 <= due <= held:
        raise TableError(f"{name} is damaged", found=f"at most {held:,} values", expected=f"{due:,} values")


def _row_groups(parquet: pq.ParquetFile, name: str) -> Iterator[pa.Table]:
    for group in range(parquet.num_row_groups):
        with damaged(name):
            table = parquet.read_row_group(group)
        yield table


def _data_of(
    tables: Iterable[pa.Table], due: int, facts: dict[str, Any], name: str
) -> tuple[tuple[Unit, ...], SpikeTrains | BinnedCounts]:
    """Units, and the ``due`` values of the last column of tables with them; an error where there are more or fewer."""
    are_spikes = "bin_rule" in facts
    held = np.empty(due, np.float64 if are_spikes else np.uint8)
    units: list[Unit] = []
    ends = [np.zeros(0, np.int64)]
    stop = 0
    for table in tables:
        column = table.column(table.num_columns - 1)
        lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        values, sizes = lists.flatten().to_numpy(), np.diff(np.asarray(lists.offsets))
        start, stop = stop, stop + len(values)
        if stop > due:
            break
        units += units_of(table)
        ends.append(start + np.cumsum(sizes, dtype=np.int64))
        if are_spikes:
            _times_of(table, values, sizes, held[start:stop])
        else:
            held[start:stop] = values
    if stop != due:
        raise TableError(f"{name} is damaged", found=f"{stop:,} values", expected=f"{due:,} values")
    if are_spikes:
        return tuple(units), SpikeTrains(held, np.concatenate(ends), facts["bin_rule"])
    return tuple(units), BinnedCounts(held.reshape(len(units), facts.pop("n_bins")), **facts)


def _times_of(table: pa.Table, ticks: np.ndarray, sizes: np.ndarray, times: np.ndarray) -> None:
    """Fill ``times`` with those of a table's units, whose ``ticks`` lie one after the other."""
    stop = 0
    for rate, size in zip(table["ticks_per_s"].to_pylist(), sizes.tolist(), strict=True):
        start, stop = stop, stop + size
        from_ticks(ticks[start:stop], rate, times[start:stop])


def to_ticks(times: np.ndarray, likely: float | None = None) -> tuple[np.ndarray, float | None]:
    """Turn a unit's spike times into ticks of a clock, where that gives back every bit.

    Parameters
    ----------
    times : numpy.ndarray, float64, shape (n_spikes,)
        Seconds.
    likely : float or None
        The clock (Hz) to try first.

    Returns
    -------
    ticks : numpy.ndarray, int64, shape (n_spikes,)
    rate : float or None
        Ticks per second; None when ``ticks`` are the bit patterns of ``times``.
    """
    if len(times):
        # test a few spikes first: most wrong clocks fail without a pass over all of them
        probe = times[:: len(times) // _PROBE + 1]
        with np.errstate(over="ignore", invalid="ignore"):
            again = np.rint(probe * _CLOCKS).astype(np.int64) / _CLOCKS
        fits = (again.view(np.int64) == probe.view(np.int64)).all(axis=1)
        for rate in sorted((RATES_HZ[k] for k in np.flatnonzero(fits)), key=lambda rate: rate != likely):
            ticks = _ticks(times, rate)
            if ticks is not None:
                return ticks, rate
    return times.view(np.int64), None


def _ticks(times: np.ndarray, rate: float) -> np.ndarray | None:
    """Ticks of a clock, or None unless they reproduce every bit of ``times``."""
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity never compare equal
        ticks = np.rint(times * rate).astype(np.int64)
    again = np.empty_like(times)
    from_ticks(ticks, rate, again)
    return ticks if np.array_equal(again.view(np.int64), times.view(np.int64)) else None


def from_ticks(ticks: np.ndarray, rate: float | None, out: np.ndarray) -> None:
    """Give back the times that `to_ticks` was given.

    Parameters
    ----------
    ticks : numpy.ndarray, int64, shape (n_spikes,)
    rate : float or None
        As `to_ticks` returned it, ticks per second.
    out : numpy.ndarray, float64, shape (n_spikes,)
        Filled with seconds.
    """
    if rate is None:
        out.view(np.int64)[:] = ticks
    else:
        np.divide(ticks, rate, out=out)
