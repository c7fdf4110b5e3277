"""Build one session in a store: recording in, files and records out, for Dagster and the benches alike.

Pure of Dagster. A record is written after its files, so that it commits them:
what was interrupted leaves no record and is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuralpile_dagster.binning.source import CountSource
from neuralpile_dagster.catalog.model import MAX_SESSION_TOKENS, Dataset
from neuralpile_dagster.files import DigestWriter, require_free
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.recordings.model import NO_OPTIONS, Recording, SpikeTrains, Unit, reader_version
from neuralpile_dagster.records import ClockRecord, CountsRecord, FactsRecord, TrainsRecord
from neuralpile_dagster.session.rows import WrittenRows, require_room_for_rows, write_session_rows
from neuralpile_dagster.settings import ProcessSettings, Settings
from neuralpile_dagster.store import Store, is_intact, put_stream, write_record

TRAINS_VERSION = "trains-1"
"""Code version of stored spike trains (`tables.spike_trains`); a new one makes all of them out of date."""
BINNING_VERSION = "binning-1"
"""Code version of binning, segmenting, measures and rows; a new one makes all counts out of date."""

_BYTES_PER_SPIKE = 9
"""Free disk needed while spike trains are written: in the worst case they are stored as float64."""


def trains_inputs(session: Session, reader: str, options: Mapping[str, Any] = NO_OPTIONS) -> str:
    """Hash (sha256, hex) of all that a session's spike trains are made from: files as listed, options, and the code."""
    files = [file.model_dump(include={"path", "size", "file_id", "digests", "modified"}) for file in session.files]
    return _digest(TRAINS_VERSION, reader_version(reader, options), session.subject_id, session.session_id, files)


def session_inputs(session: Session, dataset: Dataset) -> str:
    """`trains_inputs` of a session of a dataset, as the dataset's row says that it is read."""
    return trains_inputs(session, dataset.reader, dataset.reader_options)


def counts_inputs(trains: TrainsRecord, settings: Settings) -> str:
    """Hash (sha256, hex) of the inputs of a session's spike counts: spike trains, settings, and the code."""
    return _digest(BINNING_VERSION, trains.inputs, trains.file.sha256, settings.bin_width_s, settings.max_tokens)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_current(store: Store, record: TrainsRecord | CountsRecord | None, inputs: str) -> bool:
    """Whether a record is up to date: made from these inputs, and its files present."""
    if record is None or record.inputs != inputs:
        return False
    files = [record.file] if isinstance(record, TrainsRecord) else [record.file, record.units_file]
    return all(is_intact(store, file) for file in files)


def store_recording(
    store: Store,
    prefix: str,
    session: Session,
    recording: Recording,
    source_version: str,
    inputs: str,
    unverified: bool = False,
) -> TrainsRecord:
    """Store a session's recording: ``<prefix>/<key>.parquet``, then ``<prefix>/<key>.json``, its record.

    Parameters
    ----------
    store : Store
    prefix : str
        Folder of the dataset's spike trains, ``<dataset>/spike_trains``.
    session : Session
    recording : Recording
        Contents of its files (`recordings.model.read_session`).
    source_version : str
        Version of the source that listed the files.
    inputs : str
        `trains_inputs`, which a later call compares.
    unverified : bool
        See `TrainsRecord`.

    Raises
    ------
    StoreError
        The store cannot be written, or its disk is full.
    """
    from neuralpile_dagster.tables.spike_trains import write_recording

    data = recording.data
    n_spikes = data.n_spikes if isinstance(data, SpikeTrains) else None
    needed = data.n_spikes * _BYTES_PER_SPIKE if isinstance(data, SpikeTrains) else data.counts.size

    def write(stream: DigestWriter) -> None:
        require_free(stream.path, needed, f"the spike trains of {session.session_id}")
        write_recording(stream, recording)

    file, _ = put_stream(store, f"{prefix}/{session.key}.parquet", write)
    record = TrainsRecord(
        inputs=inputs,
        file=file,
        subject_id=session.subject_id,
        session_id=session.session_id,
        source_version=source_version,
        n_units=data.n_units,
        n_spikes=n_spikes,
        facts=FactsRecord(**asdict(recording.facts)),
        notes=recording.notes,
        unverified=unverified,
        annotate=True,
    )
    write_record(store, f"{prefix}/{session.key}.json", record)
    return record


def load_recording(store: Store, trains: TrainsRecord) -> Recording:
    """Read a stored recording back; raises `StoreError` or `TableError` when its file is damaged."""
    from neuralpile_dagster.store.fetching import open_verified
    from neuralpile_dagster.tables.spike_trains import read_recording

    with open_verified(store, trains.file) as file:
        return read_recording(file, store.uri(trains.file.key))


@dataclass(frozen=True)
class PackedRecording:
    """What the counts of a session need of its recording, in an eighth of the memory: about a byte per spike.

    ``name`` is what errors call it.
    """

    source: CountSource
    clock: ClockRecord
    units: tuple[Unit, ...]
    name: str


def pack_recording(
    recording: Recording,
    key: str,
    settings: Settings,
    max_session_tokens: int = MAX_SESSION_TOKENS,
    allow_bin_width: bool = False,
    consume: bool = False,
) -> PackedRecording:
    """Pack a recording, which is not kept; raises what `build_spike_counts` does for a recording.

    Parameters
    ----------
    recording : Recording
    key : str
        The session's key.
    settings : Settings
        Of the instance: bin width.
    max_session_tokens : int, optional
        The catalog row's; a longer session is refused.
    allow_bin_width : bool
        The catalog row's (`binning.source.count_source`).
    consume : bool
        Nobody needs its spike times afterwards: their memory is given back while they are packed.
    """
    from neuralpile_dagster.binning.clock import measure_clock, scan_spikes
    from neuralpile_dagster.binning.source import count_source

    name = f"{', '.join(dict.fromkeys(unit.file for unit in recording.units))} (session {key})"
    threads = ProcessSettings.from_environment().threads
    scan = scan_spikes(recording, threads)
    how = {"allow_bin_width": allow_bin_width, "consume": consume}
    source = count_source(recording, settings.bin_width_s, name, max_session_tokens, threads, **how)
    return PackedRecording(source, measure_clock(recording, source, threads, scan), recording.units, name)


def build_spike_counts(
    store: Store,
    prefix: str,
    key: str,
    recording: Recording | PackedRecording | None,
    trains: TrainsRecord,
    settings: Settings,
    progress: Progress = silent,
) -> CountsRecord:
    """Bin a recording, cut it and store its rows, units table and record, in that order.

    Parameters
    ----------
    store : Store
    prefix : str
        Folder of the dataset's spike counts, ``<dataset>/spike_counts<variant>``.
    key : str
        The session's key.
    recording : Recording, PackedRecording or None
        What ``trains`` is the record of; None reads it from the store. One that the caller holds takes 0.8 GB per
        100 M spikes while rows are encoded, a packed one an eighth of that.
    trains : TrainsRecord
    settings : Settings
        Of the instance: bin width and tokens per segment.
    progress : callable, optional
        Called with a line now and then.

    Raises
    ------
    ConfigurationError
        The recording holds ready-made counts of a bin width that does not divide the one wanted.
    EmptyRecording, DamagedRecording
        There is nothing to bin, spike times are invalid, or the session is too long.
    StoreError
        The store cannot be written, or its disk is full.
    """
    from neuralpile_dagster.binning.clock import observed_seconds
    from neuralpile_dagster.tables.units import write_units

    ours = recording is None
    if recording is None:
        recording = load_recording(store, trains)
    if isinstance(recording, Recording):
        recording = pack_recording(recording, key, settings, consume=ours)
    packed = recording
    ids = {"subject_id": trains.subject_id, "session_id": trains.session_id}

    def write(stream: DigestWriter) -> WrittenRows:
        require_room_for_rows(stream.path, packed.source, packed.name)
        return write_session_rows(
            stream,
            packed.source,
            packed.clock,
            max_tokens=settings.max_tokens,
            name=packed.name,
            progress=progress,
            **ids,
        )

    file, written = put_stream(store, f"{prefix}/{key}.parquet", write)
    totals, seconds = written.unit_totals, observed_seconds(packed.units, packed.clock, written.stats.duration_s)
    units_file, _ = put_stream(
        store,
        f"{prefix}/{key}.units.parquet",
        lambda stream: write_units(stream, packed.units, n_spikes=totals, observed_s=seconds, **ids),
    )
    record = CountsRecord(
        inputs=counts_inputs(trains, settings),
        trains_inputs=trains.inputs,
        file=file,
        units_file=units_file,
        subject_id=trains.subject_id,
        session_id=trains.session_id,
        source_version=trains.source_version,
        max_tokens=settings.max_tokens,
        facts=trains.facts,
        stats=written.stats,
        rows=written.rows,
        unverified=trains.unverified,
    )
    write_record(store, f"{prefix}/{key}.json", record)
    return record
