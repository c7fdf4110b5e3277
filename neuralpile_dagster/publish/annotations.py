"""What annotations give to a repository: the bins of each interval, metrics of units, columns of units and sessions.

Joins what is stored of a session (counts, units, annotations, unit order) when it is published, so that stored files
never change with it. Where a session has no annotations, or no order, what they would say is null.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.catalog.unit_rules import parse_rule
from neuralpile_dagster.errors import TableError
from neuralpile_dagster.records import (
    AnnotationTotals,
    CountsRecord,
    StoredFile,
    UnitOrderRecord,
    UnitOrderTotals,
    json_hash,
)
from neuralpile_dagster.store import Store, open_verified
from neuralpile_dagster.tables.annotations import AnnotationsRecord
from neuralpile_dagster.tables.footer import read_table
from neuralpile_dagster.tables.schemas import (
    INTERVALS_SCHEMA,
    PUBLISHED_UNITS_SCHEMA,
    STORED_INTERVALS_SCHEMA,
    STORED_METRICS_SCHEMA,
    UNIT_METRICS_SCHEMA,
    UNITS_SCHEMA,
)
from neuralpile_dagster.tables.units import read_order, read_units

TRIALS, INVALID_TIMES = "trials", "invalid_times"
_NOTE = "electrodes.note"
_NUMBERS_IN_UNITS = {
    "electrodes.x": "x_um",
    "electrodes.y": "y_um",
    "electrodes.z": "z_um",
    "electrodes.id": "electrode",
}
IN_UNITS = (*_NUMBERS_IN_UNITS, _NOTE)
"""Metrics that are columns of ``units`` instead (`recordings.nwb.annotations` names them)."""


def matching(
    annotations: Mapping[str, AnnotationsRecord], records: Mapping[str, CountsRecord]
) -> dict[str, AnnotationsRecord]:
    """Annotations of the archive files that the published counts were made from, by key."""
    return {
        key: annotations[key]
        for key, record in records.items()
        if key in annotations and annotations[key].trains_inputs == record.trains_inputs
    }


def annotations_digest(dataset: Dataset, annotations: Mapping[str, AnnotationsRecord]) -> str:
    """Hash of what a component's annotations are made from; empty without any."""
    if not annotations:
        return ""
    files = {key: [file.sha256 for file in record.files] for key, record in annotations.items()}
    return json_hash([files, dataset.good_units])


def totals(dataset: Dataset, annotations: Mapping[str, AnnotationsRecord]) -> AnnotationTotals | None:
    """Numbers of a component's annotations; None without any."""
    if not annotations:
        return None
    tables: Counter[str] = Counter()
    for record in annotations.values():
        tables.update(record.tables)
    return AnnotationTotals(
        digest=annotations_digest(dataset, annotations),
        sessions=len(annotations),
        with_intervals=sum(any(record.tables.values()) for record in annotations.values()),
        with_metrics=sum(bool(record.metrics) for record in annotations.values()),
        tables=dict(sorted(tables.items())),
        metrics=tuple(sorted({name for record in annotations.values() for name in record.metrics} - {*IN_UNITS})),
    )


def matching_orders(
    orders: Mapping[str, UnitOrderRecord], records: Mapping[str, CountsRecord]
) -> dict[str, UnitOrderRecord]:
    """Unit orders that were made from the published counts, by key."""
    return {
        key: orders[key]
        for key, record in records.items()
        if key in orders and orders[key].counts_sha256 == record.file.sha256
    }


def order_totals(orders: Mapping[str, UnitOrderRecord]) -> UnitOrderTotals | None:
    """Numbers of a component's unit orders, and the hash of all of them; None without any."""
    if not orders:
        return None
    files = {key: record.file.sha256 for key, record in orders.items()}
    return UnitOrderTotals(digest=json_hash(files), sessions=len(orders))


def origin_of(dataset: Dataset, record: CountsRecord) -> float | None:
    """Time at which bin 0 of a session begins; None where its counts have no clock."""
    clock = record.stats.clock
    if clock is not None:
        return clock.start_s
    return 0.0 if get_reader(dataset.reader).annotations == "units" else None


@dataclass(frozen=True)
class AnnotatedFacts:
    """What a session's tables say beyond its records.

    Attributes
    ----------
    origin_s : float or None
        Time at which bin 0 begins, on the clock of the spike times.
    observed_s : float or None
        In which any unit was observed, without invalid times.
    areas : tuple of str
        The different brain areas of its units.
    n_trials : int or None
        Rows of its table of trials; None without annotations.
    """

    origin_s: float | None
    observed_s: float | None
    areas: tuple[str, ...]
    n_trials: int | None


@dataclass(frozen=True)
class AnnotatedSession:
    """One session to publish, with its annotations and the order of its units if it has any."""

    store: Store
    dataset: Dataset
    record: CountsRecord
    annotations: AnnotationsRecord | None
    order: UnitOrderRecord | None = None

    @property
    def origin_s(self) -> float | None:
        """Time at which bin 0 begins; None where the counts have no clock."""
        return origin_of(self.dataset, self.record)

    def intervals(self) -> pa.Table:
        """Its rows of the ``intervals`` config; empty without annotations."""
        if self.annotations is None:
            return INTERVALS_SCHEMA.empty_table()
        stats = self.record.stats
        stored = self._read(self.annotations.file, STORED_INTERVALS_SCHEMA)
        return interval_rows(stored, self.record.session_id, self.origin_s, stats.bin_width_s, stats.n_bins)

    def unit_metrics(self) -> pa.Table:
        """Its rows of the ``unit_metrics`` config; empty without annotations."""
        import pyarrow.compute as pc

        if self.annotations is None:
            return UNIT_METRICS_SCHEMA.empty_table()
        stored = self._read(self.annotations.units_file, STORED_METRICS_SCHEMA)
        kept = stored.filter(pc.invert(pc.is_in(stored["name"], pa.array([*IN_UNITS]))))
        return pa.table([_repeat(self.record.session_id, kept.num_rows), *kept.columns], schema=UNIT_METRICS_SCHEMA)

    def units(self) -> tuple[pa.Table, AnnotatedFacts]:
        """Its rows of the ``units`` config, and what they say about the session."""
        from neuralpile_dagster.binning.clock import observed_times

        with open_verified(self.store, self.record.units_file) as opened:
            units = read_units(opened, self.record.units_file.key)
        stats, invalid = self.record.stats, self._invalid_times(units["probe"].to_pylist())
        intervals = units["obs_intervals"].to_pylist()
        per_unit, observed = observed_times(intervals, stats.clock, self.origin_s or 0.0, stats.duration_s, invalid)
        if stats.clock is not None and not any(map(len, invalid)):
            observed = stats.clock.observed_s
        columns = {"observed_s": _floats(per_unit), **self._of_annotations(units)}
        if self.order is not None:
            with open_verified(self.store, self.order.file) as opened:
                columns["order"] = pa.array(read_order(opened, self.order.file.key, units.num_rows))
        for field in list(PUBLISHED_UNITS_SCHEMA)[len(UNITS_SCHEMA) :]:
            column = columns.get(field.name)
            units = units.append_column(
                field, pa.nulls(units.num_rows, field.type) if column is None else column.cast(field.type)
            )
        areas = {area for area in units["brain_area"].to_pylist() if area}
        n_trials = None if self.annotations is None else self.annotations.tables.get(TRIALS, 0)
        return units, AnnotatedFacts(self.origin_s, observed, tuple(sorted(areas)), n_trials)

    def _read(self, file: StoredFile, schema: pa.Schema) -> pa.Table:
        with open_verified(self.store, file) as opened:
            return read_table(opened, schema, file.key)

    def _invalid_times(self, probes: Sequence[str | None]) -> list[np.ndarray]:
        """Invalid times of each unit; those that name probes of the session in their columns are of these alone."""
        import pyarrow.compute as pc

        if self.annotations is None or INVALID_TIMES not in self.annotations.tables:
            return [np.zeros((0, 2))] * len(probes)
        stored = self._read(self.annotations.file, STORED_INTERVALS_SCHEMA)
        table = stored.filter(pc.equal(stored["table"], INVALID_TIMES))
        times = np.stack([table["start_time"].to_numpy(), table["stop_time"].to_numpy()], axis=1)
        known = {probe for probe in probes if probe}
        named = [known & _texts(json.loads(values)) for values in table["values"].to_pylist()]
        of_probe = {
            probe: times[[not some or probe in some for some in named]].reshape(-1, 2) for probe in {*known, None}
        }
        return [of_probe[probe or None] for probe in probes]

    def _of_annotations(self, units: pa.Table) -> dict[str, pa.Array]:
        """Columns that the annotations give to the units table, by name."""
        if self.annotations is None:
            return {}
        stored = self._read(self.annotations.units_file, STORED_METRICS_SCHEMA)
        numbers, texts = columns_of_units(stored, units)
        found = {column: _floats(numbers[name]) for name, column in _NUMBERS_IN_UNITS.items() if name in numbers}
        if _NOTE in texts:
            found["coordinate_note"] = pa.array(texts[_NOTE].tolist(), pa.string())
        if self.dataset.good_units:
            rules = {name: parse_rule(rule) for name, rule in self.dataset.good_units.items()}
            holds = {name: rule.holds(numbers, texts, units.num_rows) for name, rule in rules.items()}
            good = [[name for name in rules if holds[name][unit]] for unit in range(units.num_rows)]
            found["good"] = pa.array(good, pa.list_(pa.string()))
        return found


def interval_rows(
    stored: pa.Table, session_id: str, origin_s: float | None, bin_width_s: float, n_bins: int
) -> pa.Table:
    """Add the bins that each interval spans.

    An interval spans the bins from that of its start to before that of its stop, cut to the session's. Both are null
    where the time is not known, or the counts have no clock.

    Parameters
    ----------
    stored : pyarrow.Table
        Of `STORED_INTERVALS_SCHEMA`.
    session_id : str
    origin_s : float or None
        Time at which bin 0 begins.
    bin_width_s : float
    n_bins : int
        Of the session.

    Returns
    -------
    pyarrow.Table
        Of `INTERVALS_SCHEMA`.
    """
    start, start_known = _bins(stored["start_time"].to_numpy(), bin_width_s, origin_s)
    stop, stop_known = _bins(stored["stop_time"].to_numpy(), bin_width_s, origin_s)
    inside = start_known & stop_known & (start < n_bins) & ((start >= 0) | (stop > 0))
    columns = {
        "session_id": _repeat(session_id, stored.num_rows),
        "start_bin": pa.array(np.clip(start, 0, n_bins), mask=~start_known),
        "stop_bin": pa.array(np.clip(stop, 0, n_bins), mask=~stop_known),
        "inside": pa.array(inside),
        **{name: stored[name] for name in stored.schema.names},
    }
    return pa.table([columns[name] for name in INTERVALS_SCHEMA.names], schema=INTERVALS_SCHEMA)


def _bins(times: np.ndarray, width: float, origin: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Bin of each time, and whether it is known."""
    from neuralpile_dagster.binning.clock import bins_of_times

    known = ~np.isnan(times) if origin is not None else np.zeros(len(times), bool)
    return bins_of_times(np.where(known, times, 0.0), width, origin or 0.0), known


def columns_of_units(stored: pa.Table, units: pa.Table) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Metrics of units as columns, by name: numbers (NaN where not stated) and texts (None where not stated).

    Columns of the units table itself are among them where no metric has their name.

    Returns
    -------
    numbers : dict of str to numpy.ndarray, float64, shape (n_units,)
    texts : dict of str to numpy.ndarray, object, shape (n_units,)

    Raises
    ------
    TableError
        A metric is of units that were not counted.
    """
    import pyarrow.compute as pc

    n_units = units.num_rows
    numbers: dict[str, np.ndarray] = {}
    texts: dict[str, np.ndarray] = {}
    for field in units.schema:
        if pa.types.is_string(field.type):
            texts[field.name] = np.array(units[field.name].to_pylist(), object)
        elif pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            numbers[field.name] = units[field.name].to_numpy().astype(np.float64)
    for name in pc.unique(stored["name"]).to_pylist():
        chosen = stored.filter(pc.equal(stored["name"], name))
        rows = chosen["row"].to_numpy()
        if len(rows) and (rows.min() < 0 or rows.max() >= n_units):
            raise TableError(
                f"the metric {name} is of other units than were counted",
                found=f"row {rows.max()} of {n_units:,} units",
                remedy="materialize the session's annotations again",
            )
        numbers[name], texts[name] = np.full(n_units, np.nan), np.full(n_units, None, object)
        numbers[name][rows] = chosen["value"].to_numpy()
        texts[name][rows] = np.array(chosen["text"].to_pylist(), object)
    return numbers, texts


def units_tables(sessions: Iterable[AnnotatedSession], facts: list[AnnotatedFacts]) -> Iterator[pa.Table]:
    """Tables of the ``units`` config, one per session; ``facts`` gains what each says about its session."""
    for session in sessions:
        table, found = session.units()
        facts.append(found)
        yield table


def _texts(values: Mapping[str, Any]) -> set[str]:
    """All texts among the columns of a row of intervals."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return {item for items in lists for item in items if isinstance(item, str)}


def _repeat(text: str, times: int) -> pa.Array:
    return pa.array([text] * times, pa.string())


def _floats(values: np.ndarray) -> pa.Array:
    """Numbers in which NaN is null."""
    return pa.array(values, pa.float64(), from_pandas=True)
