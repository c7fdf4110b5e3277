"""Batches for training: each window once, in an order that workers, ranks and interruptions do not change."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.reading import Pile, Windows
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.fixtures.published import BIN_S, SESSIONS, publish

N_BINS = 25
Seen = list[tuple[int, int, tuple[tuple[int, float], ...]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pile, list[Row]]:
    folder = tmp_path_factory.mktemp("pile") / "neural-pile"
    rows = publish(folder)
    return Pile.open(folder), rows


@pytest.fixture
def pile(rows: tuple[Pile, list[Row]]) -> Pile:
    return rows[0]


def windows(pile: Pile, **changes: Any) -> Windows:
    return Windows(pile, N_BINS, **{"batch_size": 4, "buffer_rows": 4, "lanes": 2, "seed": 3, **changes})


def seen(batches: Any) -> Seen:
    """Place and windows of each batch."""
    return [
        (b["epoch"], b["index"], tuple(zip(b["segment"].tolist(), b["start_s"].round(3).tolist(), strict=True)))
        for b in batches
    ]


def together(pile: Pile, world: int, workers: int, **changes: Any) -> Seen:
    """What simulated ranks see: each takes from its workers in turn, as a DataLoader does, and all step together."""
    ranks = []
    for rank in range(world):
        parts = [seen(windows(pile, rank=rank, world=world, **changes).iterate(k, workers)) for k in range(workers)]
        ranks.append([batch for step in zip_longest(*parts) for batch in step if batch is not None])
    return [batch for step in zip_longest(*ranks) for batch in step if batch is not None]


@pytest.mark.parametrize("batch_by", ["session", "padded"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_window_of_an_epoch_is_the_slice_of_its_row_and_comes_once(
    rows: tuple[Pile, list[Row]], batch_by: str, shuffle: bool
):
    pile, decoded = rows
    made = windows(pile, batch_by=batch_by, shuffle=shuffle, split=None)
    found = set()
    for batch in made:
        assert {name: str(batch[name].dtype) for name in ("counts", "mask", "unit_index", "start_s")} == {
            "counts": "uint8",
            "mask": "bool",
            "unit_index": "int64",
            "start_s": "float64",
        }
        if batch_by == "session":
            assert batch["mask"].all()
            assert len(set(batch["session"].tolist())) == 1
        for k, segment in enumerate(batch["segment"].tolist()):
            row, mask = decoded[segment], batch["mask"][k]
            start_bin = pile.segments["start_bin"][segment].as_py()
            start = round(batch["start_s"][k] / BIN_S) - start_bin
            np.testing.assert_array_equal(batch["counts"][k][mask], row.counts[:, start : start + N_BINS])
            assert not batch["counts"][k][~mask].any()
            session = int(batch["session"][k])
            np.testing.assert_array_equal(batch["unit_index"][k][mask], pile.unit_index(session))
            assert (batch["unit_index"][k][~mask] == -1).all()
            found |= {(segment, bin) for bin in range(start, start + N_BINS)}
    n_windows = len(found) // N_BINS
    bins = [row.counts.shape[1] for row in decoded if row.counts.shape[1] >= N_BINS]
    assert len(found) == n_windows * N_BINS, "windows of an epoch do not overlap"
    assert sum(n // N_BINS for n in bins) - len(bins) * shuffle <= n_windows <= sum(n // N_BINS for n in bins)
    assert made.n_too_short == 1


@pytest.mark.parametrize("batch_by", ["session", "padded"])
@pytest.mark.parametrize(("world", "workers"), [(1, 2), (1, 4), (2, 1), (3, 1), (2, 2)])
def test_ranks_and_workers_see_the_same_batches_in_the_same_order(pile: Pile, batch_by: str, world: int, workers: int):
    alone = seen(windows(pile, batch_by=batch_by, epochs=2))
    assert together(pile, world, workers, batch_by=batch_by, epochs=2) == alone
    assert [place for *place, _ in alone] == sorted(place for *place, _ in alone)


def test_processes_share_no_rows_where_their_number_divides_the_lanes(pile: Pile, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    monkeypatch.setattr(Pile, "packed", lambda self, k, packed=Pile.packed: (read.append(k), packed(self, k))[1])
    made = windows(pile, batch_by="padded", lanes=2)
    tail = made.n_batches - 2 * min(int(first[-1]) for first in made._plan(0)._first)
    for rank in range(2):
        list(windows(pile, batch_by="padded", rank=rank, world=2))
    assert len(read) <= made.n_rows + 2 * tail
    assert set(read) == set(made._rows.tolist())


@pytest.mark.parametrize("batch_by", ["session", "padded"])
@pytest.mark.parametrize(("world", "stop_after"), [(1, 0), (1, 17), (2, 3), (3, 8), (3, 17)])
def test_a_resumed_job_sees_what_an_undisturbed_one_sees(pile: Pile, batch_by: str, stop_after: int, world: int):
    undisturbed = seen(windows(pile, batch_by=batch_by, epochs=3))
    before: Seen = []
    states = []
    for rank in range(world):
        job = windows(pile, batch_by=batch_by, epochs=3, rank=rank, world=world)
        batches = [batch for _, batch in zip(range(stop_after), job, strict=False)]
        states.append(pickle.loads(pickle.dumps(job.state_dict())))
        assert states[-1] == job.state_dict(batches[-1] if batches else None)
        before += seen(batches)
    assert all(state == states[0] for state in states)
    resumed = windows(pile, batch_by=batch_by, epochs=None, seed=99)
    resumed.load_state_dict(states[0])
    after = seen(batch for _, batch in zip(range(len(undisturbed) - len(before)), resumed, strict=False))
    assert sorted(before) + after == undisturbed


def test_a_state_of_other_windows_is_refused(pile: Pile):
    state = windows(pile).state_dict()
    for other in (windows(pile, batch_size=5), windows(pile, exclude=["rats"]), windows(pile, split=None)):
        with pytest.raises(ConfigurationError, match="of another pile, or of windows in another order"):
            other.load_state_dict(state)


@pytest.mark.parametrize("state", ["x", None, {}, {"format": 1}, {"model": 1, "data": {"format": 1}}])
def test_what_is_no_state_of_windows_is_refused_in_words(pile: Pile, state: Any) -> None:
    made = windows(pile)
    with pytest.raises(ConfigurationError, match=r"not a state of Windows; found: .*; expected: what state_dict gives"):
        made.load_state_dict(state)
    assert made.state_dict() == windows(pile).state_dict()


def test_epochs_and_seeds_give_other_windows(pile: Pile):
    made = windows(pile, epochs=2)
    both = seen(made)
    first = [batch for epoch, _, batch in both if epoch == 0]
    assert sorted(first) != sorted(batch for epoch, _, batch in both if epoch == 1)
    assert sorted(first) != sorted(batch for *_, batch in seen(windows(pile, seed=4)))
    assert made.epoch == 2
    made.set_epoch(0)
    assert seen(made) == both


def test_only_the_chosen_units_are_read_and_they_keep_their_index(rows: tuple[Pile, list[Row]]):
    pile, decoded = rows
    for units in (pc.field("brain_area") == "VISp", np.array(pile.units["brain_area"].to_pylist()) == "VISp"):
        made = windows(pile, units=units, split=None)
        for batch in made:
            assert set(pile.units["brain_area"].take(batch["unit_index"].ravel().tolist()).to_pylist()) == {"VISp"}
            segment, start = int(batch["segment"][0]), batch["start_s"][0] / BIN_S
            start = round(start) - pile.segments["start_bin"][segment].as_py()
            np.testing.assert_array_equal(batch["counts"][0], decoded[segment].counts[1::2, start : start + N_BINS])
        assert made.n_rows == sum(len(row.counts) > 1 and row.counts.shape[1] >= N_BINS for row in decoded)


def chosen(made: Windows) -> set[str]:
    return {
        made.pile.sessions["session_id"][session].as_py() for batch in made for session in batch["session"].tolist()
    }


def test_what_is_held_out_is_left_out_and_is_what_evaluation_reads(pile: Pile):
    everything = chosen(windows(pile, split=None))
    for hold_out, expected in (
        (["session:mice/s[13]"], {"s1", "s3"}),
        (["subject:mice/sub-2"], {"s3"}),
        (["subject:mice/animal 1"], {"s1", "s2"}),
        (["rats", "session:mice/s2"], {"r1", "s2"}),
    ):
        assert chosen(windows(pile, split=None, hold_out=hold_out)) == everything - expected
        assert chosen(windows(pile, split=None, hold_out=hold_out, held_out=True)) == expected
    assert chosen(windows(pile, split=None, datasets=["mice"])) == {"s1", "s2", "s3"}
    assert chosen(windows(pile, split=None, exclude=["dataset:mice"])) == {"r1"}


def test_a_benchmark_is_held_out_where_the_pile_publishes_its_splits(tmp_path: Path):
    publish(tmp_path, tables=("units", "sessions", "splits"))
    pile = Pile.open(tmp_path)
    made = windows(pile, split=None, hold_out=["benchmark:maze"], held_out=True)
    assert chosen(made) == {"s1", "r1"}
    with pytest.raises(ConfigurationError, match=r"no benchmark 'mase'.*did you mean 'maze'"):
        windows(pile, hold_out=["benchmark:mase"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exclude": ["rat"]}, r"no dataset 'rat'.*mice, rats.*did you mean 'rats'\?$"),
        ({"datasets": ["x"]}, "no dataset 'x'"),
        ({"hold_out": ["session:mice/s9"]}, r"no session 'mice/s9'.*mice/s1"),
        ({"hold_out": ["subject:rats/sub-2"]}, "no subject 'rats/sub-2'"),
        ({"hold_out": ["benchmark:nlb"]}, "publishes no table of splits"),
        ({"hold_out": ["unit:3"]}, "not a selector"),
        ({"hold_out": "mice"}, "a list of selectors"),
        ({"held_out": True}, "hold_out names something"),
        ({"split": "valid"}, r"no split 'valid'.*test, train"),
        ({"units": pc.field("brain_area") == "LP"}, "no row is chosen"),
        ({"units": np.ones(3, bool)}, "does not fit the table of units"),
        ({"units": pc.field("area") == "LP"}, r"condition on units does not fit.*area.*brain_area"),
        ({"units": pc.field("brain_area") > 3}, "condition on units does not fit"),
        ({"lanes": 8}, "buffer_rows is at least lanes"),
        ({"rank": 1}, "rank is from 0"),
        ({"batch_by": "row"}, "'session' or 'padded'"),
    ],
)
def test_arguments_that_name_nothing_are_refused(pile: Pile, arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        windows(pile, **arguments)


def test_windows_longer_than_all_rows_are_refused(pile: Pile):
    with pytest.raises(ConfigurationError, match="the longest has 620 bins"):
        Windows(pile, 621)
    assert len(SESSIONS) == 5


JOB = """
import json, os, signal, sys, zlib
from neuralpile_dagster.reading import Pile, Windows

place, saved, killed_after = sys.argv[1:]
windows = Windows(Pile.open(place), 25, batch_size=4, buffer_rows=4, lanes=2, seed=3, epochs=2)
if os.path.exists(saved):
    windows.load_state_dict(json.load(open(saved)))
for number, batch in enumerate(windows, 1):
    print(batch["epoch"], batch["index"], zlib.crc32(batch["counts"].tobytes()), flush=True)
    with open(saved + "~", "w") as file:
        json.dump(windows.state_dict(batch), file)
    os.replace(saved + "~", saved)
    if number == int(killed_after):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_that_is_killed_and_started_again_sees_what_an_undisturbed_one_sees(pile: Pile, tmp_path: Path):
    def job(killed_after: int) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", JOB, pile.place, str(tmp_path / "state.json"), str(killed_after)]
        done = run(command, os.environ, timeout=60, kind="readers")
        return done.returncode, done.stdout.splitlines()

    expected = [
        f"{batch['epoch']} {batch['index']} {zlib.crc32(batch['counts'].tobytes())}"
        for batch in windows(pile, epochs=2)
    ]
    killed, resumed = job(7), job(0)
    assert (killed[0], resumed[0]) == (-signal.SIGKILL, 0)
    assert len(killed[1]) == 7
    assert killed[1] + resumed[1] == expected
