"""Probes of archives: list a dataset and read some of its spikes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from neuralpile_dagster.archives import open_archive
from neuralpile_dagster.archives.model import Archive
from neuralpile_dagster.archives.sample.archive import sample_folder
from neuralpile_dagster.catalog.load import find_dataset, get_dataset
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.doctor.model import Finding, Probe, failed, not_needed, not_tried, ok, warning
from neuralpile_dagster.errors import ConfigurationError, NoUnits
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.recordings.sessions import choose_sessions
from neuralpile_dagster.settings import Settings

Reading = Callable[[Archive, Dataset, Session], Finding]

LIMITS = RetryPolicy(attempts=1, connect_timeout_s=4.0, read_timeout_s=5.0)
SMALL = "iurilli"
"""Test dataset on DANDI: one public session of a published version, which never changes."""
FIGSHARE = "steinmetz-2"
FIRST_SPIKES = 1000
MAX_FILES = 5
_SPIKE_TIMES = "/units/spike_times"


def archive_probes(settings: Settings, catalog: Mapping[str, Dataset]) -> Iterator[Probe]:
    """Probes of the configured archive: list and read a small dataset, and compare it with the storage."""
    listed = _Listed(settings)
    yield Probe("archive listing", lambda: listed.look(_small_dataset(settings, catalog)))
    yield Probe("archive reading", lambda: listed.with_smallest(read_first_spikes))
    if settings.archive == "dandi":
        yield Probe("archive digests", lambda: listed.with_smallest(compare_with_storage))
    else:
        yield Probe("archive digests", lambda: not_needed("the recordings are files of this machine"))


def figshare_probes(settings: Settings, catalog: Mapping[str, Dataset]) -> Iterator[Probe]:
    """Probe of figshare: list its article; the files are gigabytes and are not read."""
    if settings.archive == "dandi":
        listed = _Listed(settings)
        yield Probe("figshare", lambda: listed.look(get_dataset(catalog, FIGSHARE)))
    else:
        yield Probe("figshare", lambda: not_needed("NEURALPILE_ARCHIVE is not dandi"))


def dataset_probes(settings: Settings, catalog: Mapping[str, Dataset], name: str) -> Iterator[Probe]:
    """Probes of one dataset: list it, then read its smallest sessions completely, one line each."""
    listed = _Listed(settings)
    yield Probe(name, lambda: listed.look(find_dataset(settings, catalog, name)))
    if listed.manifest is None:
        return
    smallest = sorted(listed.manifest.sessions, key=lambda session: session.size)
    for session in smallest[:MAX_FILES]:
        yield Probe(f"{name} {session.session_id}", partial(listed.read_whole, session))


class _Listed:
    """A dataset as its archive lists it now; ``manifest`` is None until `look` has succeeded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.row: Dataset
        self.archive: Archive
        self.manifest: Manifest | None = None
        self._not_read = not_tried("the listing before it failed: see the line `archive listing`")

    def look(self, row: Dataset) -> Finding:
        """List the dataset's source and apply its rule."""
        if self._settings.archive == "sample" and not sample_folder(self._settings.home).is_dir():
            self._not_read = not_needed("the synthetic recordings are made when a dataset is first listed")
            return self._not_read
        self.row = row
        self.archive = open_archive(self._settings, row.source, LIMITS)
        listing = self.archive.list_files(row.source)
        manifest = choose_sessions(row, listing)
        count, due = len(manifest.sessions), row.sessions_due
        expected = "" if due is None else ", as expected" if due == count else f", {due:,} expected"
        found = (
            f"{row.name} ({row.source.label}, version {manifest.version}): {_many(count, 'session')}{expected}, "
            f"of {_many(len(listing.files), 'file')}"
        )
        if count == 0:
            dropped = "; ".join(f"{number} dropped: {reason}" for reason, number in manifest.dropped.items())
            return failed(
                f"{found}{f' ({dropped})' if dropped else ''}",
                f"compare `neuralpile sessions {row.name}` with {row.source.url or 'the folder'}; if the files are "
                "there, report it as a defect of neuralpile-dagster",
            )
        self.manifest = manifest
        if due is not None and due != count:
            return warning(found, f"see what the rule drops: `neuralpile sessions {row.name}`")
        found = "; ".join(filter(None, (found, manifest.version_note, manifest.newer_version)))
        if manifest.version_note and self._settings.archive == "dandi":
            return warning(found, "compare with the dataset's web page: the version that the catalog names is gone")
        return ok(found)

    def with_smallest(self, read: Reading) -> Finding:
        """Give ``read`` the smallest session."""
        if self.manifest is None:
            return self._not_read
        return read(self.archive, self.row, min(self.manifest.sessions, key=lambda session: session.size))

    def read_whole(self, session: Session) -> Finding:
        """Read a session as a build does."""
        from neuralpile_dagster.recordings.model import BinnedCounts
        from neuralpile_dagster.recordings.readers import read_session

        if not self.row.source.facts.has_ranges and self._settings.archive == "dandi":
            archive = self.row.source.archive
            return not_needed(f"{session.size / 1e6:,.1f} MB that {archive} gives only as whole files: not downloaded")
        with ExitStack() as stack:
            opened = [stack.enter_context(self.archive.open(self.row.source, file)) for file in session.files]
            data = read_session(self.row.reader, opened, self.row.reader_options).data
            costs = [file.cost for file in opened]
        spikes = data.spikes_read if isinstance(data, BinnedCounts) else data.n_spikes
        return ok(f"{data.n_units:,} units, {spikes:,} spikes; {_cost(costs, session.size)}")


def _small_dataset(settings: Settings, catalog: Mapping[str, Dataset]) -> Dataset:
    """Dataset to test: `SMALL` on DANDI, else the smallest one that the archive has."""
    if settings.archive == "dandi":
        return get_dataset(catalog, SMALL)
    rows = [row for row in catalog.values() if settings.archive == "sample" or _is_there(settings, row)]
    if not rows:
        raise ConfigurationError(
            f"NEURALPILE_ARCHIVE ({settings.archive}) holds no dataset of the catalog",
            expected="folders named by dandiset, as `dandi download` lays them out",
            remedy="set NEURALPILE_ARCHIVE to dandi, or to the folder above those of the dandisets",
        )
    return min(rows, key=lambda row: (row.reader != "units", bool(row.reader_options), row.sessions_due or 0))


def _is_there(settings: Settings, row: Dataset) -> bool:
    return row.source.path is None and (Path(settings.archive) / row.source.folder).is_dir()


def read_first_spikes(archive: Archive, row: Dataset, session: Session) -> Finding:
    """Open a session's first file and read the first of its spike times, which is cheap for any file."""
    from neuralpile_dagster.hdf5.careful import find_dataset, reading

    if row.reader != "units" or row.reader_options:
        return not_needed(f"{row.name} is read by {row.reader}; try it whole: neuralpile doctor --dataset {row.name}")
    file = session.files[0]
    with archive.open(row.source, file) as opened:
        with opened.hdf5() as content:
            times = find_dataset(content, _SPIKE_TIMES, file.path)
            if times is None:
                raise NoUnits(f"{file.path} has no spike times", expected=f"a column {_SPIKE_TIMES}")
            with reading(file.path, _SPIKE_TIMES):
                first, n_spikes = times[:FIRST_SPIKES], len(times)
        cost = _cost([opened.cost], file.size)
    return ok(f"{file.path}: the first {len(first):,} of {n_spikes:,} spike times; {cost}")


def compare_with_storage(archive: Archive, row: Dataset, session: Session) -> Finding:
    """Compare the size and digest that the archive states with the storage's response."""
    from dandischema.digests.dandietag import DandiETag

    from neuralpile_dagster.archives.downloads import listed_digest
    from neuralpile_dagster.hdf5.ranged.file import RangedFile

    file = session.files[0]
    listed_digest(file)
    stated = file.digests.get("dandi-etag", "")
    with archive.open(row.source, file) as opened:
        assert isinstance(opened, RangedFile)
        with opened.hdf5():
            pass  # opening reads the first bytes and raises for an object of another size
        stored = (opened.etag or "").strip('"')
    found = (
        f"{file.path}: {file.size:,} bytes as listed, digest {stated or 'none'}, the storage's ETag {stored or 'none'}"
    )
    if not re.fullmatch(DandiETag.REGEX, stated):
        return failed(
            f"{found}; expected: a digest of the form <32 hex digits>-<parts>",
            "report it as a defect of neuralpile-dagster: DANDI has changed how it states digests",
        )
    if stored != stated:
        return warning(found, "reading works; whole downloads are verified by their content, whatever the ETag")
    return ok(found)


def _cost(costs: Sequence[ReadCost], size: int) -> str:
    n_bytes, requests = sum(cost.bytes_read for cost in costs), sum(cost.requests for cost in costs)
    asked = f" in {_many(requests, 'request')}" if requests else ""
    return f"{n_bytes / 1e6:,.1f} of {size / 1e6:,.1f} MB read{asked}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
