"""Build one session in a store: recording in, rows, units and records out, for Dagster and the benches alike.

Pure of Dagster. A record is written after its files, so that it commits them:
what was interrupted leaves no record and is made again. numba is imported where
it is needed: not for those who only compare hashes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neuralpile_dagster.binning.source import CountSource, count_source, plan_segments
from neuralpile_dagster.catalog.model import MAX_SESSION_TOKENS, Dataset
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.files import DigestWriter, require_free
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.recordings.model import NO_OPTIONS, Recording, SpikeTrains, Unit, reader_version
from neuralpile_dagster.records import (
    ClockRecord,
    CountsRecord,
    CountsStats,
    FactsRecord,
    RowRecord,
    TrainsRecord,
    json_hash,
)
from neuralpile_dagster.settings import ProcessSettings, Settings
from neuralpile_dagster.store import Store, is_intact, put_stream, write_record
from neuralpile_dagster.tables.rows import Row, write_rows_to

TRAINS_VERSION = "trains-1"
"""Code version of stored spike trains (`tables.spike_trains`); a new one makes all of them out of date."""
BINNING_VERSION = "binning-1"
"""Code version of binning, segmenting, measures and rows; a new one makes all counts out of date."""

_BYTES_PER_SPIKE = 9
"""Free disk needed while spike trains are written: in the worst case they are stored as float64."""
_BYTES_PER_TOKEN = 0.3
"""Free disk needed while rows are written: ~0.1 bytes per token (docs/performance.md), 0.28 at a spike per token."""
LOG_EVERY_S = 10.0
"""Interval of progress lines; most sessions are done before the first."""


def trains_inputs(session: Session, reader: str, options: Mapping[str, Any] = NO_OPTIONS) -> str:
    """Hash (sha256, hex) of all that a session's spike trains are made from: files as listed, options, and the code."""
    files = [file.model_dump(include={"path", "size", "file_id", "digests", "modified"}) for file in session.files]
    return json_hash([TRAINS_VERSION, reader_version(reader, options), session.subject_id, session.session_id, files])


def session_inputs(session: Session, dataset: Dataset) -> str:
    """`trains_inputs` of a session of a dataset, as the dataset's row says that it is read."""
    return trains_inputs(session, dataset.reader, dataset.reader_options)


def counts_inputs(trains: TrainsRecord, settings: Settings) -> str:
    """Hash (sha256, hex) of the inputs of a session's spike counts: spike trains, settings, and the code."""
    return json_hash([BINNING_VERSION, trains.inputs, trains.file.sha256, settings.bin_width_s, settings.max_tokens])


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
    from neuralpile_dagster.store import open_verified
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

    name = f"{', '.join(dict.fromkeys(unit.file for unit in recording.units))} (session {key})"
    threads = ProcessSettings.from_environment().threads
    scan = scan_spikes(recording, threads)
    how = {"allow_bin_width": allow_bin_width, "consume": consume}
    source = count_source(recording, settings.bin_width_s, name, max_session_tokens, threads, **how)
    return PackedRecording(source, measure_clock(recording, source, scan), recording.units, name)


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

    file, written = put_stream(
        store,
        f"{prefix}/{key}.parquet",
        lambda stream: write_session_rows(stream, packed, max_tokens=settings.max_tokens, progress=progress, **ids),
    )
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


@dataclass(frozen=True)
class WrittenRows:
    """What was written.

    Attributes
    ----------
    stats : CountsStats
        Numbers about the counts.
    rows : tuple of RowRecord
    unit_totals : numpy.ndarray, int64, shape (n_units,)
        Spikes kept, per unit.
    notes : tuple of str
        What was left of the recording (`Recording.notes`); empty where its record holds them.
    """

    stats: CountsStats
    rows: tuple[RowRecord, ...]
    unit_totals: np.ndarray
    notes: tuple[str, ...] = ()


def write_session_rows(
    stream: BinaryIO,
    packed: PackedRecording,
    *,
    subject_id: str,
    session_id: str,
    max_tokens: int,
    progress: Progress = silent,
) -> WrittenRows:
    """Write a session's counts as rows of `ROW_SCHEMA`, one per segment.

    Memory: the packed recording, and per thread (``NEURALPILE_THREADS``) up to 4 bytes per token of a segment.

    Parameters
    ----------
    stream : binary file
        Empty, with a name on a disk, open for writing; the caller closes it.
    packed : PackedRecording
        All bins of its source are taken.
    subject_id, session_id : str
    max_tokens : int
        Nominal tokens per segment.
    progress : callable
        Called with a line every `LOG_EVERY_S`.

    Raises
    ------
    DiskFull
        There is too little space, before anything is written.
    """
    from neuralpile_dagster.binning.measures import CountsMeasure

    source, name = packed.source, packed.name
    needed = int(source.n_units * source.n_bins * _BYTES_PER_TOKEN)
    require_free(Path(stream.name), needed, f"the spike counts of {name}")
    segments = plan_segments(source.n_units, source.n_bins, max_tokens)
    threads = ProcessSettings.from_environment().threads
    measure = CountsMeasure(source.n_units, source.n_bins, source.bin_width_s, threads)

    def rows() -> Iterator[Row]:
        reported = time.monotonic()
        for number, segment in enumerate(segments):
            if time.monotonic() - reported >= LOG_EVERY_S:
                progress(f"{name}: {number:,} of {plural(len(segments), 'segment')}")
                reported = time.monotonic()
            row = Row(source.counts(segment.start, segment.stop), subject_id, session_id, segment.id)
            measure.add(row.counts)
            yield row
            del row  # its memory is free before the next segment is made

    row_bytes = write_rows_to(stream, rows(), threads=threads)
    stats = measure.stats(source.spikes_read, clock=packed.clock, **source.lost())
    _require_conserved(stats, name)
    return WrittenRows(
        stats=stats,
        rows=tuple(
            RowRecord(segment_id=segment.id, n_bins=segment.n_bins, bytes=size)
            for segment, size in zip(segments, row_bytes, strict=True)
        ),
        unit_totals=measure.unit_totals,
    )


def _require_conserved(stats: CountsStats, name: str) -> None:
    """Require that every spike read is in the counts, summed from the counts themselves, or in one of the losses."""
    if stats.unaccounted:
        raise NeuralPileError(
            f"{name}: spikes went missing while binning",
            found=f"{stats.unaccounted:,} of {stats.spikes_read:,} spikes unaccounted for",
            expected="every spike kept or counted as lost",
            remedy="this is a defect of neuralpile-dagster; please report it with the recording's name",
        )
