"""Folders for `bench.publish`: components and their pile, made from synthetic recordings by this package.

``python -m bench.publish_data FOLDER SIZE``, where SIZE is JSON: datasets, sessions (of each), units, bins,
shard_bytes. Writes ``a<k>`` (component k), ``c0`` (component 0 with one session more) and ``pile``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.recordings import spike_trains
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.shards import build_shard
from neuralpile_dagster.merge.sources import source_from_component
from neuralpile_dagster.progress import silent
from neuralpile_dagster.publish.card_parts import cite_repository
from neuralpile_dagster.publish.component import write_component
from neuralpile_dagster.publish.pile import write_pile
from neuralpile_dagster.publish.pile_card import PileComponent
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.records import ComponentRecord, CountsRecord
from neuralpile_dagster.session.build import build_spike_counts, store_recording
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore

SPIKES_PER_BIN = 0.1
"""5 Hz at 20 ms, as the large datasets have it (100-130 M spikes of 2,400 units in 2.4 h)."""
Records = dict[str, CountsRecord]


def make_session(store: LocalStore, dataset: str, number: int, seed: int, size: Mapping[str, int]) -> CountsRecord:
    """Store one session's rows; gives the record."""
    n_units, n_bins = size["units"], size["bins"]
    times, ends = spike_trains(n_units, n_bins, int(n_units * n_bins * SPIKES_PER_BIN), seed)
    name = f"{dataset}-session-{number:02d}"
    units = tuple(Unit(unit_id=i, file=f"{name}.nwb") for i in range(n_units))
    recording = Recording(SpikeTrains(times, ends), units, SessionFacts())
    trains = store_recording(store, f"{dataset}/spike_trains", _session(name), recording, "1", "inputs")
    settings = Settings(home=store.root, store=str(store.root))
    return build_spike_counts(store, f"{dataset}/spike_counts", name, recording, trains, settings)


def _session(name: str) -> Session:
    file = ArchiveFile(path=f"sub-1/{name}.nwb", size=1, file_id=name)
    return Session(key=name, subject_id="sub-1", session_id=name, files=(file,))


def _write_component(folder: Path, store: LocalStore, name: str, records: Records, shard_bytes: int) -> ComponentRecord:
    sessions = tuple(_session(key) for key in records)
    manifest = Manifest(
        dataset=name,
        archive="sample",
        source_id="990000",
        version="1",
        frozen=True,
        synthetic=True,
        listed_at=datetime(2026, 1, 1, tzinfo=UTC),
        considered=len(sessions),
        dropped={},
        sessions=sessions,
    )
    dataset = Dataset(name=name, title=f"Synthetic {name}", source=Source(id="990000"), synthetic=True)
    return write_component(
        folder,
        store,
        dataset,
        manifest,
        records,
        missing={},
        repository=f"ours/{name}",
        max_shard_bytes=shard_bytes,
        progress=silent,
    )


def _write_pile(
    folder: Path, store: LocalStore, components: Sequence[tuple[ComponentRecord, Records]], shard_bytes: int
) -> None:
    sources = [source_from_component(component.dataset, component.sessions) for component, _ in components]
    plan = plan_pile(sources, seed=0, test_size=0.1, shard_bytes=shard_bytes)
    shards = [build_shard(store, "pile", plan, shard.name, store.open) for shard in plan.record.shards]
    described = [
        PileComponent(
            name=s.name,
            rows=len(s.row_file),
            sessions=len(s.sessions),
            tokens=int(s.row_tokens.sum()),
            record=None,
            tables=lambda config: (),
            citation=cite_repository(s.name, s.name, None),
            token_counts={(r.subject_id, r.session_id): r.stats.histogram for r in records.values()},
        )
        for s, (_, records) in zip(sources, components, strict=True)
    ]
    write_pile(folder, store, plan.record, shards, described, repository="ours/pile", progress=silent)


def write_folders(folder: Path, size: Mapping[str, int]) -> None:
    """See the module."""
    store = LocalStore(folder / "store")
    components = []
    for number in range(size["datasets"]):
        name = f"sample-{number}"
        seeds = [1_000 * number + k for k in range(size["sessions"] + (number == 0))]
        records = [make_session(store, name, k, seed, size) for k, seed in enumerate(seeds)]
        everything = {record.session_id: record for record in records}
        first = dict(everything)
        if number == 0:  # the session to be added is in the middle
            del first[records[len(records) // 2].session_id]
        component = _write_component(folder / f"a{number}", store, name, first, size["shard_bytes"])
        if number == 0:
            component = _write_component(folder / "c0", store, name, everything, size["shard_bytes"])
        components.append((component, everything))
    _write_pile(folder / "pile", store, components, size["shard_bytes"])


if __name__ == "__main__":
    write_folders(Path(sys.argv[1]), json.loads(sys.argv[2]))
