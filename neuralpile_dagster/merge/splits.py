"""Which split each row of a pile is in: drawn (`order`), or by hash; held-out sessions, twins, promotions.

Pure functions of numbers, ids, fingerprints and what was published last. A session's split by hash depends on nothing
but its own key, so that other sessions come and go without moving it. The ``splits`` table belongs in `split_table`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.merge.model import (
    LEFT_OUT,
    SPLITS,
    TEST,
    TRAIN,
    VALID,
    EarlierSplits,
    SplitSettings,
    settings_of,
)
from neuralpile_dagster.merge.order import check_sizes, draw_splits

SessionId = tuple[str, str, str]
"""source_dataset, subject_id, session_id."""


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
    settings: SplitSettings,
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
    settings : SplitSettings
        Seed, shares and rules.
    held_out : collection of SessionId
        What is held out; with it the twins, and what else belongs to the same key (subject, dataset).
    earlier : EarlierSplits, optional
        What was published last: twins and promotions of then stay.

    Raises
    ------
    MergeError
        A setting is invalid, or there are too few sessions (rows, ...); names it.
    """
    seed, split_by, test_size, rules = settings.seed, settings.split_by, settings.test_size, settings.rules
    check_sizes(test_size, rules.valid_size)
    before = settings_of(earlier.table) if earlier else None
    used = earlier if before and before.same_rule(settings) else None
    keys = [_key(split_by, session, known) for session, known in zip(sessions, identities, strict=True)]
    group = _groups(keys, identities)
    u = _followed(keys, group, seed, _earlier_u(used.table, split_by, sessions, identities) if used else {})
    held = np.isin(group, group[[session in held_out for session in sessions]])
    goes_to = TEST if rules.held_out_go_to == "test" else LEFT_OUT
    # what is split: rows, or sessions; of each the number of its session
    session_of = row_session if split_by == "rows" else np.arange(len(sessions))
    free = ~held[session_of]
    twin_of = _twins(sessions, identities, used)
    promoted: dict[str, str] = {}
    if rules.split_rule == "permutation":
        splits = draw_splits(len(session_of), seed, test_size, rules.valid_size, free, units=split_by)
    else:
        names, shares, groups = [keys[n] for n in session_of], [u[n] for n in session_of], group[session_of]
        if split_by == "rows":
            names = [(*name, part) for name, part in zip(names, row_segment, strict=True)]
            # of the session's u, so that rows of twins stay together as well
            shares = [share_of(seed, repr(of), part) for of, part in zip(shares, row_segment, strict=True)]
            groups = _numbered(zip(groups.tolist(), row_segment, strict=True))
        wanted = [TEST] if not (held.any() and goes_to == TEST) else []
        wanted += [VALID, TRAIN] if rules.valid_size else [TRAIN]
        kept = before.promoted if used and before else {}
        sizes = (test_size, rules.valid_size)
        twins = _across(sessions, twin_of, _numbered(keys))
        splits, promoted = _by_hash(names, shares, groups, free, sizes, wanted, kept, split_by, twins)
    row_splits = splits if split_by == "rows" else splits[row_session]
    row_splits[held[row_session]] = goes_to
    return Decision(
        row_splits=row_splits,
        held_out=held[row_session],
        u=u,
        twin_of=twin_of,
        promoted=promoted,
        follows=used.where if used else "",
    )


def session_hashes(
    seed: int, sessions: Sequence[SessionId], identities: Sequence[SessionIdentity]
) -> tuple[list[float], list[str | None]]:
    """``u`` and ``twin_of`` of sessions as the hash rule has them, where nothing was published before."""
    keys = [_key("sessions", session, known) for session, known in zip(sessions, identities, strict=True)]
    return _followed(keys, _groups(keys, identities), seed, {}), _twins(sessions, identities, None)


def _key(split_by: str, session: SessionId, identity: SessionIdentity) -> tuple[str, ...]:
    if split_by == "datasets":
        return (identity.dataset,)
    return (identity.dataset, identity.subject if split_by == "subjects" else session[2])


def _groups(keys: Sequence[tuple[str, ...]], identities: Sequence[SessionIdentity]) -> np.ndarray:
    """Number of each session's group: sessions of one key, and keys that share a twin, are one."""
    root = {key: key for key in keys}

    def find(key: tuple[str, ...]) -> tuple[str, ...]:
        while root[key] != key:
            root[key] = key = root[root[key]]
        return key

    first: dict[str, tuple[str, ...]] = {}
    for key, identity in zip(keys, identities, strict=True):
        if identity.fingerprint is not None:
            root[find(key)] = find(first.setdefault(identity.fingerprint, key))
    return _numbered(map(find, keys))


def _numbered(items: Iterable[Hashable]) -> np.ndarray:
    """A number for each item, the same for equal ones: int64, shape (n_items,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64)


def _earlier_u(
    table: pa.Table, split_by: str, sessions: Sequence[SessionId], identities: Sequence[SessionIdentity]
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
    keys: Sequence[tuple[str, ...]], group: np.ndarray, seed: int, before: Mapping[tuple[str, ...], float]
) -> list[float]:
    """Hash of each session: what was published, else that of the twin it follows, else its own."""
    members = defaultdict(set)
    for key, number in zip(keys, group.tolist(), strict=True):
        members[number].add(key)
    leaders = {
        number: min((key for key in some if key in before), default=min(some)) for number, some in members.items()
    }
    return [
        before[key] if key in before else before.get(leaders[number], share_of(seed, *leaders[number]))
        for key, number in zip(keys, group.tolist(), strict=True)
    ]


def _by_hash(
    units: Sequence[tuple[str, ...]],
    u: Sequence[float],
    group: np.ndarray,
    free: np.ndarray,
    sizes: tuple[float, float],
    wanted: Sequence[int],
    kept: Mapping[str, str],
    split_by: str,
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
            raise _too_few(split_by, split, wanted, units, group, free, twins)
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
    split_by: str,
    empty: int,
    wanted: Sequence[int],
    units: Sequence[tuple[str, ...]],
    group: np.ndarray,
    free: np.ndarray,
    twins: Sequence[str],
) -> MergeError:
    """Why a split stays empty; ``twins`` are pairs of sessions, in words."""
    count = len({unit for unit, is_free in zip(units, free, strict=True) if is_free})
    held, apart = len(set(units)) - count, len(np.unique(group[free]))
    found = f"{count:,} {split_by if count != 1 else split_by.removesuffix('s')}"
    if held:
        found += f" besides {held:,} held out"
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
