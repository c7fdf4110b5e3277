"""Which split each session of a pile is in: hash rule, held-out sessions, twins, promotions.

Pure functions of ids, fingerprints and what was published last. A session's split by hash depends on nothing but its
own key, so that other sessions come and go without moving it. Permutations belong in `order`, the ``splits`` table in
`split_table`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pydantic import Field

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import SPLITS
from neuralpile_dagster.merge.order import LEFT_OUT, TEST, TRAIN, VALID, check_sizes, draw_splits
from neuralpile_dagster.records import Model, SplitBy, SplitRules

SessionId = tuple[str, str, str]
"""source_dataset, subject_id, session_id."""
SETTINGS = b"neuralpile"
"""Key of `SplitSettings` in the metadata of a ``splits`` table's schema."""


@dataclass(frozen=True)
class SessionIdentity:
    """What splits need to know of a session.

    Attributes
    ----------
    dataset : str
        Name of its dataset in hashed keys: without the part that says how it was binned.
    subject : str
        The animal.
    fingerprint : str or None
        Equal for twins: sessions with the same spikes. None where it is not known.
    seconds : float or None
        Its length.
    benchmarks : tuple of str
        Names of the public lists that it is in.
    """

    dataset: str
    subject: str
    fingerprint: str | None = None
    seconds: float | None = None
    benchmarks: tuple[str, ...] = ()


def identity_of_ids(session: SessionId) -> SessionIdentity:
    """What the ids alone say: the animal is the folder's name."""
    dataset, subject_id, _ = session
    return SessionIdentity(dataset, subject_id.removeprefix("sub-"))


def share_of(seed: int, *key: str) -> float:
    """Hash of a key as a number from 0 to below 1: the first 8 bytes (little-endian) of a sha256, divided by 2^64."""
    digest = hashlib.sha256("\0".join((str(seed), *key)).encode()).digest()
    return min(int.from_bytes(digest[:8], "little") / 2**64, 1 - 2**-53)


class SplitSettings(Model):
    """Settings and memory of a ``splits`` table, kept in its Parquet metadata."""

    plan: str
    seed: int
    split_by: str
    test_size: float
    rules: SplitRules = SplitRules()
    promoted: dict[str, str] = Field(default_factory=dict)
    n_shards: dict[str, int] = Field(default_factory=dict)

    def same_rule(self, seed: int, split_by: str, rules: SplitRules) -> bool:
        """Whether its ``u`` are comparable: of the same seed, by hash, of the same things."""
        return (self.seed, self.split_by) == (seed, split_by) and self.rules.split_rule == rules.split_rule == "hash"


def settings_of(splits: pa.Table) -> SplitSettings | None:
    """Settings of a ``splits`` table; None when it has none that this version reads."""
    text = (splits.schema.metadata or {}).get(SETTINGS)
    try:
        return SplitSettings.model_validate_json(text, extra="ignore") if text else None
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class EarlierSplits:
    """The ``splits`` table of the last published pile, and where it lies, in words."""

    table: pa.Table
    where: str


@dataclass(frozen=True, eq=False)
class Decision:
    """Splits of a pile.

    Attributes
    ----------
    row_splits : numpy.ndarray, int8, shape (n_rows,)
        `TRAIN`, `VALID`, `TEST` or `LEFT_OUT`.
    held_out : numpy.ndarray, bool, shape (n_rows,)
    u : sequence of float
        By session, see `SPLITS_SCHEMA`.
    twin_of : sequence of str or None
        By session.
    promoted : dict of str to str
        What fills a split that the rule left empty: its name, and the split.
    follows : str
        Where the published splits lie whose twins and promotions were kept; empty when there were none.
    """

    row_splits: np.ndarray
    held_out: np.ndarray
    u: Sequence[float]
    twin_of: Sequence[str | None]
    promoted: dict[str, str] = field(default_factory=dict)
    follows: str = ""


def decide(
    sessions: Sequence[SessionId],
    identities: Sequence[SessionIdentity],
    row_session: np.ndarray,
    row_segment: Sequence[str],
    *,
    seed: int,
    split_by: SplitBy,
    test_size: float,
    rules: SplitRules,
    held_out: Collection[SessionId] = (),
    earlier: EarlierSplits | None = None,
) -> Decision:
    """Decide the split of every row.

    With ``split_rule: hash`` a key whose hash is below ``test_size`` is test, below ``test_size + valid_size`` valid,
    else train. A split left empty gets the key with the smallest hash that fills no other split.

    Parameters
    ----------
    sessions, identities : sequence
        In the order of their numbers.
    row_session : numpy.ndarray, integer, shape (n_rows,)
        Number of each row's session.
    row_segment : sequence of str
    held_out : collection of SessionId
        What is held out; with it the twins, and what else belongs to the same key (subject, dataset).
    earlier : EarlierSplits, optional
        What was published last: twins and promotions of then stay.

    Raises
    ------
    MergeError
        A setting is invalid, or there are too few sessions (rows, ...); names it.
    """
    check_sizes(test_size, rules.valid_size)
    settings = settings_of(earlier.table) if earlier else None
    used = earlier if settings and settings.same_rule(seed, split_by, rules) else None
    keys = _keys(split_by, sessions, identities)
    units, unit_of, group = keys.units, keys.unit_of, keys.group
    before = _earlier_u(used.table, split_by, sessions, identities) if used else {}
    u = _followed(units, group, seed, before)
    session_group = group[unit_of]
    held = np.isin(session_group, session_group[[session in held_out for session in sessions]])
    goes_to = TEST if rules.held_out_go_to == "test" else LEFT_OUT
    twin_of = _twins(sessions, identities, used)
    twins = _across(sessions, twin_of, unit_of)
    promoted: dict[str, str] = {}
    if rules.split_rule == "permutation":
        if split_by == "rows":
            row_splits = draw_splits(
                len(row_session), seed, test_size, rules.valid_size, ~held[row_session], units=split_by
            )
        else:
            drawn = draw_splits(len(sessions), seed, test_size, rules.valid_size, ~held, units=split_by)
            row_splits = drawn[row_session]
    else:
        kept = settings.promoted if used and settings else {}
        sizes = (test_size, rules.valid_size)
        wanted = [TEST] if not (held.any() and goes_to == TEST) else []
        wanted += [VALID, TRAIN] if rules.valid_size else [TRAIN]
        if split_by == "rows":
            names = [(*units[unit], part) for unit, part in zip(unit_of[row_session], row_segment, strict=True)]
            # of the session's u, so that rows of twins stay together as well
            row_u = [
                share_of(seed, repr(u[unit]), part)
                for unit, part in zip(unit_of[row_session], row_segment, strict=True)
            ]
            numbers: dict[tuple[int, str], int] = {}
            row_group = [
                numbers.setdefault((number, part), len(numbers))
                for number, part in zip(group[unit_of[row_session]].tolist(), row_segment, strict=True)
            ]
            row_splits, promoted = _by_hash(
                names, row_u, np.array(row_group), ~held[row_session], sizes, wanted, kept, split_by, twins
            )
        else:
            free = np.ones(len(units), bool)
            free[unit_of[held]] = False
            unit_splits, promoted = _by_hash(units, u, group, free, sizes, wanted, kept, split_by, twins)
            row_splits = unit_splits[unit_of][row_session]
    row_splits[held[row_session]] = goes_to
    return Decision(
        row_splits=row_splits,
        held_out=held[row_session],
        u=[u[unit] for unit in unit_of],
        twin_of=twin_of,
        promoted=promoted,
        follows=used.where if used else "",
    )


@dataclass(frozen=True, eq=False)
class _Keys:
    """The different keys of sessions; ``unit_of`` numbers each session's, ``group`` is equal where twins are shared."""

    units: list[tuple[str, ...]]
    unit_of: np.ndarray
    group: np.ndarray


def _keys(split_by: SplitBy, sessions: Sequence[SessionId], identities: Sequence[SessionIdentity]) -> _Keys:
    numbers: dict[tuple[str, ...], int] = {}
    unit_of = np.array(
        [
            numbers.setdefault(_key(split_by, session, known), len(numbers))
            for session, known in zip(sessions, identities, strict=True)
        ],
        np.int64,
    )
    return _Keys(list(numbers), unit_of, _groups(unit_of, identities, len(numbers)))


def session_hashes(
    seed: int, sessions: Sequence[SessionId], identities: Sequence[SessionIdentity]
) -> tuple[list[float], list[str | None]]:
    """``u`` and ``twin_of`` of sessions as the hash rule has them, where nothing was published before."""
    keys = _keys("sessions", sessions, identities)
    u = _followed(keys.units, keys.group, seed, {})
    return [u[unit] for unit in keys.unit_of], _twins(sessions, identities, None)


def _key(split_by: SplitBy, session: SessionId, identity: SessionIdentity) -> tuple[str, ...]:
    if split_by == "datasets":
        return (identity.dataset,)
    return (identity.dataset, identity.subject if split_by == "subjects" else session[2])


def _groups(unit_of: np.ndarray, identities: Sequence[SessionIdentity], n_units: int) -> np.ndarray:
    """Number of each unit's group: units that share a twin are one."""
    root = list(range(n_units))

    def find(unit: int) -> int:
        while root[unit] != unit:
            root[unit] = unit = root[root[unit]]
        return unit

    first: dict[str, int] = {}
    for unit, identity in zip(unit_of.tolist(), identities, strict=True):
        if identity.fingerprint is not None:
            root[find(unit)] = find(first.setdefault(identity.fingerprint, unit))
    return np.array([find(unit) for unit in range(n_units)], np.int64)


def _earlier_u(
    table: pa.Table, split_by: SplitBy, sessions: Sequence[SessionId], identities: Sequence[SessionIdentity]
) -> dict[tuple[str, ...], float]:
    """Published hashes by key."""
    names = {session[0]: known.dataset for session, known in zip(sessions, identities, strict=True)}
    found = {}
    columns = (table[name].to_pylist() for name in ("source_dataset", "subject_id", "session_id", "subject", "u"))
    for source, subject_id, session_id, subject, u in zip(*columns, strict=True):
        identity = SessionIdentity(names.get(source, source), subject)
        found[_key(split_by, (source, subject_id, session_id), identity)] = u
    return found


def _followed(
    units: Sequence[tuple[str, ...]], group: np.ndarray, seed: int, before: Mapping[tuple[str, ...], float]
) -> list[float]:
    """Hash of each unit: what was published, else that of the twin it follows, else its own."""
    members = defaultdict(list)
    for unit, number in zip(units, group.tolist(), strict=True):
        members[number].append(unit)
    leaders = {
        number: min((unit for unit in some if unit in before), default=min(some)) for number, some in members.items()
    }
    return [
        before[unit] if unit in before else before.get(leaders[number], share_of(seed, *leaders[number]))
        for unit, number in zip(units, group.tolist(), strict=True)
    ]


def _by_hash(
    units: Sequence[tuple[str, ...]],
    u: Sequence[float],
    group: np.ndarray,
    free: np.ndarray,
    sizes: tuple[float, float],
    wanted: Sequence[int],
    kept: Mapping[str, str],
    split_by: SplitBy,
    twins: Sequence[str],
) -> tuple[np.ndarray, dict[str, str]]:
    """Split of each unit, and by name those promoted, so that every split ``wanted`` has a free one."""
    test_size, valid_size = sizes
    shares = np.array(u)
    splits = np.where(shares < test_size, TEST, np.where(shares < test_size + valid_size, VALID, TRAIN)).astype(np.int8)
    names = ["/".join(unit) for unit in units]
    promoted: dict[str, str] = {}
    filled: set[int] = set()  # groups

    def promote(number: int, split: int) -> None:
        of_group = free & (group == group[number])
        splits[of_group] = split
        promoted.update({names[other]: SPLITS[split] for other in np.flatnonzero(of_group)})
        filled.add(int(group[number]))

    for number in np.flatnonzero(free).tolist() if kept else ():
        split = SPLITS.index(kept[names[number]]) if kept.get(names[number]) in SPLITS else LEFT_OUT
        if split in wanted and int(group[number]) not in filled:
            promote(number, split)
    for place, split in enumerate(wanted):
        if (splits[free] == split).any():
            continue
        spare = {other for other in wanted if len(set(group[free & (splits == other)].tolist())) > 1}
        spare |= set(wanted[place + 1 :])  # they are filled later
        candidates = [n for n in np.flatnonzero(free).tolist() if splits[n] in spare and int(group[n]) not in filled]
        if not candidates:
            raise _too_few(split_by, split, wanted, group, free, twins)
        # the nearest one: the smallest hash, of train the largest
        nearest = min if split != TRAIN else max
        promote(nearest(candidates, key=lambda number: (shares[number], units[number])), split)
    return splits, promoted


def _across(sessions: Sequence[SessionId], twin_of: Sequence[str | None], unit_of: np.ndarray) -> list[str]:
    """Pairs of twins that keep two units together, in words."""
    names = [f"{dataset}/{session}" for dataset, _, session in sessions]
    units = dict(zip(names, unit_of.tolist(), strict=True))
    every = zip(names, twin_of, unit_of.tolist(), strict=True)
    return [f"{name} = {leader}" for name, leader, unit in every if leader is not None and units[leader] != unit]


def _too_few(
    split_by: SplitBy, empty: int, wanted: Sequence[int], group: np.ndarray, free: np.ndarray, twins: Sequence[str]
) -> MergeError:
    """Why a split stays empty; ``twins`` are pairs of sessions, in words."""
    count, apart = int(free.sum()), len(np.unique(group[free]))
    found = f"{count:,} {split_by if count != 1 else split_by.removesuffix('s')}"
    if count < len(free):
        found += f" besides {len(free) - count:,} held out"
    smaller = {"datasets": "sessions or rows", "subjects": "sessions or rows", "sessions": "rows"}.get(split_by)
    choices = ["merge more components or sessions", *([f"set split_by: {smaller}"] if smaller else [])]
    if apart < count:
        example = f", e.g. {twins[0]}" if twins else ""
        found += f", of which twins (sessions with the same spikes{example}) leave {apart:,} that can be apart"
        choices.insert(0, "leave out one of each pair of twins (`exclude` in `sessions` of its dataset's row)")
    return MergeError(
        f"split_by: {split_by} leaves the split {SPLITS[empty]} empty",
        found=found,
        expected=f"at least {len(wanted)}, for {', '.join(SPLITS[split] for split in sorted(wanted))}",
        remedy=", or ".join(choices),
    )


def _twins(
    sessions: Sequence[SessionId], identities: Sequence[SessionIdentity], used: EarlierSplits | None
) -> list[str | None]:
    """For each session with twins, the one that they follow."""
    ids = ("source_dataset", "subject_id", "session_id")
    known = set(zip(*(used.table[name].to_pylist() for name in ids), strict=True)) if used else set()
    twins = defaultdict(list)
    for session, identity in zip(sessions, identities, strict=True):
        if identity.fingerprint is not None:
            twins[identity.fingerprint].append(session)
    found: list[str | None] = []
    for session, identity in zip(sessions, identities, strict=True):
        same = twins[identity.fingerprint] if identity.fingerprint is not None else [session]
        leader = min((twin for twin in same if twin in known), default=min(same))
        found.append(None if leader == session else f"{leader[0]}/{leader[2]}")
    return found
