"""How many tokens have each value: the config ``token_counts``, and statistics of it for cards and the UI.

A part is what one source has in one split (`TokenCounts`). A session's record has the values of all its tokens. Where
all its rows are in one split of a pile that is the answer; else the rows of its smaller splits are decoded and
subtracted. Only of sessions of which nothing is known are all rows decoded.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.markdown import table
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.publish.card_parts import Config
from neuralpile_dagster.publish.configs import write_config
from neuralpile_dagster.publish.segments import PlacedSegment, SessionId
from neuralpile_dagster.records import ComponentSession, PublishedTotals, TokenCounts
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.schemas import TOKEN_COUNTS_SCHEMA

VALUES = 256
"""Values that a token can have: uint8."""
_BANDS = (("0", 0, 0), ("1", 1, 1), ("2", 2, 2), ("3 to 5", 3, 5), ("6 to 20", 6, 20), ("above 20", 21, VALUES - 1))


def as_vector(counts: Sequence[int]) -> np.ndarray:
    """Counts by value with their trailing zeros: int64, shape (256,)."""
    return np.pad(np.array(counts, np.int64), (0, VALUES - len(counts)))


def component_token_counts(
    repository: str, sessions: Iterable[ComponentSession], totals: PublishedTotals
) -> TokenCounts:
    """Values of all tokens of a component, summed from its sessions; its only split is ``train``."""
    vectors = [as_vector(session.token_counts) for session in sessions]
    return TokenCounts(
        source_dataset=repository.rpartition("/")[2],
        split="train",
        counts=_cut_zeros(np.sum(vectors, axis=0)),
        recorded_s=totals.minutes * 60,
    )


def write_token_counts(folder: Path, parts: Iterable[TokenCounts]) -> Config:
    """Write the config ``token_counts``: 256 rows for each part, in the order given."""
    tables = [_part_table(part) for part in parts]
    return write_config(folder, "token_counts", TOKEN_COUNTS_SCHEMA, [pa.concat_tables(tables)])


def _part_table(part: TokenCounts) -> pa.Table:
    vector = as_vector(part.counts)
    return pa.table(
        {
            "source_dataset": [part.source_dataset] * VALUES,
            "split": [part.split] * VALUES,
            "value": np.arange(VALUES, dtype=np.uint8),
            "count": vector,
            "probability": vector / max(int(vector.sum()), 1),
        },
        TOKEN_COUNTS_SCHEMA,
    )


def _cut_zeros(vector: np.ndarray) -> tuple[int, ...]:
    """Counts by value, int64 of shape (256,), as records hold them: without trailing zeros."""
    return tuple(np.trim_zeros(vector, "b").tolist())


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of the values of tokens.

    Attributes
    ----------
    tokens : int
    bands : dict of str to float
        Share of the tokens whose value lies in each band of values.
    mean : float
        Spikes per token.
    entropy : float
        Of a token's value alone, whatever the tokens around it are: bits per token.
    tokens_per_hour : float or None
        Per recorded hour, of the sources whose recorded time is known; None when there are none.
    """

    tokens: int
    bands: dict[str, float]
    mean: float
    entropy: float
    tokens_per_hour: float | None

    @classmethod
    def of(cls, parts: Sequence[TokenCounts]) -> TokenStatistics:
        """Statistics of all parts taken together; at least one."""
        vector = np.sum([as_vector(part.counts) for part in parts], axis=0)
        tokens = int(vector.sum())
        shares = vector / max(tokens, 1)
        used = shares[shares > 0]
        timed = [(sum(part.counts), part.recorded_s / 3600) for part in parts if part.recorded_s]
        return cls(
            tokens=tokens,
            bands={name: float(shares[first : last + 1].sum()) for name, first, last in _BANDS},
            mean=float(shares @ np.arange(VALUES)),
            entropy=float(-(used * np.log2(used)).sum()) + 0.0,  # not -0.0
            tokens_per_hour=sum(count for count, _ in timed) / sum(hours for _, hours in timed) if timed else None,
        )


def counts_by_split(parts: Sequence[TokenCounts]) -> dict[str, np.ndarray]:
    """Tokens by value of each split, all sources together: int64, shape (256,)."""
    found: dict[str, np.ndarray] = {}
    for part in parts:
        found[part.split] = found.get(part.split, 0) + as_vector(part.counts)
    return found


def statistics_rows(parts: Sequence[TokenCounts]) -> list[dict[str, str]]:
    """Rows of a table for people: a column for each split, and one for all where there are several."""
    of_split: dict[str, list[TokenCounts]] = {}
    for part in parts:
        of_split.setdefault(part.split, []).append(part)
    splits = {split: TokenStatistics.of(some) for split, some in of_split.items()}
    if len(splits) > 1:
        splits["all"] = TokenStatistics.of(parts)
    lines = {
        "tokens": {split: f"{found.tokens:,}" for split, found in splits.items()},
        **{
            f"tokens of value {band}": {split: f"{found.bands[band]:.6%}" for split, found in splits.items()}
            for band, _, _ in _BANDS
        },
        "spikes per token": {split: f"{found.mean:.6f}" for split, found in splits.items()},
        "entropy of the values (bits per token)": {split: f"{found.entropy:.4f}" for split, found in splits.items()},
        "tokens per recorded hour": {
            split: "not known" if found.tokens_per_hour is None else f"{found.tokens_per_hour:,.0f}"
            for split, found in splits.items()
        },
    }
    return [{"statistic": name, **numbers} for name, numbers in lines.items()]


def statistics_lines(parts: Sequence[TokenCounts]) -> list[str]:
    """Section of a card on the values of tokens; nothing where they were not counted."""
    if not parts:
        return []
    rows = statistics_rows(parts)
    return [
        "## Token statistics",
        "",
        *table(list(rows[0]), [list(row.values()) for row in rows]),
        "",
        "The `token_counts` config has the number of tokens of each value, 0 to 255.",
        "",
    ]


def count_splits(
    folder: Path,
    rows: Sequence[PlacedSegment],
    known: Mapping[SessionId, Sequence[int]],
    recorded_s: Mapping[SessionId, float],
    progress: Progress = silent,
) -> tuple[TokenCounts, ...]:
    """Count the values of all tokens, exactly, by source and split.

    Memory: one row, and 2 kB per session and split.

    Parameters
    ----------
    folder : Path
        In which the files of the rows are.
    rows : sequence of PlacedSegment
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
    counted = _decode(folder, [row for row in rows if largest.get(row.session) != row.split], progress)
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
            counts=_cut_zeros(counts[source, split]),
            recorded_s=None if math.isnan(seconds[source, split]) else seconds[source, split],
        )
        for source, split in sorted(counts, key=lambda part: (part[0], splits.index(part[1])))
    )


def _decode(folder: Path, rows: Iterable[PlacedSegment], progress: Progress) -> dict[tuple[SessionId, str], np.ndarray]:
    """Values of the tokens of rows, by session and split; each file is opened once."""
    files: dict[Path, list[PlacedSegment]] = defaultdict(list)
    for row in rows:
        files[folder / row.file].append(row)
    found: dict[tuple[SessionId, str], np.ndarray] = {}
    for path, some in files.items():
        with RowReader(path) as reader:
            for row in some:
                values = _count_values(reader.row(row.row_group).counts)
                found[row.session, row.split] = found.get((row.session, row.split), 0) + values
        progress(f"{path.name}: counted the values of {sum(row.tokens for row in some):,} tokens")
    return found


def _count_values(counts: np.ndarray) -> np.ndarray:
    """Tokens by value: int64, shape (256,); ``counts`` is uint8 of shape (n_units, n_bins)."""
    found = np.zeros(VALUES, np.int64)
    for unit in counts:  # bincount takes 8 bytes a token meanwhile
        found += np.bincount(unit, minlength=VALUES)
    return found


def _require_positive(rest: np.ndarray, session: SessionId) -> None:
    if (rest < 0).any():
        raise TableError(
            f"the rows of {session[2]} of {session[0]} do not match its record",
            found=f"more tokens of value {int(np.flatnonzero(rest < 0)[0])} in a part of them than in the session",
            remedy="materialize its spike_counts and hub_dataset again, then the pile's manifest and its shards",
        )
