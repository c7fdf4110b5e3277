"""Build one session: recording in, files and records out, for Dagster, the command line and the benches alike.

Pure of Dagster. A record is written after its files, so that it commits them:
what was interrupted leaves no record and is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from neuralpile_dagster.binning.segments import Segment, plan_segments
from neuralpile_dagster.binning.source import CountSource
from neuralpile_dagster.catalog.model import MAX_SESSION_TOKENS, Dataset
from neuralpile_dagster.errors import ConfigurationError, NeuralPileError
from neuralpile_dagster.files import DigestWriter, atomic_write, require_free
from neuralpile_dagster.hdf5.opened import LocalFile, OpenFile
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.recordings.model import Recording, SpikeTrains, Unit
from neuralpile_dagster.recordings.readers import NO_OPTIONS, read_session, reader_version
from neuralpile_dagster.records import ClockRecord, CountsRecord, CountsStats, FactsRecord, RowRecord, TrainsRecord
from neuralpile_dagster.settings import DEFAULT_BIN_WIDTH_S, DEFAULT_MAX_TOKENS, ProcessSettings, Settings
from neuralpile_dagster.store import Store, is_intact, put_stream, write_record
from neuralpile_dagster.tables.rows import Row

if TYPE_CHECKING:
    from neuralpile_dagster.binning.measures import CountsMeasure

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


def build_spike_trains(
    store: Store,
    prefix: str,
    session: Session,
    files: Sequence[OpenFile],
    reader: str,
    source_version: str,
    inputs: str,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> TrainsRecord:
    """Read a session's files and store the recording under ``<prefix>/<session key>``; see `store_recording`."""
    recording = read_session(reader, files, options)
    unverified = any(file.unverified for file in files)
    return store_recording(store, prefix, session, recording, source_version, inputs, unverified)


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
        Contents of its files (`read_session`).
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
) -> PackedRecording:
    """Pack a recording, which is not kept; parameters and errors are those of `build_spike_counts`."""
    from neuralpile_dagster.binning.clock import measure_clock
    from neuralpile_dagster.binning.source import count_source

    name = f"{', '.join(dict.fromkeys(unit.file for unit in recording.units))} (session {key})"
    threads = ProcessSettings.from_environment().threads
    source = count_source(
        recording, settings.bin_width_s, name, max_session_tokens, threads, allow_bin_width=allow_bin_width
    )
    return PackedRecording(source, measure_clock(recording, source, threads), recording.units, name)


def build_spike_counts(
    store: Store,
    prefix: str,
    key: str,
    recording: Recording | PackedRecording | None,
    trains: TrainsRecord,
    settings: Settings,
    progress: Progress = silent,
    max_session_tokens: int = MAX_SESSION_TOKENS,
    allow_bin_width: bool = False,
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
    max_session_tokens : int, optional
        The catalog row's; a longer session is refused before anything is written.
    allow_bin_width : bool
        The catalog row's (`count_source`).

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

    if recording is None:
        recording = load_recording(store, trains)
    if isinstance(recording, Recording):
        recording = pack_recording(recording, key, settings, max_session_tokens, allow_bin_width)
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


def bin_files(
    paths: Sequence[Path],
    output: Path,
    bin_width_s: float = DEFAULT_BIN_WIDTH_S,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    reader: str = "units",
    progress: Progress = silent,
    stack: bool = False,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> WrittenRows:
    """Bin the local files of one session into one Parquet file of rows, without a store.

    ``subject_id`` is that of the first file's path (`recordings.sessions.subject_of`)
    and ``session_id`` its name without extension. ``output`` appears complete or not at all.
    Several files must state the same subject and start time, unless ``stack``
    says that they are one session. ``options`` are those of the reader.

    Raises
    ------
    ConfigurationError
        A number is out of range, the output is one of the files, there is no such reader or option, or the files are
        those of several sessions.
    RecordingError
        A file cannot be used, or has more than `MAX_SESSION_TOKENS`; the message names it.
    """
    from neuralpile_dagster.binning.clock import measure_clock
    from neuralpile_dagster.binning.source import count_source
    from neuralpile_dagster.recordings.sessions import subject_of

    if not 0 < bin_width_s < math.inf or max_tokens < 1:
        raise ConfigurationError(
            "the session cannot be binned like that",
            found=f"bins of {bin_width_s} s, at most {max_tokens} tokens a segment",
            expected="both above 0",
        )
    if output.absolute().resolve() in [path.absolute().resolve() for path in paths]:
        raise ConfigurationError(f"{output} is a recording and would be overwritten", remedy="choose another output")
    files = [LocalFile(str(path), path) for path in paths]
    name = ", ".join(file.name for file in files)
    if len(files) > 1 and not stack:
        _require_one_session(files)
    recording = read_session(reader, files, options)
    notes = recording.notes
    threads = ProcessSettings.from_environment().threads
    source = count_source(recording, bin_width_s, name, MAX_SESSION_TOKENS, threads)
    clock = measure_clock(recording, source, threads)
    del recording  # binning needs an eighth of its memory
    ids = {"subject_id": subject_of(paths[0].absolute()), "session_id": paths[0].stem}
    with atomic_write(output) as aside, aside.open("wb") as stream:
        require_room_for_rows(aside, source, name)
        written = write_session_rows(stream, source, clock, max_tokens=max_tokens, name=name, progress=progress, **ids)
    return replace(written, notes=notes)


def _require_one_session(files: Sequence[LocalFile]) -> None:
    """Raise `ConfigurationError` when HDF5 files do not state the same subject and start time."""
    import h5py

    from neuralpile_dagster.recordings.nwb.table import read_facts

    stated = {}
    for file in files:
        if not h5py.is_hdf5(file.path):
            return  # its reader knows its form
        with file.hdf5() as content:
            facts = read_facts(content, file.name)
        stated[file.name] = facts.subject, _instant(facts.start_time)
    first, *others = stated
    other = next((name for name in others if stated[name] != stated[first]), None)
    if other is not None or stated[first][1] is None:
        other = other or others[0]
        told = (
            f"{name}: subject {subject or 'not stated'}, start {at or 'not stated'}"
            for name, (subject, at) in ((name, stated[name]) for name in (first, other))
        )
        raise ConfigurationError(
            f"{first} and {other} do not say that they are one session",
            found="; ".join(told),
            expected="the same subject and the same start time",
            remedy="bin them one by one, or give --stack to stack their units as those of one session",
        )


def _instant(start_time: str | None) -> str | None:
    """A start time as UTC, so that files may state it in different time zones; as it is where it is no ISO date."""
    try:
        at = datetime.fromisoformat(start_time or "")
    except ValueError:
        return start_time
    return (at.astimezone(UTC) if at.tzinfo else at).isoformat()


_BYTES_PER_TOKEN = 0.3
"""Free disk needed while rows are written: ~0.1 bytes per token (docs/performance.md), 0.28 at a spike per token."""
LOG_EVERY_S = 10.0
"""Interval of progress lines; most sessions are done before the first."""


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


def require_room_for_rows(path: Path, source: CountSource, name: str) -> None:
    """Raise `DiskFull` when there is too little space where ``path`` lies for the rows of a session."""
    require_free(path, int(source.n_units * source.n_bins * _BYTES_PER_TOKEN), f"the spike counts of {name}")


def write_session_rows(
    stream: BinaryIO,
    source: CountSource,
    clock: ClockRecord | None = None,
    *,
    subject_id: str,
    session_id: str,
    max_tokens: int,
    name: str,
    progress: Progress = silent,
) -> WrittenRows:
    """Write a session's counts as rows of `ROW_SCHEMA`, one per segment.

    Memory: ``source``, and per thread (``NEURALPILE_THREADS``) up to 4 bytes per token of a segment.

    Parameters
    ----------
    stream : binary file
        Empty and open for writing; the caller closes it.
    source : CountSource
        From `count_source`; all its bins are taken.
    clock : ClockRecord, optional
        From `binning.clock.measure_clock`, for the statistics.
    subject_id, session_id : str
    max_tokens : int
        Nominal tokens per segment.
    name : str
        What errors call the recording.
    progress : callable
        Called with a line every `LOG_EVERY_S`.
    """
    from neuralpile_dagster.binning.measures import CountsMeasure  # numba: not for those who only compare hashes
    from neuralpile_dagster.tables.rows import write_rows_to

    segments = plan_segments(source.n_units, source.n_bins, max_tokens)
    threads = ProcessSettings.from_environment().threads
    measure = CountsMeasure(source.n_units, source.n_bins, source.bin_width_s, threads)
    rows = _rows(source, _report_progress(segments, name, progress), measure, subject_id, session_id)
    row_bytes = write_rows_to(stream, rows, threads=threads)
    stats = measure.stats(source.spikes_read, clock=clock, **source.lost())
    _require_conserved(stats, name)
    return WrittenRows(
        stats=stats,
        rows=tuple(
            RowRecord(segment_id=segment.id, n_bins=segment.n_bins, bytes=size)
            for segment, size in zip(segments, row_bytes, strict=True)
        ),
        unit_totals=measure.unit_totals,
    )


def _rows(
    source: CountSource, segments: Iterator[Segment], measure: CountsMeasure, subject_id: str, session_id: str
) -> Iterator[Row]:
    for segment in segments:
        row = Row(source.counts(segment.start, segment.stop), subject_id, session_id, segment.id)
        measure.add(row.counts)
        yield row
        del row  # its memory is free before the next segment is made


def _report_progress(segments: tuple[Segment, ...], name: str, progress: Progress) -> Iterator[Segment]:
    """Yield the segments and report progress in between."""
    said = time.monotonic()
    for number, segment in enumerate(segments):
        if time.monotonic() - said >= LOG_EVERY_S:
            progress(f"{name}: {number:,} of {len(segments):,} segments")
            said = time.monotonic()
        yield segment


def _require_conserved(stats: CountsStats, name: str) -> None:
    """Require that every spike read is in the counts, summed from the counts themselves, or in one of the losses."""
    if stats.unaccounted:
        raise NeuralPileError(
            f"{name}: spikes went missing while binning",
            found=f"{stats.unaccounted:,} of {stats.spikes_read:,} spikes unaccounted for",
            expected="every spike kept or counted as lost",
            remedy="this is a defect of neuralpile-dagster; please report it with the recording's name",
        )
