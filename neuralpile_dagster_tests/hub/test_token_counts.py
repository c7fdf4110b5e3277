"""How often each value occurs among the tokens: counted a second time, from the decoded rows, by numpy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.publish.segments import PlacedSegment, SessionId
from neuralpile_dagster.publish.token_counts import TokenStatistics, count_splits
from neuralpile_dagster.records import ClockRecord, PileRecord, TokenCounts
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.fixtures.row_files import synthetic_rows, write_rows
from neuralpile_dagster_tests.fixtures.sessions import KEYS, put_session, write

Counted = dict[tuple[str, str], np.ndarray]
"""Tokens by value, int64 of shape (256,), by source and split."""


def decoded(folder: Path, source: str = "") -> Counted:
    """Values of all tokens of a published folder, from its rows; ``source`` is that of rows without one."""
    found: Counted = defaultdict(lambda: np.zeros(256, np.int64))
    for path in sorted((folder / "data").iterdir()):
        with RowReader(path) as reader:
            for number in range(reader.n_rows):
                row = reader.row(number)
                part = (row.source_dataset or source, path.name.split("-")[0])
                found[part] += np.bincount(row.counts.ravel(), minlength=256)
    return dict(found)


def published(folder: Path) -> Counted:
    """The config ``token_counts``; also tests that each part has all values once, and that shares sum to 1."""
    table = pq.read_table(folder / "token_counts" / "token_counts.parquet").to_pydict()
    found: Counted = defaultdict(lambda: np.full(256, -1))
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for source, split, value, count, probability in zip(*table.values(), strict=True):
        assert found[source, split][value] == -1
        found[source, split][value] = count
        shares[source, split] += probability
    assert all((counts >= 0).all() for counts in found.values())
    assert list(shares.values()) == pytest.approx([1.0] * len(shares), abs=1e-12)
    return dict(found)


def recorded(parts: Iterable[TokenCounts]) -> Counted:
    return {(p.source_dataset, p.split): np.pad(np.array(p.counts, np.int64), (0, 256 - len(p.counts))) for p in parts}


def require_equal(found: Counted, expected: Counted) -> None:
    assert found.keys() == expected.keys()
    for part, counts in expected.items():
        np.testing.assert_array_equal(found[part], counts, str(part))


def test_a_component_states_how_often_each_value_occurs(tmp_path: Path, load: Callable[..., Any]) -> None:
    store = LocalStore(tmp_path / "store")
    records = {key: put_session(store, key) for key in KEYS}
    component = write(tmp_path / "mice", store, records)
    found = published(tmp_path / "mice")
    require_equal(found, decoded(tmp_path / "mice", "mice"))
    (counts,) = found.values()
    assert counts.sum() == component.totals.tokens
    assert (counts * np.arange(256)).sum() == component.totals.spikes
    rows = load(tmp_path / "mice", "token_counts", split="train")
    assert {name: feature.dtype for name, feature in rows.features.items()} == {
        "source_dataset": "string", "split": "string", "value": "uint8", "count": "int64", "probability": "float64",
    }  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A pile as it is published; nobody changes it."""

    pile: Pile
    folder: Path
    record: PileRecord


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Published:
    home = tmp_path_factory.mktemp("plain")
    pile = Pile(home)
    return Published(pile, home / "pile", pile.write(home / "pile"))


@pytest.fixture(scope="module")
def foreign(plain: Published, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The same rows, of components of which nothing else is known."""
    folder = tmp_path_factory.mktemp("foreign") / "pile"
    components = plain.pile.components(record=None, tables=lambda config: [], token_counts={})
    return Published(plain.pile, folder, plain.pile.write(folder, components=components))


def test_a_pile_split_by_rows_states_the_values_of_each_source_and_split(plain: Published) -> None:
    record, folder = plain.record, plain.folder
    expected = decoded(folder)
    assert {split for _, split in expected} == {"train", "test"}
    require_equal(published(folder), expected)
    require_equal(recorded(record.token_counts), expected)
    assert PileRecord.model_validate_json(record.model_dump_json()) == record


def test_a_pile_whose_components_say_nothing_has_the_same_counts(plain: Published, foreign: Published) -> None:
    counts = [
        [part.model_copy(update={"recorded_s": None}) for part in of.record.token_counts] for of in (plain, foreign)
    ]
    assert counts[0] == counts[1] != []


def test_cards_show_the_shares_of_values_by_split(plain: Published) -> None:
    record = plain.record
    card = (plain.folder / "README.md").read_text().split("## Token statistics")[1].split("\n## ")[0]
    counts = recorded(record.token_counts)
    zeros, tokens = (sum(c[0] for c in counts.values()), sum(c.sum() for c in counts.values()))
    assert "| statistic | train | test | all |" in card
    assert f" {zeros / tokens:.6%} |\n| tokens of value 1 |" in card
    (hourly,) = [line for line in card.splitlines() if line.startswith("| tokens per recorded hour |")]
    assert hourly.endswith(f" | {2_200 * 3600 // 8:,} |"), "4 sessions of 2 s"


def test_recorded_time_is_shared_out_by_the_tokens_of_each_split(tmp_path: Path, foreign: Published) -> None:
    clock = ClockRecord(start_s=0.0, first_spike_s=0.5, last_spike_s=1.5, observed_s=1.0)
    record = Pile(tmp_path, clocks={"r2": clock}).write(tmp_path / "pile")
    seconds: dict[str, float] = defaultdict(float)
    for part in record.token_counts:
        assert part.recorded_s is not None
        seconds[part.source_dataset] += part.recorded_s
    assert seconds == pytest.approx({"mice": 2.0 + 2.0, "rats": 2.0 + 1.0})  # 100 bins of 20 ms, or what was observed
    assert {part.recorded_s for part in foreign.record.token_counts} == {None}
    assert "| tokens per recorded hour | not known |" in (foreign.folder / "README.md").read_text()


def _placed(path: Path, number: int, split: str, session: SessionId, counts: np.ndarray) -> PlacedSegment:
    return PlacedSegment(session, f"segment_{number}", len(counts), counts.size, 0, split, path.name, number)


class Rows:
    """Random rows of two sources in one file, those of each session dealt out to splits."""

    def __init__(self, path: Path, seed: int, splits: int) -> None:
        rng = np.random.default_rng(seed)
        self.path = path
        self.rows: list[PlacedSegment] = []
        self.known: dict[SessionId, list[int]] = {}
        self.expected: Counted = defaultdict(lambda: np.zeros(256, np.int64))
        written = []
        for session in [("a", "sub-1", "s1"), ("a", "sub-1", "s2"), ("b", "sub-1", "s1")]:
            made = synthetic_rows(int(rng.integers(1, 6)), seed=int(rng.integers(1 << 30)), session=session[2])
            for row in made:
                split = ("train", "test", "valid")[rng.integers(splits)]
                self.rows.append(_placed(path, len(written), split, session, row.counts))
                self.expected[session[0], split] += np.bincount(row.counts.ravel(), minlength=256)
                written.append(row)
            self.known[session] = sum(np.bincount(row.counts.ravel(), minlength=256) for row in made).tolist()
        write_rows(path, written)

    def count(self, **changes: Any) -> Counted:
        rows, known = changes.pop("rows", self.rows), {**self.known, **changes.pop("known", {})}
        return recorded(count_splits(self.path.parent, rows, known, {}))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "rows.parquet"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 30), splits=st.integers(1, 3), unknown=st.sets(st.integers(0, 2)))
def test_counts_are_exact_however_sessions_are_split_and_whatever_is_known(
    path: Path, seed: int, splits: int, unknown: set[int]
) -> None:
    rows = Rows(path, seed, splits)
    nothing: Mapping[SessionId, list[int]] = {list(rows.known)[number]: [] for number in unknown}
    require_equal(rows.count(known=nothing), rows.expected)


def test_sessions_that_are_in_one_split_are_not_decoded(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.parquet", seed=1, splits=1)
    rows.path.unlink()
    require_equal(rows.count(), rows.expected)


def test_of_sessions_in_several_splits_only_the_smaller_parts_are_decoded(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.parquet", seed=5, splits=2)
    sizes: dict[tuple[SessionId, str], int] = defaultdict(int)
    for row in rows.rows:
        sizes[row.session, row.split] += row.tokens
    largest = {session: max((n, split) for (s, split), n in sizes.items() if s == session)[1] for session in rows.known}
    placed = [replace(row, file="gone") if largest[row.session] == row.split else row for row in rows.rows]
    assert {row.file for row in placed} == {rows.path.name, "gone"}
    require_equal(rows.count(rows=placed), rows.expected)


def test_a_record_of_other_rows_is_not_used(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.parquet", seed=5, splits=2)
    session = next(iter(rows.known))
    more = {session: [rows.known[session][0] + 1, *rows.known[session][1:]]}
    require_equal(rows.count(known=more), rows.expected)


def test_a_record_that_its_rows_contradict_is_named(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.parquet", seed=5, splits=2)
    session = next(row.session for row in rows.rows if row.split == "test")
    silent = {session: [sum(rows.known[session])]}
    with pytest.raises(TableError, match=f"{session[2]} of {session[0]} do not match its record"):
        rows.count(known=silent)


@pytest.mark.parametrize(
    "counts, mean, entropy",
    [((7,), 0.0, 0.0), ((5, 5), 0.5, 1.0), ((1, 1, 1, 1), 1.5, 2.0), ((0, 0, 8), 2.0, 0.0), ((), 0.0, 0.0)],
)
def test_mean_and_entropy_are_those_of_small_examples(counts: tuple[int, ...], mean: float, entropy: float) -> None:
    found = TokenStatistics.of([TokenCounts(source_dataset="a", split="train", counts=counts)])
    assert (found.mean, found.entropy, found.tokens_per_hour) == (mean, entropy, None)
    assert str(found.entropy) == str(entropy), "never -0.0"


def test_bands_hold_every_value_once_and_hours_are_those_that_are_known() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 1000, 256)
    known = TokenCounts(source_dataset="a", split="train", counts=tuple(counts.tolist()), recorded_s=7200)
    unknown = TokenCounts(source_dataset="b", split="train", counts=(5,))
    found = TokenStatistics.of([known, unknown])
    due = np.array([*counts])
    due[0] += 5
    edges = (0, 1, 2, 3, 6, 21)
    assert list(found.bands.values()) == pytest.approx(list(np.add.reduceat(due, edges) / due.sum()))
    assert sum(found.bands.values()) == pytest.approx(1)
    assert found.tokens == due.sum()
    assert found.tokens_per_hour == counts.sum() / 2
