"""Probes of servers: of archives, which list a dataset and give some of its spikes, and of the hub.

The hub is asked whether it responds and the token may write; nothing is written. A cluster's own servers belong in
`machine`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from neuralpile_dagster.archives import open_archive
from neuralpile_dagster.archives.folder import sample_folder
from neuralpile_dagster.archives.model import Archive
from neuralpile_dagster.catalog.load import find_dataset, get_dataset
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.doctor.probes import LIMITS, Finding, Probe, failed, failure, not_needed, not_tried, ok, warning
from neuralpile_dagster.errors import ConfigurationError, HubUnavailable, NoUnits
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.recordings.manifest import Manifest, Session, choose_sessions
from neuralpile_dagster.settings import Settings

Reading = Callable[[Archive, Dataset, Session], Finding]

_SMALL = "iurilli"
"""Test dataset on DANDI: one public session of a published version, which never changes."""
_FIGSHARE = "steinmetz-2"
_FIRST_SPIKES = 1000
_MAX_FILES = 5
_SPIKE_TIMES = "/units/spike_times"
_WRITE = "repo.write"
"""What a fine-grained token needs for the namespace: creating repositories and writing to them."""
_TOKENS = "https://huggingface.co/settings/tokens"
_WRITING_ROLES = ("admin", "write", "contributor")  # a contributor creates repositories and writes to those


def archive_probes(settings: Settings, catalog: Mapping[str, Dataset]) -> Iterator[Probe]:
    """Probes of the configured archive: list and read a small dataset, and compare it with the storage."""
    listed = _Listed(settings)
    yield Probe("archive listing", lambda: listed.look(_small_dataset(settings, catalog)))
    yield Probe("archive reading", lambda: listed.with_smallest(_read_first_spikes))
    if settings.archive == "dandi":
        yield Probe("archive digests", lambda: listed.with_smallest(compare_with_storage))
    else:
        yield Probe("archive digests", lambda: not_needed("the recordings are files of this machine"))


def figshare_probes(settings: Settings, catalog: Mapping[str, Dataset]) -> Iterator[Probe]:
    """Probe of figshare: list its article; the files are gigabytes and are not read."""
    if settings.archive == "dandi":
        listed = _Listed(settings)
        yield Probe("figshare", lambda: listed.look(get_dataset(catalog, _FIGSHARE)))
    else:
        yield Probe("figshare", lambda: not_needed("NEURALPILE_ARCHIVE is not dandi"))


def dataset_probes(settings: Settings, catalog: Mapping[str, Dataset], name: str) -> Iterator[Probe]:
    """Probes of one dataset: list it, then read its smallest sessions completely, one line each."""
    listed = _Listed(settings)
    yield Probe(name, lambda: listed.look(find_dataset(settings, catalog, name)))
    if listed.manifest is None:
        return
    smallest = sorted(listed.manifest.sessions, key=lambda session: session.size)
    for session in smallest[:_MAX_FILES]:
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
            f"{row.name} ({row.source.label}, version {manifest.version}): {plural(count, 'session')}{expected}, "
            f"of {plural(len(listing.files), 'file')}"
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
        from neuralpile_dagster.recordings.model import BinnedCounts, read_session

        if not self.row.source.facts.has_ranges and self._settings.archive == "dandi":
            archive = self.row.source.archive
            return not_needed(f"{session.size / 1e6:,.1f} MB that {archive} gives only as whole files: not downloaded")
        with ExitStack() as stack:
            opened = [stack.enter_context(self.archive.open(self.row.source, file)) for file in session.files]
            data = read_session(self.row.reader, opened, self.row.reader_options).data
            costs = [file.cost for file in opened]
        spikes = data.spikes_read if isinstance(data, BinnedCounts) else data.n_spikes
        return ok(f"{plural(data.n_units, 'unit')}, {plural(spikes, 'spike')}; {_cost(costs, session.size)}")


def _small_dataset(settings: Settings, catalog: Mapping[str, Dataset]) -> Dataset:
    """Dataset to test: `_SMALL` on DANDI, else the smallest one that the archive has."""
    if settings.archive == "dandi":
        return get_dataset(catalog, _SMALL)
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


def _read_first_spikes(archive: Archive, row: Dataset, session: Session) -> Finding:
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
                first, n_spikes = times[:_FIRST_SPIKES], len(times)
        cost = _cost([opened.cost], file.size)
    return ok(f"{file.path}: the first {len(first):,} of {n_spikes:,} spike times; {cost}")


def compare_with_storage(archive: Archive, row: Dataset, session: Session) -> Finding:
    """Compare the size and digest that the archive states with the storage's response."""
    from dandischema.digests.dandietag import DandiETag

    from neuralpile_dagster.archives.downloads import listed_digest
    from neuralpile_dagster.hdf5.ranged import RangedFile

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
    asked = f" in {plural(requests, 'request')}" if requests else ""
    return f"{n_bytes / 1e6:,.1f} of {size / 1e6:,.1f} MB read{asked}"


def hub(settings: Settings) -> Finding:
    """Ask the Hub who the token belongs to and what it may do (``GET /api/whoami-v2``)."""
    if settings.hub == "local":
        token = "; HF_TOKEN is set, but not used" if os.environ.get("HF_TOKEN") else ""
        return not_needed(f"NEURALPILE_HUB is local: datasets are published into {settings.home / 'hub'}{token}")
    from neuralpile_dagster.hub.huggingface import HuggingFaceHub

    opened = HuggingFaceHub.from_environment(settings.namespace, policy=LIMITS)
    try:
        account = opened.account()
    except HubUnavailable as error:
        return failed(failure(error).found, "try again later; check HF_ENDPOINT and this machine's network if it lasts")
    return judge(account, settings.namespace, opened.endpoint)


def judge(account: dict[str, Any], namespace: str, endpoint: str) -> Finding:
    """Judge whether an account's token may publish to ``namespace``.

    Parameters
    ----------
    account : dict
        The response of ``/api/whoami-v2``: ``name``, ``orgs`` (each with ``name`` and ``roleInOrg``) and
        ``auth.accessToken`` with ``role`` (``read``, ``write`` or ``fineGrained``) and, where it is fine-grained,
        ``fineGrained.scoped``: ``entity`` (``type``, ``name``) and ``permissions`` each.
    namespace : str
    endpoint : str
    """
    name = account.get("name")
    found = f"{endpoint}: the token of {name}"
    if name != namespace:
        organizations = {each.get("name"): each for each in account.get("orgs") or ()}
        if namespace not in organizations:
            return failed(
                f"{found}, who is not a member of {namespace}",
                f"set NEURALPILE_NAMESPACE to {name} or an organization of theirs, or HF_TOKEN to a member's token",
            )
        role = organizations[namespace].get("roleInOrg")
        found += f", whose role in {namespace} is {role or 'not stated'}"
        if role is not None and role not in _WRITING_ROLES:
            return failed(found, f"ask an administrator of {namespace} for the role contributor or write")
    token = (account.get("auth") or {}).get("accessToken") or {}
    match token.get("role"):
        case "write" | "admin":
            return ok(f"{found}; it may write (writing was not tried)")
        case "read":
            return failed(f"{found}; it may only read", f"make a token that may write at {_TOKENS} and set HF_TOKEN")
        case "fineGrained":
            return _judge_scopes(token.get("fineGrained") or {}, namespace, found)
    return warning(
        f"{found}; the Hub does not say what it may do",
        "publish one small dataset first: only that shows whether the token may write",
    )


def _judge_scopes(rights: dict[str, Any], namespace: str, found: str) -> Finding:
    scopes = [
        (scope.get("entity") or {}, tuple(scope.get("permissions") or ())) for scope in rights.get("scoped") or ()
    ]
    owned = [
        right
        for entity, permissions in scopes
        if entity.get("type") in ("user", "org") and entity.get("name") == namespace
        for right in permissions
    ]
    if _WRITE in owned:
        return ok(f"{found}; it is fine-grained and has {_WRITE} for {namespace} (writing was not tried)")
    found += f"; it is fine-grained and has {', '.join(owned) or 'no permissions'} for {namespace}"
    single = [
        str(entity.get("name")) for entity, permissions in scopes if _is_repository_of(entity, namespace, permissions)
    ]
    remedy = f"give it write access to the repositories of {namespace} at {_TOKENS}"
    if single:
        return warning(f"{found}; it may write to {', '.join(single)} only", f"{remedy} to publish other datasets")
    if any(right.startswith("repo.") and not right.endswith(".read") for right in owned):
        return warning(f"{found}, which may or may not be enough", remedy)
    return failed(found, remedy)


def _is_repository_of(entity: dict[str, Any], namespace: str, permissions: tuple[str, ...]) -> bool:
    is_dataset = entity.get("type") == "dataset" and str(entity.get("name")).startswith(f"{namespace}/")
    return is_dataset and _WRITE in permissions
