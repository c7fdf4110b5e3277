"""Batches of fixed-length windows for training: random, resumable, and shared out to any number of processes.

The order is `order.Epoch`'s; what may be chosen is in `selection`.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.reading.order import Batch, Epoch, Rules
from neuralpile_dagster.reading.pile import Pile
from neuralpile_dagster.reading.selection import select
from neuralpile_dagster.tables.packed import PackedCounts

if TYPE_CHECKING:
    import pyarrow.compute as pc

FORMAT = 1
"""Of `Windows.state_dict`."""


class Windows:
    """Batches of windows of a pile's rows; a ``torch.utils.data.IterableDataset`` where torch is imported.

    In an epoch every row is cut, from a random bin on, into windows that do not overlap, so rows are seen in
    proportion to their length and windows begin at other bins in each epoch. The order depends on the pile, the
    arguments and the seed alone: any number of ranks and workers together see the same batches in the same order.

    With a ``DataLoader`` say ``batch_size=None``: what comes are batches.

    Parameters
    ----------
    pile : Pile
    n_bins : int
        Bins of a window.
    split : str or None
        ``train``, ``test``, ...; None for the rows of all.
    batch_size : int
        Windows of a batch. The last batch of a round may have fewer.
    units : pyarrow.compute.Expression or numpy.ndarray, optional
        Which units: a condition on columns of `Pile.units`, e.g. ``pc.field("brain_area") == "CA1"``, or bool of
        shape (n_rows of that table,). Sessions without such units are left out.
    datasets : sequence of str, optional
        Names (``source_dataset``) to read; all when not given.
    exclude, hold_out : sequence of str
        What is left out: a dataset's name, ``session:<dataset>/<pattern>``, ``subject:<dataset>/<pattern>``,
        ``benchmark:<name>``.
    held_out : bool
        When true, what ``hold_out`` names is read, and nothing else: for evaluation.
    batch_by : {"session", "padded"}
        ``session``: all windows of a batch are of one session, so no unit is padding. ``padded``: windows of
        any sessions; units are padded with zeros to the most in the batch.
    buffer_rows : int
        Rows whose windows are shuffled among themselves, over all processes together; a row of 10 million tokens
        takes about 5 MB in the one process that reads it.
    lanes : int
        Parts of the buffer, each for one process; give a multiple of ranks x workers, or rows are decompressed
        by several of them. Windows of a batch are from the ``buffer_rows / lanes`` rows of one lane.
    shuffle : bool
        When false, each row is cut from its first bin on and nothing is shuffled: for evaluation.
    epochs : int or None
        Epochs of one iteration; None for no end. Ranks may differ by one batch at the end, which some ways of
        distributed training do not bear: use None there and count the steps.
    seed : int
        Of the order.
    rank, world : int
        Of distributed training: this process reads every ``world``-th batch. Workers are known from torch.

    Attributes
    ----------
    n_rows, n_too_short : int
        Rows chosen, and rows left out because they are shorter than a window.

    Raises
    ------
    ConfigurationError
        An argument is invalid, names nothing in the pile, or leaves no window.
    """

    def __init__(
        self,
        pile: Pile,
        n_bins: int,
        split: str | None = "train",
        *,
        batch_size: int = 32,
        units: pc.Expression | np.ndarray | None = None,
        datasets: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        hold_out: Sequence[str] = (),
        held_out: bool = False,
        batch_by: str = "session",
        buffer_rows: int = 64,
        lanes: int = 8,
        shuffle: bool = True,
        epochs: int | None = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _require(n_bins >= 1 and batch_size >= 1 and lanes >= 1, "n_bins, batch_size and lanes are at least 1")
        _require(buffer_rows >= lanes, "buffer_rows is at least lanes")
        _require(0 <= rank < world, "rank is from 0 to world - 1")
        _require(seed >= 0, "seed is not negative")
        _require(batch_by in ("session", "padded"), "batch_by is 'session' or 'padded'")
        _require(bool(hold_out) or not held_out, "hold_out names something where held_out is true")
        if data := _torch_data():
            data.IterableDataset.register(Windows)
        self.pile = pile
        rows, self._units = select(pile, split, units, datasets, exclude, hold_out, held_out)
        lengths = pile.segments["n_bins"].to_numpy()[rows]
        self._rows = rows[lengths >= n_bins]
        self.n_rows, self.n_too_short = len(self._rows), int(np.sum(lengths < n_bins))
        if not self.n_rows:
            found = f"the longest has {lengths.max():,} bins" if len(lengths) else "no row is chosen"
            raise ConfigurationError(
                f"no row of {pile.place} has a window of {n_bins:,} bins",
                found=found,
                expected=f"rows of {split or 'any split'} that have such units, of such datasets and sessions",
                remedy="check units, datasets, exclude and hold_out; split=None reads the rows of all splits",
            )
        self._rules = Rules(n_bins, batch_size, batch_by == "session", lanes, buffer_rows // lanes, shuffle)
        self._start_s = _seconds(pile.segments["start_s"].to_pylist())
        self._sessions = pile.segments["session"].to_numpy()
        self._width_s = _seconds(pile.sessions["bin_width_s"].to_pylist())
        self.seed, self.rank, self.world, self.epochs = seed, rank, world, epochs
        self.epoch = self._consumed = 0
        self._yielded: tuple[int, int] | None = None
        self._latest: tuple[int, int, Epoch] | None = None

    @property
    def n_windows(self) -> int:
        """Windows of the current epoch, over all ranks."""
        return self._plan(self.epoch).n_windows

    @property
    def n_batches(self) -> int:
        """Batches of the current epoch, over all ranks."""
        return self._plan(self.epoch).n_batches

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration with this epoch: needed between iterations with workers, which do not report."""
        self.epoch, self._consumed = epoch, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches of this rank (and, inside a worker of a ``DataLoader``, of this worker).

        Yields
        ------
        dict
            ``counts``: uint8 (n_windows, n_units, n_bins), spikes per bin; ``mask``: bool (n_windows, n_units), false
            where padded; ``unit_index``: int64 (n_windows, n_units), row numbers in `Pile.units`, -1 where padded;
            ``session`` and ``segment``: int64 (n_windows,), row numbers in `Pile.sessions` and `Pile.segments`;
            ``start_s``: float64 (n_windows,), seconds from the session's first bin, NaN where unknown;
            ``epoch``, ``index``: int, the batch's place in the order.

        Raises
        ------
        TableError, TransientError
            A row is damaged, or cannot be fetched now.
        """
        worker = _worker()
        return self.iterate(worker.id, worker.num_workers) if worker else self.iterate()

    def iterate(self, worker: int = 0, workers: int = 1) -> Iterator[dict[str, Any]]:
        """Batches of one of a rank's workers; see `__iter__`. What ``workers`` give in turn is the rank's order."""
        self._yielded = None
        epoch, position = self.epoch, self._consumed + self.rank + self.world * worker
        last = None if self.epochs is None else self.epoch + self.epochs
        buffer = _Buffer(self.pile)
        while last is None or epoch < last:
            plan = self._plan(epoch)
            while position < plan.n_batches:
                batch = self._batch(buffer.batch(plan, epoch, position))
                self._yielded = (epoch, position)
                yield {**batch, "epoch": epoch, "index": position}
                position += self.world * workers
            position -= plan.n_batches
            epoch += 1
        if last is not None:
            self.set_epoch(last)
            self._yielded = None

    def state_dict(self, batch: dict[str, Any] | None = None) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after a batch; the same on all ranks after the same step.

        Parameters
        ----------
        batch : dict, optional
            The last batch that was trained on. Needed with the workers of a ``DataLoader``, which read ahead.

        Returns
        -------
        dict
            ``format``, ``seed``, ``epoch``, ``samples`` (batches consumed in the epoch, by all ranks),
            ``selection`` (digest of the pile and the arguments that the order depends on).
        """
        _require(_worker() is None, "state_dict is called in the training process, not in a worker")
        place = (int(batch["epoch"]), int(batch["index"])) if batch is not None else self._yielded
        epoch, samples = (
            (self.epoch, self._consumed) if place is None else (place[0], place[1] + self.world - self.rank)
        )
        return {
            "format": FORMAT,
            "seed": self.seed,
            "epoch": epoch,
            "samples": samples,
            "selection": self._digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that a `state_dict` counts, with any number of ranks and workers.

        Raises
        ------
        ConfigurationError
            It is no state, or one of another pile, version or order.
        """
        if not isinstance(state, dict) or not state.keys() >= {"format", "seed", "epoch", "samples", "selection"}:
            raise ConfigurationError(
                "this is not a state of Windows",
                found=f"{state!r:.60}",
                expected="what state_dict gives: a dict of format, seed, epoch, samples and selection",
                remedy="where a checkpoint holds more than that, give its part",
            )
        if state.get("format") != FORMAT or state.get("selection") != self._digest:
            raise ConfigurationError(
                "this state is of another pile, or of windows in another order",
                found=f"format {state.get('format')}, selection {state.get('selection')}",
                expected=f"format {FORMAT}, selection {self._digest}",
                remedy="open the same revision, and give the same arguments (rank, world and epochs may differ)",
            )
        self.seed, self._yielded = int(state["seed"]), None
        self.epoch, self._consumed = int(state["epoch"]), int(state["samples"])
        while self._consumed >= (n := self._plan(self.epoch).n_batches):
            self.epoch, self._consumed = self.epoch + 1, self._consumed - n

    @cached_property
    def _digest(self) -> str:
        segments = self.pile.segments
        content = hashlib.sha256(repr((self._rules, segments["segment_id"].to_pylist())).encode())
        for numbers in (self._rows, *(segments[name].to_numpy() for name in ("n_bins", "n_units", "session"))):
            content.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        for session in sorted(self._units):
            content.update(self._units[session].astype("<i8").tobytes())
        return content.hexdigest()[:16]

    @cached_property
    def _unit_index(self) -> dict[int, np.ndarray]:
        return {session: self.pile.unit_index(session)[rows] for session, rows in self._units.items()}

    def _plan(self, epoch: int) -> Epoch:
        if self._latest is None or self._latest[:2] != (self.seed, epoch):
            lengths = self.pile.segments["n_bins"].to_numpy()[self._rows]
            plan = Epoch(self._rules, self._rows, lengths, self._sessions[self._rows], self.seed, epoch)
            self._latest = (self.seed, epoch, plan)
        return self._latest[2]

    def _batch(self, windows: tuple[Batch, dict[int, PackedCounts]]) -> dict[str, np.ndarray]:
        batch, rows = windows
        sessions, n_bins = self._sessions[batch.rows], self._rules.n_bins
        units = [self._units[session] for session in sessions.tolist()]
        shape = (len(units), max(map(len, units)))
        counts, mask = np.zeros((*shape, n_bins), np.uint8), np.zeros(shape, bool)
        unit_index = np.full(shape, -1, np.int64)
        for k, (row, start, session) in enumerate(
            zip(batch.rows.tolist(), batch.starts.tolist(), sessions.tolist(), strict=True)
        ):
            n = len(units[k])
            counts[k, :n] = self.pile.cut(row, rows[row], start, n_bins, units[k])
            mask[k, :n] = True
            unit_index[k, :n] = self._unit_index[session]
        start_s = self._start_s[batch.rows] + batch.starts * self._width_s[sessions]
        return {
            "counts": counts,
            "mask": mask,
            "unit_index": unit_index,
            "session": sessions,
            "segment": batch.rows,
            "start_s": start_s,
        }

    def __repr__(self) -> str:
        short = f", {self.n_too_short:,} shorter ones left out" if self.n_too_short else ""
        return f"Windows({self.pile!r}, {self._rules.n_bins} bins, {self.n_rows:,} rows{short})"


class _Buffer:
    """The rows of one round of each lane, decompressed and packed."""

    def __init__(self, pile: Pile) -> None:
        self._pile = pile
        self._rounds: dict[int, tuple[tuple[int, int], list[Batch], dict[int, PackedCounts]]] = {}

    def batch(self, plan: Epoch, epoch: int, index: int) -> tuple[Batch, dict[int, PackedCounts]]:
        """A batch, and the rows that it needs."""
        lane, number, k = plan.place(index)
        if lane not in self._rounds or self._rounds[lane][0] != (epoch, number):
            self._rounds.pop(lane, None)  # free its memory first
            self._rounds[lane] = ((epoch, number), plan.batches(lane, number), {})
        _, batches, rows = self._rounds[lane]
        # over a network a round's rows are fetched together; from a disk each when it is needed
        wanted = batches if self._pile.is_remote else [batches[k]]
        needed = np.unique(np.concatenate([batch.rows for batch in wanted])).tolist()
        lacking = [row for row in needed if row not in rows]
        rows.update(zip(lacking, self._pile.packed_rows(lacking), strict=True))
        return batches[k], rows


def _worker() -> Any:
    """What torch says of the worker of a ``DataLoader`` that this process is; None when it is none."""
    data = _torch_data()
    return data.get_worker_info() if data else None


def _torch_data() -> Any:
    """``torch.utils.data`` where torch is imported: importing it for those who do not need it would take seconds."""
    return importlib.import_module("torch.utils.data") if "torch" in sys.modules else None


def _seconds(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigurationError("the arguments of Windows are invalid", expected=rule)
