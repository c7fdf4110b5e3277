"""Records of a session: the stored files of its spike trains, its spike counts and its analyses, and their numbers."""

from __future__ import annotations

from pydantic import Field

from neuralpile_dagster.records.form import Model


class StoredFile(Model):
    """One file in the store: key relative to the store, bytes, sha256 (hex)."""

    key: str
    size: int
    sha256: str


class FactsRecord(Model):
    """Stored form of `neuralpile_dagster.recordings.model.SessionFacts`."""

    subject: str | None = None
    sex: str | None = None
    age: str | None = None
    species: str | None = None
    start_time: str | None = None
    reference_time: str | None = None
    description: str | None = None


class Citation(Model):
    """Authors, title, DOI and license from a source's own metadata."""

    title: str | None = None
    authors: tuple[str, ...] = ()
    citation: str | None = None
    license: str | None = None
    doi: str | None = None
    url: str | None = None


class TrainsRecord(Model):
    """Record of ``spike_trains/<key>``. ``inputs`` is the hash of its inputs.

    ``n_spikes`` is None for recordings that hold ready-made counts. ``unverified``: values were read by byte ranges
    from data without checksums, so that a bit flipped in the transfer would not be seen. ``annotate``: automation
    annotates the session too; not set by earlier versions, so that an upgrade makes nothing due.
    """

    inputs: str
    file: StoredFile
    subject_id: str
    session_id: str
    source_version: str
    n_units: int
    n_spikes: int | None
    facts: FactsRecord
    notes: tuple[str, ...] = ()
    unverified: bool = False
    annotate: bool = Field(default=False, exclude_if=lambda annotate: not annotate)


class RowRecord(Model):
    """One row (segment) of a counts file; ``bytes`` is the compressed size of its row group."""

    segment_id: str
    n_bins: int
    bytes: int


class ClockRecord(Model):
    """What a session's spike times say about their clock; seconds of that clock.

    ``start_s`` is the time at which bin 0 begins, None where the file holds counts without a clock (seconds are
    then from bin 0). ``observed_s`` is the time in which any unit was observed: within the ``obs_intervals`` where
    the file states them (``intervals_stated``), else from the first spike to the last. ``outside_intervals`` spikes
    lie outside those of their unit. ``falls`` spikes of ``falling_units`` units are earlier than the one before
    them, by up to ``largest_fall_s``. ``whole_times`` are whole numbers.
    """

    start_s: float | None
    first_spike_s: float
    last_spike_s: float
    observed_s: float
    intervals_stated: bool = False
    outside_intervals: int = 0
    falls: int = 0
    falling_units: int = 0
    largest_fall_s: float = 0.0
    whole_times: int = 0


class CountsStats(Model):
    """Numbers about one session's counts.

    ``spikes_kept + lost_to_saturation + dropped_negative + dropped_nan +
    dropped_beyond == spikes_read`` always holds. ``histogram[c]`` is the number
    of bins that hold c spikes (trailing zeros cut). ``fingerprint`` is equal
    for two sessions with the same spikes per unit and length.
    ``implausible_bins`` hold more spikes than a rate of 1 kHz allows (20 in 20
    ms), ``implausible_units`` are the rows they are in, each with how many.
    ``duplicate_spikes`` have exactly the time of another spike of their unit.
    ``bins_dropped`` last bins of a file with ready-made counts did not fill a bin.
    ``longest_quiet_bins`` is the longest stretch without a spike of any unit.
    ``activity`` holds the spikes kept in each of up to 120 equal parts of the
    session. ``clock`` and ``activity`` are missing in records of before, and
    then left out of what is stored and hashed: such records stay as they are.
    """

    n_units: int
    n_bins: int
    bin_width_s: float
    tokens: int
    spikes_read: int
    spikes_kept: int
    dropped_negative: int = 0
    dropped_nan: int = 0
    dropped_beyond: int = 0
    lost_to_saturation: int = 0
    saturated_bins: int = 0
    missing_bins: int = 0
    bins_dropped: int = Field(default=0, exclude_if=lambda bins: not bins)
    silent_units: int
    max_count: int
    histogram: tuple[int, ...]
    implausible_bins: int = 0
    implausible_units: tuple[tuple[int, int], ...] = ()
    duplicate_spikes: int = 0
    longest_quiet_bins: int = 0
    fingerprint: str
    activity: tuple[int, ...] = Field(default=(), exclude_if=lambda activity: not activity)
    clock: ClockRecord | None = Field(default=None, exclude_if=lambda clock: clock is None)

    @property
    def duration_s(self) -> float:
        """Length of the binned session in seconds."""
        return self.n_bins * self.bin_width_s

    @property
    def observed_s(self) -> float:
        """Seconds in which the session was observed (`ClockRecord`); its length where the record does not say."""
        return self.clock.observed_s if self.clock is not None and self.clock.observed_s > 0 else self.duration_s

    @property
    def mean_rate_hz(self) -> float:
        """Spikes per unit and second, over the time observed."""
        return self.spikes_kept / (self.n_units * self.observed_s)

    @property
    def dropped(self) -> int:
        """Spikes whose times are in no bin; saturated ones are not among them."""
        return self.dropped_negative + self.dropped_nan + self.dropped_beyond

    @property
    def unaccounted(self) -> int:
        """Spikes read but neither kept nor counted as lost; 0 in a correct session."""
        return self.spikes_read - self.spikes_kept - self.lost_to_saturation - self.dropped


class CountsRecord(Model):
    """Record of ``spike_counts/<key>``: the counts file, the units table beside it, its rows and statistics.

    ``trains_inputs`` is `TrainsRecord.inputs` of the spike trains that were
    binned, which identifies the archive files as listed then. ``unverified`` is that of the spike trains.
    """

    inputs: str
    trains_inputs: str
    file: StoredFile
    units_file: StoredFile
    subject_id: str
    session_id: str
    source_version: str
    max_tokens: int
    facts: FactsRecord
    stats: CountsStats
    rows: tuple[RowRecord, ...]
    unverified: bool = False


class AnalysisRecord(Model):
    """Base of an analysis' stored results for one session; ``inputs`` is the hash of everything they were made from."""

    inputs: str
    session_id: str
    file: StoredFile | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Its files in the store."""
        return (self.file,) if self.file else ()


class UnitOrderRecord(AnalysisRecord):
    """Record of ``unit_order/<key>``; ``file`` holds the place of each unit.

    ``counts_sha256`` is the digest of the spike counts that it was made from, ``scipy`` the version that clustered.
    """

    file: StoredFile
    counts_sha256: str
    n_units: int
    silent_units: int
    scipy: str
