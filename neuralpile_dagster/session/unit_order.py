"""Order the units of a stored session: its spike counts in, a file with the place of each unit and its record out.

How units are ordered belongs in `binning.unit_order`; for which sessions it is done, in `ledger.analyses`.
"""

from __future__ import annotations

from importlib.metadata import version

from neuralpile_dagster.errors import OutOfMemory
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.records import CountsRecord, UnitOrderRecord
from neuralpile_dagster.settings import ProcessSettings
from neuralpile_dagster.store import Store, open_verified, put_file
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.units import write_order

ORDER_VERSION = f"unit-order-1-scipy-{version('scipy')}"
"""Code version of the order; another scipy may break ties in another way."""
BYTES_PER_PAIR = 32
"""Peak memory: four matrices of units x units."""
_SECONDS_AT_1000, _EXPONENT = 2.0, 3.1
"""Time that the optimal order of the leaves takes: measured at 1,000 and 2,000 units (docs/performance.md)."""
_LONG_S = 10.0


def store_unit_order(
    store: Store, prefix: str, key: str, counts: CountsRecord, inputs: str, progress: Progress = silent
) -> UnitOrderRecord:
    """Order the units of a session and store the place of each.

    Memory: one row of counts, and 32 bytes for each pair of units (0.5 GB for 4,000 units).

    Parameters
    ----------
    store : Store
    prefix : str
        Folder of the dataset's unit orders.
    key : str
        The session's key.
    counts : CountsRecord
    inputs : str
        For the record.
    progress : callable, optional
        Called with a line where it takes long.

    Raises
    ------
    OutOfMemory
        This machine has too little memory free for so many units.
    StoreError, TableError
        The spike counts are damaged or gone.
    """
    from neuralpile_dagster.binning.unit_order import UnitProducts  # numba: not for those who only compare hashes

    n_units, name = counts.stats.n_units, counts.session_id
    _require_memory(n_units, name)
    session = UnitProducts(n_units, ProcessSettings.from_environment().threads)
    with open_verified(store, counts.file) as opened, RowReader(opened, counts.file.key) as reader:
        for number in range(reader.n_rows):
            session.add(reader.row(number).counts)
    if announced := announcement(n_units):
        progress(f"{name}: {announced}")
    order = session.order()
    file, _ = put_file(store, f"{prefix}/{key}.parquet", lambda path: write_order(path, order))
    return UnitOrderRecord(
        inputs=inputs,
        session_id=counts.session_id,
        file=file,
        counts_sha256=counts.file.sha256,
        n_units=n_units,
        silent_units=int((session.totals == 0).sum()),
        scipy=version("scipy"),
    )


def announcement(n_units: int) -> str:
    """What ordering so many units takes, in words; empty where it takes no time worth a line."""
    if _seconds(n_units) < _LONG_S:
        return ""
    return (
        f"ordering {n_units:,} units takes about {_words(_seconds(n_units))} and {_gigabytes(n_units)} of memory, and "
        "cannot be interrupted meanwhile"
    )


def _seconds(n_units: int) -> float:
    return float(_SECONDS_AT_1000 * (n_units / 1000) ** _EXPONENT)


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _gigabytes(n_units: int) -> str:
    return f"{BYTES_PER_PAIR * n_units**2 / 1e9:,.1f} GB"


def _require_memory(n_units: int, name: str) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if BYTES_PER_PAIR * n_units**2 > free:
        raise OutOfMemory(
            f"{name} has too many units to be ordered on this machine",
            found=f"{n_units:,} units, which need {_gigabytes(n_units)} ({free / 1e9:,.1f} GB are free) and "
            f"{_words(_seconds(n_units))}",
            remedy="order them on a machine with more memory; all else of the session is published without it",
        )
