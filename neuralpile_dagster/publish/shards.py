"""A component's shards: encoded rows of its sessions, copied; cut so that adding a session changes few of them.

Unchanged shards are reused. Copying rows belongs in `tables.copying`.

Filling one shard after another would move every later cut when one session is
added. Instead every session has a fixed pseudo-random priority, the hash of
its key, and a run of sessions that is too large is cut before the session of
highest priority in it, and so on in both parts. (The cuts are the upper part of
a treap, Seidel & Aragon 1996.) A cut then depends only on the sessions around
it. ``python -m bench.sharding``: for datasets of the catalog's sizes, a session
added at a random place gives 1.0 to 1.5 shards new content on average, at most
two in 96 to 100 of 100 cases, and never more than four in 2,000; filling in
order changes up to 31. The price: shards are a little more than half full, so
there are 1.6 to 1.9 times as many. A component below the limit is one shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import DocumentError, HubError
from neuralpile_dagster.files import require_free, sha256_of, sha256_once, write_bytes
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.records import ComponentSession, Model, ShardRecord, document, json_hash, read_document
from neuralpile_dagster.store import Store, open_verified
from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.schemas import ROW_SCHEMA

MAX_SHARD_BYTES = 500_000_000
"""Compressed bytes of the rows of one shard; the Hub wants <= ~100 files a commit and files that resume well."""


@dataclass(frozen=True)
class SessionSizes:
    """One session: its key, and the compressed bytes of each of its rows."""

    key: str
    row_bytes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Compressed bytes of all rows."""
        return sum(self.row_bytes)


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of one session."""

    key: str
    start: int
    stop: int


Shard = tuple[Slice, ...]


class _Made(Model):
    """Cache entry: the shard made from these inputs."""

    bytes: int
    sha256: str


_Placed = tuple[_Made, Path]


@dataclass(frozen=True)
class ShardWriter:
    """Write the shards of one component into ``folder/data``.

    The inputs of each shard are noted beside the folder (never in it: all
    files in it are published), so that a shard whose rows did not change is
    reused, also after an interruption and under a new number.
    """

    folder: Path
    store: Store
    sessions: Mapping[str, ComponentSession]
    progress: Progress

    @property
    def notes(self) -> Path:
        """Folder of the notes, and of the shard being made."""
        return self.folder.parent / f".{self.folder.name}.shards"

    def write(self, max_bytes: int = MAX_SHARD_BYTES) -> tuple[ShardRecord, ...]:
        """Write the missing shards, sessions in the mapping's order; return all shards in order.

        Raises `DiskFull` before anything is written when the disk is too small.
        """
        placed = [SessionSizes(s.key, tuple(row.bytes for row in s.rows)) for s in self.sessions.values()]
        plan = plan_shards(placed, max_bytes)
        kept = [self._kept(self._inputs(shard)) for shard in plan]
        needed = sum(self._row_bytes(shard) for shard, there in zip(plan, kept, strict=True) if there is None)
        require_free(self.folder, needed, f"the shards of {self.folder.name}")
        records = []
        for number, (shard, there) in enumerate(zip(plan, kept, strict=True)):
            made = there or self._make(shard, f"shard {number + 1} of {len(plan)}")
            records.append(self._name(number, shard, made))
        self._remove_stale_notes([self._inputs(shard) for shard in plan])
        return tuple(records)

    def _inputs(self, shard: Shard) -> str:
        """Hash of all that decides a shard's bytes."""
        rows = [[self.sessions[part.key].counts.sha256, part.start, part.stop] for part in shard]
        return json_hash([pa.__version__, rows])

    def _row_bytes(self, shard: Shard) -> int:
        return sum(row.bytes for part in shard for row in self.sessions[part.key].rows[part.start : part.stop])

    def _kept(self, inputs: str) -> _Placed | None:
        """The shard made from these inputs earlier, if its file is present and unchanged; a cache lookup."""
        note = self.notes / f"{inputs}.json"
        if not note.is_file():
            return None
        try:
            made = read_document(note.read_bytes(), _Made, str(note))
        except DocumentError as error:
            self.progress(f"{self.folder.name}: remaking a shard whose stored record is unusable: {error.what}")
            return None
        for path in sorted((self.folder / "data").glob(f"train-*-{made.sha256[:8]}.parquet")):
            if path.stat().st_size == made.bytes and sha256_once(path) == made.sha256:
                return made, path
        return None

    def _make(self, shard: Shard, label: str) -> _Placed:
        inputs = self._inputs(shard)
        rows = [
            RowRef(self.sessions[part.key].counts.key, row) for part in shard for row in range(part.start, part.stop)
        ]
        path = self.notes / f"{inputs}.parquet"
        files = {self.sessions[part.key].counts.key: self.sessions[part.key].counts for part in shard}
        report = copy_rows(rows, lambda key: open_verified(self.store, files[key]), path, ROW_SCHEMA)
        if report.rows != len(rows):
            raise HubError(f"{label} has the wrong rows", found=f"{report.rows}", expected=f"{len(rows)}")
        made = _Made(bytes=report.bytes, sha256=sha256_of(path))
        # in the folder under a name that no shard has, so that none is overwritten before it has its new number
        target = self.folder / "data" / f"train-{inputs}-{made.sha256[:8]}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        write_bytes(self.notes / f"{inputs}.json", document(made).encode())
        decoded = (
            f", {plural(report.decoded_rows, 'row')} encoded again: {report.reasons}" if report.decoded_rows else ""
        )
        self.progress(f"{self.folder.name}: {label}, {plural(report.rows, 'row')}, {report.bytes:,} bytes{decoded}")
        return made, target

    def _name(self, number: int, shard: Shard, placed: _Placed) -> ShardRecord:
        made, path = placed
        name = f"data/train-{number:05d}-{made.sha256[:8]}.parquet"
        path.replace(self.folder / name)
        rows = [(self.sessions[p.key].n_units, self.sessions[p.key].rows[p.start : p.stop]) for p in shard]
        return ShardRecord(
            path=name,
            rows=sum(len(some) for _, some in rows),
            tokens=sum(n_units * row.n_bins for n_units, some in rows for row in some),
            bytes=made.bytes,
            sha256=made.sha256,
        )

    def _remove_stale_notes(self, ids: Sequence[str]) -> None:
        """Remove notes that belong to no shard any more."""
        for note in self.notes.glob("*"):
            if note.stem not in ids:
                note.unlink()


def plan_shards(sessions: Sequence[SessionSizes], max_bytes: int = MAX_SHARD_BYTES) -> tuple[Shard, ...]:
    """Cut sessions, in the order given, into shards of at most ``max_bytes``.

    A session is in one shard, unless it alone is larger than ``max_bytes``: it
    then has shards of its own, filled in row order. A single row larger than
    ``max_bytes`` is a shard. Every row is in exactly one shard, in order.
    """
    shards: list[Shard] = []
    priorities = [_priority(session.key) for session in sessions]
    ends = list(accumulate((session.size for session in sessions), initial=0))
    pending = [(0, len(sessions))] if sessions else []
    while pending:
        start, stop = pending.pop()
        if ends[stop] - ends[start] <= max_bytes:
            shards.append(tuple(Slice(s.key, 0, len(s.row_bytes)) for s in sessions[start:stop]))
        elif stop - start == 1:
            shards.extend(_cut_rows(sessions[start], max_bytes))
        else:
            cut = max(range(start + 1, stop), key=priorities.__getitem__)
            pending += [(cut, stop), (start, cut)]  # the first part is taken next
    return tuple(shards)


def _priority(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _cut_rows(session: SessionSizes, max_bytes: int) -> list[Shard]:
    shards: list[Shard] = []
    start = filled = 0
    for row, size in enumerate(session.row_bytes):
        if row > start and filled + size > max_bytes:
            shards.append((Slice(session.key, start, row),))
            start, filled = row, 0
        filled += size
    return [*shards, (Slice(session.key, start, len(session.row_bytes)),)]
