"""Labels of units in an NWB units table (brain area and its source, probe, quality, cell type), and their electrodes.

`VOCABULARY` names the columns that are understood, `read_units` chooses among them for each unit; `electrode_rows`
finds the rows of the electrodes table that units refer to. How a column is read belongs in `table`, what else is stated
of a unit's electrode in `annotations`.
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

VOCABULARY = {
    "area": (
        *("location", "brain_region", "region", "brain_area"),
        *("ClusterRecLoc", "brainLocationAcronyms_ccf_2017"),
    ),
    "probe": ("probe_name", "probe", "group_name", "group"),
    "quality": (
        *("quality", "unit_quality", "cluster_quality", "group", "cluster_group", "sort_label"),
        *("KSLabel", "ks2_label", "phy_annotations"),
    ),
    "cell type": ("cell_type", "celltype_label"),
}
"""Columns of /units that state a label, the preferred first, in small letters or capitals as the file likes.

``group`` is a quality label where it holds phy's words, otherwise a probe.
"""
PHY_GROUPS = frozenset({"good", "mua", "noise", "unsorted"})  # what a person sorts clusters into
LABEL_PLACEHOLDERS = frozenset({"unknown", "nan", "none", "null", "n/a", "na"})  # placeholders for a missing value
_STRUCTURE = frozenset({"id", "spike_times"})  # read by the reader itself
MAX_NAMES = 20  # of unread columns in a note

ELECTRODES = f"{ELECTRODE_GROUPS}/electrodes"
BY_REGION, BY_PEAK = "electrodes", "peak_channel_id"
"""Columns of a units table that refer to electrodes: by row, and by id."""
ElectrodeRows = list[np.ndarray]


def read_units(table: Table, ids: np.ndarray) -> tuple[Unit, ...]:
    """Read one `Unit` per row of the units table.

    Each label is chosen per unit: the first of the columns of `VOCABULARY`
    that is neither blank nor a placeholder there. Brain area goes on with
    ``electrodes`` -> ``location``; ``peak_channel_id`` -> electrode of that id
    -> ``location``; ``electrode_group`` -> its ``location``. Several different
    areas of one unit's electrodes are joined by ``", "``.

    Parameters
    ----------
    table : Table
        ``/units``. Columns that were found but not usable, and the names of
        those that were not read, are added to its notes.
    ids : numpy.ndarray, integer, shape (n_units,)
    """
    places = _LabelColumns(table)
    areas = _first_labels(places.areas(), table.n_rows)
    probes = _first_labels(places.probes(), table.n_rows)
    qualities = _first_labels(places.stated("quality"), table.n_rows, keep_placeholders=True)
    cell_types = _first_labels(places.stated("cell type"), table.n_rows, keep_placeholders=True)
    nothing = [None] * table.n_rows
    observed = table.intervals("obs_intervals") or nothing
    _note_unread(table)
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
        for unit_id, (area, area_from), (probe, _), (quality, _), (cell_type, _), intervals in rows
    )


def _note_unread(table: Table) -> None:
    """Add the names of the columns that nothing was taken from to the table's notes."""
    names = [name for name in table.columns() if name not in table.read and name not in _STRUCTURE]
    if names:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        table.notes.append(f"columns of {table.path} that were not read: {', '.join(names[:MAX_NAMES])}{more}")


def _first_labels(
    sources: Iterator[tuple[str, Labels]], n_rows: int, keep_placeholders: bool = False
) -> list[tuple[str | None, str | None]]:
    """First meaningful label of each unit, and its source; later sources are read only if still needed.

    With ``keep_placeholders`` a unit without any keeps its first placeholder: a lab's "unknown" is a label too.
    """
    found: list[tuple[str | None, str | None]] = [(None, None)] * n_rows
    placeholders = list(found)
    missing = n_rows
    while missing and (source := next(sources, None)) is not None:
        for row, label in enumerate(source[1]):
            if found[row][0] is not None or label is None:
                continue
            if label.lower() not in LABEL_PLACEHOLDERS:
                found[row] = (label, source[0])
                missing -= 1
            elif placeholders[row][0] is None:
                placeholders[row] = (label, source[0])
    if keep_placeholders:
        return [label if label[0] is not None else other for label, other in zip(found, placeholders, strict=True)]
    return found


def _are_phy_groups(labels: Labels) -> bool:
    """Whether a column ``group`` holds phy's words for how good a cluster is, rather than names of probes."""
    words = {label.lower() for label in labels if label is not None} - LABEL_PLACEHOLDERS
    return words <= PHY_GROUPS


class _LabelColumns:
    """Columns that state a unit's labels or lead to its location; of electrodes each is read once, on first use."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._columns: dict[str, Labels | None] = {}
        self._electrodes: Table | None = None
        self._rows: dict[str, ElectrodeRows] | None = None
        self._names: dict[str, list[str]] = {}  # columns of the file by their names in small letters
        for name in table.columns():
            self._names.setdefault(name.lower(), []).append(name)

    def areas(self) -> Iterator[tuple[str, Labels]]:
        """Brain areas per unit, by source, the preferred first."""
        yield from self.stated("area")
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
        yield from self.stated("probe")

    def stated(self, kind: str) -> Iterator[tuple[str, Labels]]:
        """The unit's own columns that state a label of this kind of `VOCABULARY`."""
        for known in VOCABULARY[kind]:
            for column in self._names.get(known.lower(), ()):
                was_read = column in self.table.read
                labels = self.table.labels(column)
                if labels is not None and known == "group" and _are_phy_groups(labels) != (kind == "quality"):
                    self.table.read -= set() if was_read else {column}
                elif labels is not None:
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
            self._electrodes, self._rows = electrode_rows(self.table)
        return self._rows

    def _group_paths(self) -> list[str | None] | None:
        dataset = self.table.dataset("electrode_group")
        if dataset is None or h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
            return None
        return self.table.targets("electrode_group")

    def _group_location(self, path: str) -> str | None:
        name = self.table.opened.name
        group = find(self.table.file, path, name)
        return text_of(read_attribute(group, "location", name)) if isinstance(group, h5py.Group) else None


def electrode_rows(units: Table) -> tuple[Table | None, dict[str, ElectrodeRows]]:
    """Find the electrodes of each unit.

    Parameters
    ----------
    units : Table
        ``/units``. Its notes gain what cannot be used.

    Returns
    -------
    electrodes : Table or None
        The electrodes table, which shares the notes of ``units``; None where units refer to none, or it is missing.
    rows : dict of str to list of numpy.ndarray, integer, shape (n_electrodes,)
        Rows of that table, one array per unit, by the units' column that refers to them.
    """
    if units.dataset(BY_REGION) is None and units.dataset(BY_PEAK) is None:
        return None, {}
    electrodes = open_table(units.opened, units.file, ELECTRODES)
    if electrodes is None:
        units.notes.append(f"{ELECTRODES} is not there, though units refer to it")
        return None, {}
    electrodes.notes = units.notes
    found = {}
    for way, rows in ((BY_REGION, units.region(BY_REGION)), (BY_PEAK, _peak_rows(units, electrodes))):
        if rows is not None and _are_rows(units, way, rows, electrodes.n_rows):
            found[way] = rows
    return electrodes, found


def _are_rows(units: Table, way: str, rows: ElectrodeRows, n_electrodes: int) -> bool:
    flat = np.concatenate(rows) if rows else np.empty(0, int)
    wrong = flat[(flat < 0) | (flat >= n_electrodes)]
    if len(wrong):
        found = f"row {wrong[0]} of a table of {n_electrodes:,} electrodes"
        units.notes.append(f"{units.path}/{way} is not used: {found}")
    return not len(wrong)


def _peak_rows(units: Table, electrodes: Table) -> ElectrodeRows | None:
    peaks = units.numbers(BY_PEAK)
    ids = electrodes.numbers("id") if peaks is not None else None
    if peaks is None or ids is None:
        return None
    # an id shared by several electrodes refers to all of them; their different areas are joined
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    first, last = np.searchsorted(ordered, peaks, "left"), np.searchsorted(ordered, peaks, "right")
    return [order[start:stop] for start, stop in zip(first.tolist(), last.tolist(), strict=True)]
