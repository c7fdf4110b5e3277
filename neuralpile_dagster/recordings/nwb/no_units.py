"""Why an HDF5 file has no units table at a path: an NWB 1 file, a MATLAB file, or units elsewhere in the file.

Only looked into once a reader has found none; reading units belongs in `units`.
"""

from __future__ import annotations

import re
from collections import deque

import h5py

from neuralpile_dagster.errors import NoUnits
from neuralpile_dagster.hdf5.careful import child_paths, find, names_in
from neuralpile_dagster.hdf5.text import read_attribute, read_text, text_of

OTHER_PLACES = ("/processing", "/analysis", "/scratch")  # where NWB files keep tables besides /units
MAX_LOOKS = 1_000  # groups looked into; a file with more modules and tables than that is not a usual one
_NWB_1 = re.compile(r"^(?:NWB-)?([01](?:\.\w+)*)")


def no_units_table(file: h5py.File, name: str, path: str = "/units") -> NoUnits:
    """The error for a file without a units table at ``path``; its remedy fits what the file has instead.

    Parameters
    ----------
    file : h5py.File
    name : str
        The file's, for messages.
    path : str
        Where the table was looked for.
    """
    what = f"{name} has no units table"
    stated = text_of(read_attribute(file, "nwb_version", name)) or read_text(file, "/nwb_version", name) or ""
    old = _NWB_1.match(stated)
    if old:
        return NoUnits(
            what,
            found=f"an NWB {old[1]} file; it keeps spike times under /processing",
            expected="NWB 2, with a group /units",
            remedy="convert the file to NWB 2 with pynwb, or exclude it with the dataset's session rule",
        )
    if not stated and _is_matlab(file, name):
        return NoUnits(
            what,
            found=f"a MATLAB 7.3 file with the variables {names_in(file, name)}",
            expected="an NWB file with a group /units",
            remedy="write its spike times to an NWB file with pynwb or MatNWB, or exclude the file",
        )
    elsewhere = _units_elsewhere(file, name)
    if elsewhere:
        return NoUnits(
            what,
            found=f"spike times in {', '.join(elsewhere)}",
            expected=f"a group {path}",
            remedy=f"state where it is: `reader_options: {{table: {elsewhere[0]}}}` in the dataset's row, "
            f"or `neuralpile bin --table {elsewhere[0]}`",
        )
    return NoUnits(
        what,
        found=names_in(file, name),
        expected=f"a group {path}",
        remedy="exclude the file with the dataset's session rule, or choose another reader",
    )


def _is_matlab(file: h5py.File, name: str) -> bool:
    """Whether MATLAB saved the file: each of its variables states its class."""
    variables = (find(file, path, name) for path in list(child_paths(file, "/", name).values())[:MAX_LOOKS])
    return any(variable is not None and "MATLAB_class" in variable.attrs for variable in variables)


def _units_elsewhere(file: h5py.File, name: str) -> list[str]:
    """Paths of groups that hold ``spike_times``: ``/units`` and below `OTHER_PLACES`; those near the top first."""
    found: list[str] = []
    waiting = deque(["/units", *OTHER_PLACES])
    for _ in range(MAX_LOOKS):
        if not waiting:
            break
        path = waiting.popleft()
        if find(file, f"{path}/spike_times", name) is not None:
            found.append(path)
        else:
            waiting.extend(child_paths(file, path, name).values())
    return found
