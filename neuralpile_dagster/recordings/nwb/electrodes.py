"""The electrodes of units: rows of an NWB electrodes table, by each way that a units table refers to them.

Brain areas of electrodes belong in `labels`, their positions in `metrics`.
"""

from __future__ import annotations

import numpy as np

from neuralpile_dagster.recordings.nwb.table import ELECTRODE_GROUPS, Table, open_table

ELECTRODES = f"{ELECTRODE_GROUPS}/electrodes"
BY_REGION, BY_PEAK = "electrodes", "peak_channel_id"
"""Columns of a units table that refer to electrodes: by row, and by id."""

ElectrodeRows = list[np.ndarray]


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
