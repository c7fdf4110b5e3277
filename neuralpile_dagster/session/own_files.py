"""Local files of one session binned into one file of rows, without a store: `neuralpile bin`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuralpile_dagster.binning.source import count_source
from neuralpile_dagster.catalog.model import MAX_SESSION_TOKENS
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.files import atomic_write
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.progress import Progress, silent
from neuralpile_dagster.recordings.model import NO_OPTIONS, read_session
from neuralpile_dagster.session.build import PackedRecording, WrittenRows, write_session_rows
from neuralpile_dagster.settings import DEFAULT_BIN_WIDTH_S, DEFAULT_MAX_TOKENS, ProcessSettings


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

    ``subject_id`` is that of the first file's path (`recordings.manifest.subject_of`)
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
    from neuralpile_dagster.binning.clock import measure_clock, scan_spikes
    from neuralpile_dagster.recordings.manifest import subject_of

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
    scan = scan_spikes(recording, threads)
    source = count_source(recording, bin_width_s, name, MAX_SESSION_TOKENS, threads, consume=True)
    packed = PackedRecording(source, measure_clock(recording, source, scan), recording.units, name)
    del recording  # binning needs an eighth of its memory
    ids = {"subject_id": subject_of(paths[0].absolute()), "session_id": paths[0].stem}
    with atomic_write(output) as aside, aside.open("wb") as stream:
        written = write_session_rows(stream, packed, max_tokens=max_tokens, progress=progress, **ids)
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
