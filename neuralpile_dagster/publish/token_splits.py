"""Count the values of a pile's tokens by source and split, from what is known of its sessions.

A session's record has the values of all its tokens. Where all its rows are in one split that is the answer; else the
rows of its smaller splits are decoded and subtracted. Only of sessions of which nothing is known are all rows decoded.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.publish.token_counts import VALUES, as_vector, cut_zeros
from neuralpile_dagster.records import TokenCounts
from neuralpile_dagster.tables.rows import RowReader

SessionId = tuple[str, str, str]
"""source_dataset, subject_id, session_id."""


@dataclass(frozen=True)
class PileRow:
    """One row of a pile: row ``number`` of the file at ``path``."""

    path: Path
    number: int
    split: str
    session: SessionId
    tokens: int


def count_values(counts: np.ndarray) -> np.ndarray:
    """Tokens by value: int64, shape (256,); ``counts`` is uint8 of shape (n_units, n_bins)."""
    found = np.zeros(VALUES, np.int64)
    for unit in counts:  # bincount takes 8 bytes a token meanwhile
        found += np.bincount(unit, minlength=VALUES)
    return found


def count_splits(
    rows: Sequence[PileRow],
    known: Mapping[SessionId, Sequence[int]],
    recorded_s: Mapping[SessionId, float],
    progress: Progress = silent,
) -> tuple[TokenCounts, ...]:
    """Count the values of all tokens, exactly, by source and split.

    Memory: one row, and 2 kB per session and split.

    Parameters
    ----------
    rows : sequence of PileRow
        All rows of the pile.
    known : mapping of SessionId to sequence of int
        Values of all tokens of a session, as `CountsStats.histogram` has them.
        What does not add up to the session's tokens is not used.
    recorded_s : mapping of SessionId to float
        Seconds that a session was recorded; those of a split are the share of its tokens.
    progress : callable
        Called with a line for each file of which rows are decoded.

    Returns
    -------
    tuple of TokenCounts
        Sorted by source; splits in the order of their first row.

    Raises
    ------
    TableError
        A row is damaged, or is not of the session that its ids name.
    """
    sizes: dict[SessionId, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        sizes[row.session][row.split] += row.tokens
    totals = {session: sum(of.values()) for session, of in sizes.items()}
    usable = {session: known[session] for session in sizes if sum(known.get(session, ())) == totals[session] > 0}
    largest = {session: max(sizes[session], key=sizes[session].__getitem__) for session in usable}
    counted = _decode([row for row in rows if largest.get(row.session) != row.split], progress)
    for session, split in largest.items():
        others = [counted[session, other] for other in sizes[session] if other != split]
        counted[session, split] = as_vector(usable[session]) - sum(others, np.zeros(VALUES, np.int64))
        _require_positive(counted[session, split], session)
    counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(VALUES, np.int64))
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for (session, split), vector in counted.items():
        counts[session[0], split] += vector
        share = sizes[session][split] / max(totals[session], 1)
        seconds[session[0], split] += recorded_s.get(session, math.nan) * share
    splits = list(dict.fromkeys(row.split for row in rows))
    return tuple(
        TokenCounts(
            source_dataset=source,
            split=split,
            counts=cut_zeros(counts[source, split]),
            recorded_s=None if math.isnan(seconds[source, split]) else seconds[source, split],
        )
        for source, split in sorted(counts, key=lambda part: (part[0], splits.index(part[1])))
    )


def _decode(rows: Iterable[PileRow], progress: Progress) -> dict[tuple[SessionId, str], np.ndarray]:
    """Values of the tokens of rows, by session and split; each file is opened once."""
    files: dict[Path, list[PileRow]] = defaultdict(list)
    for row in rows:
        files[row.path].append(row)
    found: dict[tuple[SessionId, str], np.ndarray] = {}
    for path, some in files.items():
        with RowReader(path) as reader:
            for row in some:
                values = count_values(reader.row(row.number).counts)
                found[row.session, row.split] = found.get((row.session, row.split), 0) + values
        progress(f"{path.name}: counted the values of {sum(row.tokens for row in some):,} tokens")
    return found


def _require_positive(rest: np.ndarray, session: SessionId) -> None:
    if (rest < 0).any():
        raise TableError(
            f"the rows of {session[2]} of {session[0]} do not match its record",
            found=f"more tokens of value {int(np.flatnonzero(rest < 0)[0])} in a part of them than in the session",
            remedy="materialize its spike_counts and hub_dataset again, then the pile's manifest and its shards",
        )
