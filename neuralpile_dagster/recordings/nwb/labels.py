"""Labels of units in an NWB units table: brain area (and its source column), probe, quality, cell type.

The columns are those that the files of the catalog's datasets have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import h5py
import numpy as np

from neuralpile_dagster.hdf5.careful import find
from neuralpile_dagster.hdf5.text import Labels, TooMuchText, bounded, joined, read_attribute, text_of
from neuralpile_dagster.recordings.model import Unit
from neuralpile_dagster.recordings.nwb.table import ELECTRODE_GROUPS, Table, open_table

ELECTRODES = f"{ELECTRODE_GROUPS}/electrodes"
AREA_COLUMNS = ("location", "brain_region", "region")
PROBE_COLUMNS = ("probe_name", "probe", "group_name", "group")
QUALITY_COLUMNS = ("quality", "KSLabel", "phy_annotations")
LABEL_PLACEHOLDERS = frozenset({"unknown", "nan", "none", "null", "n/a", "na"})  # placeholders for a missing value

ElectrodeRows = list[np.ndarray]


def read_units(table: Table, ids: np.ndarray) -> tuple[Unit, ...]:
    """Read one `Unit` per row of the units table.

    Brain area: for each unit the first of ``location``, ``brain_region``,
    ``region`` of the unit; ``electrodes`` -> ``location``; ``peak_channel_id``
    -> electrode of that id -> ``location``; ``electrode_group`` -> its
    ``location`` that is not a placeholder. Several different areas of one unit's
    electrodes are joined by ``", "``.

    Parameters
    ----------
    table : Table
        ``/units``. Columns that were found but not usable are added to its notes.
    ids : numpy.ndarray, integer, shape (n_units,)
    """
    places = _LocationColumns(table)
    areas = _first_labels(places.areas(), table.n_rows)
    probes = _first_labels(places.probes(), table.n_rows)
    nothing = [None] * table.n_rows
    qualities = next((labels for labels in map(table.labels, QUALITY_COLUMNS) if labels), nothing)
    cell_types = table.labels("cell_type") or nothing
    observed = table.intervals("obs_intervals") or nothing
    file = PurePosixPath(table.opened.name).name
    rows = zip(ids.tolist(), areas, probes, qualities, cell_types, observed, strict=True)
    return tuple(
        Unit(
            unit_id=unit_id,
            file=file,
            brain_area=area,
            brain_area_from=area_from,
            probe=probe,
            quality=quality,
            cell_type=cell_type,
            obs_intervals=intervals,
        )
        for unit_id, (area, area_from), (probe, _), quality, cell_type, intervals in rows
    )


def _first_labels(sources: Iterator[tuple[str, Labels]], n_rows: int) -> list[tuple[str | None, str | None]]:
    """First meaningful label of each unit, and its source; later sources are read only if still needed."""
    found: list[tuple[str | None, str | None]] = [(None, None)] * n_rows
    missing = n_rows
    while missing and (source := next(sources, None)) is not None:
        for row, label in enumerate(source[1]):
            if found[row][0] is None and label is not None and label.lower() not in LABEL_PLACEHOLDERS:
                found[row] = (label, source[0])
                missing -= 1
    return found


class _LocationColumns:
    """Columns that lead from a unit to its location; each is read once, on first use."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._columns: dict[str, Labels | None] = {}
        self._electrodes: Table | None = None
        self._rows: dict[str, ElectrodeRows] | None = None

    def areas(self) -> Iterator[tuple[str, Labels]]:
        """Brain areas per unit, by source, the preferred first."""
        for column in AREA_COLUMNS:
            labels = self.table.labels(column)
            if labels is not None:
                yield f"units.{column}", labels
        yield from self._by_electrode("location")
        groups = self._group_paths()
        if groups is not None:
            places = {path: self._group_location(path) for path in set(groups) if path is not None}
            yield from self._unless_too_long(
                "units.electrode_group -> location", (None if path is None else places[path] for path in groups)
            )

    def probes(self) -> Iterator[tuple[str, Labels]]:
        """Probe or electrode group per unit, by source, the preferred first."""
        labels = self.table.labels("electrode_group")
        if labels is not None:
            yield "units.electrode_group", labels
        yield from self._by_electrode("group_name")
        for column in PROBE_COLUMNS:
            labels = self.table.labels(column)
            if labels is not None:
                yield f"units.{column}", labels

    def _by_electrode(self, column: str) -> Iterator[tuple[str, Labels]]:
        """A column of the electrodes table, by each way from a unit to its electrodes."""
        for way, rows in self._electrode_rows().items():
            if column not in self._columns:
                self._columns[column] = self._electrodes.labels(column) if self._electrodes else None
            labels = self._columns[column]
            if labels is not None:
                yield from self._unless_too_long(
                    f"units.{way} -> electrodes.{column}",
                    (joined([labels[row] for row in of_unit]) for of_unit in rows),
                )

    def _unless_too_long(self, source: str, labels: Iterable[str | None]) -> Iterator[tuple[str, Labels]]:
        """The source with its labels, or a note."""
        try:
            taken = bounded(labels)
        except TooMuchText as reason:
            self.table.notes.append(f"{source} is not used: {reason}")
        else:
            yield source, taken

    def _electrode_rows(self) -> dict[str, ElectrodeRows]:
        """Rows of the electrodes table per unit, by the units' column that refers to them."""
        if self._rows is None:
            self._rows = {}
            table = self.table
            if table.dataset("electrodes") is None and table.dataset("peak_channel_id") is None:
                return self._rows
            self._electrodes = open_table(table.opened, table.file, ELECTRODES)
            if self._electrodes is None:
                table.notes.append(f"{ELECTRODES} is not there, though units refer to it")
                return self._rows
            self._electrodes.notes = table.notes
            for way, rows in (("electrodes", table.region("electrodes")), ("peak_channel_id", self._peak_rows())):
                if rows is not None and self._are_rows(way, rows, self._electrodes.n_rows):
                    self._rows[way] = rows
        return self._rows

    def _are_rows(self, way: str, rows: ElectrodeRows, n_electrodes: int) -> bool:
        flat = np.concatenate(rows) if rows else np.empty(0, int)
        wrong = flat[(flat < 0) | (flat >= n_electrodes)]
        if len(wrong):
            found = f"row {wrong[0]} of a table of {n_electrodes:,} electrodes"
            self.table.notes.append(f"{self.table.path}/{way} is not used: {found}")
        return not len(wrong)

    def _peak_rows(self) -> ElectrodeRows | None:
        peaks = self.table.numbers("peak_channel_id")
        ids = self._electrodes.numbers("id") if self._electrodes and peaks is not None else None
        if peaks is None or ids is None:
            return None
        # an id shared by several electrodes refers to all of them; their different areas are joined
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        first, last = np.searchsorted(ordered, peaks, "left"), np.searchsorted(ordered, peaks, "right")
        return [order[start:stop] for start, stop in zip(first.tolist(), last.tolist(), strict=True)]

    def _group_paths(self) -> list[str | None] | None:
        dataset = self.table.dataset("electrode_group")
        if dataset is None or h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
            return None
        return self.table.targets("electrode_group")

    def _group_location(self, path: str) -> str | None:
        name = self.table.opened.name
        group = find(self.table.file, path, name)
        return text_of(read_attribute(group, "location", name)) if isinstance(group, h5py.Group) else None
