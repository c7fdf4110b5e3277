"""The annotations of a session of NWB files: its intervals, and what is stated of each of its units.

Opens the files and goes through them in order; what is read of one file is in `intervals` and `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import h5py

from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.recordings.nwb.intervals import IntervalTable, read_intervals
from neuralpile_dagster.recordings.nwb.metrics import Metric, read_unit_metrics
from neuralpile_dagster.recordings.nwb.table import open_table


@dataclass
class Annotations:
    """A session's open files; valid inside the ``with`` of `open_annotations`.

    Attributes
    ----------
    files : sequence of (OpenFile, h5py.File)
        In the order in which their units are stacked.
    notes : list of str
        What the files hold and is not used; gains lines while they are read.
    units : str
        Path of the units table in each file.
    """

    files: Sequence[tuple[OpenFile, h5py.File]]
    notes: list[str] = field(default_factory=list)
    units: str = "/units"

    def intervals(self) -> Iterator[IntervalTable]:
        """Every table of intervals; see `read_intervals`."""
        return read_intervals(self.files, self.notes)

    def unit_metrics(self) -> Iterator[tuple[int, Metric]]:
        """What each file's units table states, with the row in ``spike_counts`` of the file's first unit.

        Units of one file come after units of the other, as readers stack them.
        """
        first_row = 0
        for opened, file in self.files:
            table = open_table(opened, file, self.units)
            if table is None:
                self.notes.append(f"{opened.name} has no units table")
                continue
            yield from ((first_row, metric) for metric in read_unit_metrics(table))
            self.notes.extend(f"{opened.name}: {note}" for note in table.notes)
            first_row += table.n_rows


@contextmanager
def open_annotations(files: Sequence[OpenFile], units: str = "/units") -> Iterator[Annotations]:
    """Open a session's NWB files, in the order in which its recording is read; ``units`` is their units table."""
    with ExitStack() as stack:
        yield Annotations([(opened, stack.enter_context(opened.hdf5())) for opened in files], units=units)
