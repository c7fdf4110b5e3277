"""Which rows and units of a pile to read: by split, dataset, held-out list, and a filter over the units.

Names that match nothing are errors: a held-out session that is misspelled would be trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import ConfigurationError, did_you_mean
from neuralpile_dagster.reading.pile import Pile
from neuralpile_dagster.reading.rows_index import Key, missing_split, session_keys
from neuralpile_dagster.tables.arrow_rows import shared_array

if TYPE_CHECKING:
    import pyarrow.compute as pc

KINDS = ("dataset", "session", "subject", "benchmark")


def select(
    pile: Pile,
    split: str | None,
    units: pc.Expression | np.ndarray | None,
    datasets: Sequence[str] | None,
    exclude: Sequence[str],
    hold_out: Sequence[str],
    held_out: bool,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Apply arguments of a job: see `windows.Windows`; raises `ConfigurationError` as it does.

    Returns
    -------
    rows : numpy.ndarray, int64, shape (n_rows,)
        Row numbers in `Pile.segments`.
    units : dict of int to numpy.ndarray
        By session: rows of its counts, int64, shape (n_chosen,), at least one; a session without is not chosen.
    """
    keys = session_keys(pile.sessions, pile.name)
    known = sorted({source for source, *_ in keys})
    for name in datasets or ():
        if name not in known:
            raise _unknown("dataset", name, known)
    wanted = np.array([datasets is None or key[0] in datasets for key in keys], bool)
    wanted &= ~matches(pile, exclude, keys)
    wanted &= matches(pile, hold_out, keys) == held_out
    by_session = _units_by_session(pile, units)
    has_units = np.isin(np.arange(len(keys)), list(by_session))
    sessions = pile.segments["session"].to_numpy()
    chosen = (wanted & has_units)[sessions]
    if split is not None:
        splits = pile.segments["split"].to_pylist()
        if split in pile.missing_splits:
            raise missing_split(split, pile.place)
        if split not in splits:
            raise _unknown("split", split, sorted(set(splits)))
        chosen &= np.array([each == split for each in splits])
    return np.flatnonzero(chosen).astype(np.int64), by_session


def matches(pile: Pile, selectors: Sequence[str], keys: Sequence[Key]) -> np.ndarray:
    """Which sessions any of the selectors names.

    Parameters
    ----------
    pile : Pile
    selectors : sequence of str
        ``dataset:<name>``, or the name alone; ``session:<dataset>/<pattern>`` and ``subject:<dataset>/<pattern>``
        with shell patterns; ``benchmark:<name>``, where the pile publishes its splits.
    keys : sequence of Key
        All sessions.

    Returns
    -------
    numpy.ndarray, bool, shape (n_sessions,)

    Raises
    ------
    ConfigurationError
        A selector is not of this form, or matches nothing.
    """
    if isinstance(selectors, str):
        raise ConfigurationError("a list of selectors is needed", found=repr(selectors), expected=f"[{selectors!r}]")
    subjects = pile.sessions["subject"].to_pylist()
    found = np.zeros(len(keys), bool)
    for selector in selectors:
        kind, colon, text = selector.partition(":")
        kind, text = (kind, text) if colon else ("dataset", selector)
        dataset, _, pattern = text.partition("/")
        if kind == "dataset":
            names: Iterable[bool] = (key[0] == text for key in keys)
        elif kind == "session":
            names = (key[0] == dataset and fnmatchcase(key[2], pattern) for key in keys)
        elif kind == "subject":
            names = (
                key[0] == dataset and (fnmatchcase(key[1], pattern) or fnmatchcase(subject or "", pattern))
                for key, subject in zip(keys, subjects, strict=True)
            )
        elif kind == "benchmark":
            members = _benchmark(pile, text)
            names = (key in members for key in keys)
        else:
            raise ConfigurationError(f"{selector!r} is not a selector", expected=f"one of {', '.join(KINDS)}, then ':'")
        matched = np.fromiter(names, bool, len(keys))
        if not matched.any():
            known = {"dataset": [k[0] for k in keys], "session": [f"{k[0]}/{k[2]}" for k in keys]}
            raise _unknown(kind, text, sorted(set(known.get(kind, [f"{k[0]}/{k[1]}" for k in keys]))))
        found |= matched
    return found


def _benchmark(pile: Pile, name: str) -> set[Key]:
    splits = pile.splits
    if splits is None or "benchmarks" not in splits.column_names:
        raise ConfigurationError(
            f"sessions of the benchmark {name!r} are not known",
            found=f"{pile.place} publishes no table of splits with benchmarks",
            remedy="name the sessions, or build the pile with a newer version",
        )
    of_session = splits["benchmarks"].to_pylist()
    known = sorted({each for names in of_session for each in names or ()})
    if name not in known:
        raise _unknown("benchmark", name, known)
    keys = session_keys(splits, pile.name)
    return {key for key, names in zip(keys, of_session, strict=True) if name in (names or ())}


def _units_by_session(pile: Pile, units: pc.Expression | np.ndarray | None) -> dict[int, np.ndarray]:
    n_units = pile.sessions["n_units"].to_pylist()
    if units is None:
        return {session: np.arange(n, dtype=np.int64) for session, n in enumerate(n_units) if n}
    table = pile.units
    if isinstance(units, np.ndarray):
        if units.dtype != bool or units.shape != (len(table),):
            raise ConfigurationError(
                "the mask of units does not fit the table of units",
                found=f"{units.dtype}, shape {units.shape}",
                expected=f"bool, shape ({len(table)},)",
            )
        mask = units
    else:
        numbered = table.append_column("unit_index", [shared_array(np.arange(len(table)))])
        mask = np.zeros(len(table), bool)
        try:
            chosen = numbered.filter(units)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigurationError(
                "the condition on units does not fit the table of units",
                found=str(error).splitlines()[0],
                expected=f"a condition on the columns {', '.join(table.column_names)}",
            ) from error
        mask[chosen["unit_index"].to_numpy()] = True
    found = {session: np.flatnonzero(mask[pile.unit_index(session)]) for session in range(len(n_units))}
    return {session: rows for session, rows in found.items() if len(rows)}


def _unknown(kind: str, name: str, known: Sequence[str]) -> ConfigurationError:
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20:,} more" if len(known) > 20 else "")
    return ConfigurationError(
        f"no {kind} {name!r} in the pile", expected=shown or f"no {kind} at all", remedy=did_you_mean(name, known)
    )
