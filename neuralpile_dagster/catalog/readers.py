"""Readers as rows: what each reads, its version, and the function that does it.

What a catalog row may name, pages, the command line and `recordings.readers` derive from these rows: another
reader is one module and one row. Rows of this package are in `BUILT_IN`; other packages add theirs through the entry
point group ``neuralpile.readers``. How a file is read belongs in the module that the row names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from neuralpile_dagster.errors import CatalogError, ConfigurationError, did_you_mean

ENTRY_POINTS = "neuralpile.readers"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How files of one form are read.

    Attributes
    ----------
    name : str
        As ``reader`` of a catalog row names it.
    version : str
        Changes whenever the same file would give another `Recording`: it is part of what stored spike trains are
        identified by.
    text : str
        What it reads, in Markdown; follows its name.
    reads : str
        The function, ``"module:function"``, imported when it is needed: an open file (`OpenFile`) -> `Recording`.
    several_files : bool
        Whether it takes a sequence of open files, those of one session, in place of one.
    annotations : {"units", "intervals", ""}
        What else can be read from its files (`recordings.nwb.annotations`): tables of intervals of NWB files; with
        ``"units"`` also ``/units``, whose rows are the units that it reads, on a clock on which bin 0 begins at 0.
    """

    name: str
    version: str
    text: str
    reads: str
    several_files: bool = False
    annotations: Literal["units", "intervals", ""] = ""

    @property
    def markdown(self) -> str:
        """Name and text, for the UI and pages."""
        return f"`{self.name}`: {self.text}"


_ROWS = (
    Reader(
        name="units",
        version="units-2",
        text="the spike times of the NWB file's units table (seconds), binned by the project",
        reads="neuralpile_dagster.recordings.nwb.units:read_nwb_units",
        several_files=True,
        annotations="units",
    ),
    Reader(
        name="firing_rates",
        version="firing-rates-2",
        text=(
            "firing rates that the NWB file holds in bins already; "
            "the counts are the rates times the file's bin width, rounded"
        ),
        reads="neuralpile_dagster.recordings.nwb.firing_rates:read_nwb_firing_rates",
        annotations="intervals",
    ),
    Reader(
        name="eight_probe_mat",
        version="eight-probe-mat-1",
        text="spike times and cluster ids of the eight probes of a MATLAB file, from the first spike on",
        reads="neuralpile_dagster.recordings.probes_mat:read_probes_mat",
    ),
)
BUILT_IN: Mapping[str, Reader] = {row.name: row for row in _ROWS}


@cache
def all_readers() -> Mapping[str, Reader]:
    """Every row by name; raises `CatalogError` when two have one name or version, or one cannot be loaded."""
    rows = [*_ROWS]
    for point in entry_points(group=ENTRY_POINTS):
        try:
            row = point.load()
        except (ImportError, AttributeError) as error:
            raise CatalogError(
                f"the reader {point.name} ({point.value}) cannot be loaded",
                found=str(error),
                remedy=_UNINSTALL,
            ) from error
        if not isinstance(row, Reader):
            raise CatalogError(
                f"the reader {point.name} ({point.value}) is invalid",
                found=f"a {type(row).__name__}",
                expected="a neuralpile_dagster.catalog.readers.Reader",
                remedy=_UNINSTALL,
            )
        rows.append(row)
    for field in ("name", "version"):
        values = [getattr(row, field) for row in rows]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise CatalogError(
                f"a reader's {field} is taken", found=f"two readers with {field} {twice[0]!r}", remedy=_UNINSTALL
            )
    return {row.name: row for row in rows}


_UNINSTALL = f"correct or uninstall the package that adds it to {ENTRY_POINTS}"


def get_reader(name: str) -> Reader:
    """The reader of that name; raises `ConfigurationError` with the closest name when there is none."""
    known = all_readers()
    if name not in known:
        raise ConfigurationError(
            f"there is no reader {name[:60]!r}",
            expected=f"one of {', '.join(map(repr, known))}",
            remedy=did_you_mean(name, known),
        )
    return known[name]
