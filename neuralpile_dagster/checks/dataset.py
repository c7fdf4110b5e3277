"""Checks of a whole dataset: its manifest, and what was published of it.

One function is one check, listed in `registry`. Those of files on the hub judge piles and what is made of them as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from neuralpile_dagster.binning.source import count_source
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.errors import NeuralPileError, TransientError
from neuralpile_dagster.hub import Hub, card_metadata, list_folder
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.publish.component import component_inputs
from neuralpile_dagster.publish.configs import open_published
from neuralpile_dagster.publish.spikes import spikes_path
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, ComponentSession, CountsRecord, ShardRecord, SpikesRecord
from neuralpile_dagster.settings import ProcessSettings
from neuralpile_dagster.tables.footer import open_parquet
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.spike_trains import read_recording

BINNED_SESSIONS = 3
"""Sessions whose published spike times are binned again: the first, the last, and one between."""
ODD_FACTOR = 10.0
"""How many times a session may differ from the median of its dataset, in mean rate and in length."""
REASONS_SHOWN = 5
"""Sessions without counts that a verdict names, each reason a paragraph of its own."""
_REPAIR = "materialize hub_dataset again: it compares every file with what was made and replaces what is damaged"


@dataclass(frozen=True)
class ManifestEvidence:
    """What the checks of a manifest look at."""

    dataset: Dataset
    manifest: Manifest


@dataclass(frozen=True)
class ComponentEvidence:
    """What the checks of a published component look at."""

    dataset: Dataset
    manifest: Manifest
    records: Mapping[str, CountsRecord]
    failed: Mapping[str, str]
    published: ComponentRecord
    hub: Hub
    repository_name: str
    folder: Path

    @property
    def inputs_now(self) -> str:
        """Hash of what a publication would be made from now."""
        return component_inputs(
            self.dataset,
            self.manifest,
            self.records,
            missing=self.published.missing,
            repository=self.published.repository,
        )


def sessions_expected(dataset: Dataset, manifest: Manifest) -> Verdict:
    """The archive gives as many sessions as the catalog knows."""
    found = sum(not session.vanished for session in manifest.sessions)
    due = dataset.sessions_due
    return Verdict(
        passed=due is None or found == due,
        expected="not stated in the catalog" if due is None else due,
        found=found,
        remedy="compare `files_dropped` with the catalog's rule; update sessions_expected when the archive changed",
        details={"files_dropped": dict(manifest.dropped), "source_version": manifest.version},
    )


def subjects_published(dataset: Dataset, manifest: Manifest) -> Verdict:
    """How many subjects the sessions have, beside the published number; informs, never fails."""
    found = len({session.subject_id for session in manifest.sessions if not session.vanished})
    published = dataset.subjects_published
    differs = published is not None and published != found
    return Verdict(
        passed=True,
        expected="not stated in the catalog" if published is None else published,
        found=found,
        details={"note": "the published number counts the whole source, or the source changed"} if differs else {},
    )


def no_session_vanished(manifest: Manifest) -> Verdict:
    """Every session that was ever listed still is."""
    vanished = [session.session_id for session in manifest.vanished]
    vanished += [f"{s.session_id} of {s.subject_id} (another session has its key now)" for s in manifest.replaced]
    return Verdict(
        passed=not vanished,
        expected="every known session still in the archive",
        found=capped(vanished) or "none",
        remedy="find out why the archive dropped them; their results stay published until you delete their files",
    )


def no_sessions_left_failed(manifest: Manifest, done: Sequence[str], failed: Mapping[str, str]) -> Verdict:
    """Every session of the manifest has its spike counts, and none failed."""
    made = set(done)
    open_keys = [s.key for s in manifest.sessions if s.key not in made and not s.vanished]
    reasons = "\n".join(f"{key}: {failed.get(key, 'not built yet')}" for key in open_keys[:REASONS_SHOWN])
    return Verdict(
        passed=not open_keys,
        expected=f"{plural(len(made) + len(open_keys), 'session')} with spike counts",
        found=f"{len(open_keys)} without: {capped(open_keys, REASONS_SHOWN)}" if open_keys else f"{len(made)} with",
        remedy="backfill the failed partitions of spike_counts after removing the cause",
        details={"reasons": reasons} if open_keys else {},
    )


def tokens_published(dataset: Dataset, record: ComponentRecord) -> Verdict:
    """Our tokens equal those of the published pile."""
    published, found = dataset.tokens_published, record.totals.tokens
    if published is None:
        return Verdict(True, "not stated in the catalog", found)
    difference = found - published
    return Verdict(
        passed=difference == 0,
        expected=published,
        found=found,
        remedy=" ".join(dataset.notes) or "look for missing or added sessions and compare their tokens",
        details={"difference": difference, "difference_percent": round(100 * difference / max(published, 1), 4)},
    )


def no_twin_sessions(records: Mapping[str, CountsRecord]) -> Verdict:
    """No two sessions have as many bins, and as many spikes in each unit: those hold the same spikes."""
    twins: dict[str, list[str]] = defaultdict(list)
    for key, record in records.items():
        twins[record.stats.fingerprint].append(key)
    found = [" = ".join(keys) for keys in twins.values() if len(keys) > 1]
    return Verdict(
        passed=not found,
        expected="no two sessions with equal bins and equal numbers of spikes in every unit",
        found=capped(found, 5) or "no twins",
        remedy="exclude one file of each pair in the dataset's session rule",
    )


def sessions_resemble_each_other(records: Mapping[str, CountsRecord]) -> Verdict:
    """No session's mean rate or length is ten times the median of its dataset, or a tenth."""
    measures = {
        "rate": ("Hz", {key: record.stats.mean_rate_hz for key, record in records.items()}),
        "length": ("min", {key: record.stats.duration_s / 60 for key, record in records.items()}),
    }
    found = []
    middles = {}
    for what, (unit, values) in measures.items():
        middle = middles[what] = median(values.values()) if values else 0.0
        odd = {key: value for key, value in values.items() if not middle / ODD_FACTOR <= value <= middle * ODD_FACTOR}
        found += [f"{key} ({what} {value:.3g} {unit}, median {middle:.3g})" for key, value in odd.items()]
    return Verdict(
        passed=not found,
        expected=f"each within a factor of {ODD_FACTOR:g} of the median",
        found=capped(found, 5) or f"{plural(len(records), 'session')} alike",
        remedy="look at the rasters of these sessions: their times may be in another unit, or from another clock",
        details={f"median_{what}": round(value, 4) for what, value in middles.items()},
    )


def hub_dataset_is_current(published: ComponentRecord, inputs_now: str) -> Verdict:
    """What is published was made from what the store and the catalog say now."""
    return Verdict(
        passed=published.inputs == inputs_now,
        expected=inputs_now[:16],
        found=published.inputs[:16],
        remedy="materialize hub_dataset again: sessions, the catalog row or the manifest changed since",
    )


def card_counts_equal_footers(hub: Hub, name: str) -> Verdict:
    """The card's number of rows per split is what the published files' footers say."""
    remedy = f"{_REPAIR}; until then load_dataset fails for everybody"
    try:
        stated, counted = _splits_of(_read_card(hub, name)), _counted(hub, name)
    except TransientError:
        raise  # says nothing about the dataset
    except (NeuralPileError, yaml.YAMLError) as error:
        return Verdict(False, "a card and the files that it describes", str(error), remedy)
    return Verdict(
        passed=stated == counted,
        expected=_describe_splits(counted),
        found="a card without split sizes" if stated is None else _describe_splits(stated),
        remedy=remedy,
    )


def _read_card(hub: Hub, name: str) -> dict[str, Any]:
    """The YAML block at the top of a published README; empty when there is none."""
    with hub.open(name, "README.md") as file:
        return card_metadata(file.read().decode(errors="replace"))


def _splits_of(card: dict[str, Any]) -> dict[str, int] | None:
    """Rows per split as the card states them; None when it states none that `datasets` would understand."""
    info = card.get("dataset_info")
    configs: list[Any] = info if isinstance(info, list) else [info]
    try:
        default = next(config for config in configs if config.get("config_name", "default") == "default")
        return {str(split["name"]): int(split["num_examples"]) for split in default["splits"]}
    except (StopIteration, AttributeError, KeyError, TypeError, ValueError):
        return None


def _counted(hub: Hub, name: str) -> dict[str, int]:
    """Rows per split as the footers of the published files say."""
    counted: dict[str, int] = {}
    for file in hub.files(name):
        if file.path.startswith("data/"):
            split = file.path.removeprefix("data/").split("-")[0]
            with hub.open(name, file.path) as stream:
                rows = open_parquet(pa.PythonFile(stream, "r"), file.path).metadata.num_rows
                counted[split] = counted.get(split, 0) + rows
    return counted


def _describe_splits(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {rows}" for split, rows in sorted(splits.items())) or "no rows"


def hub_equals_record(hub: Hub, name: str, shards: Sequence[ShardRecord]) -> Verdict:
    """The hub holds exactly the shards that were recorded, with their digests."""
    found = {path: digest for path, digest in _digests(hub, name).items() if path.startswith("data/")}
    due = {shard.path: shard.sha256 for shard in shards}
    wrong = sorted(path for path in found.keys() | due.keys() if found.get(path) != due.get(path))
    return Verdict(
        passed=not wrong,
        expected=f"{plural(len(due), 'shard')} as recorded",
        found=plural(len(found), "shard")
        + (f"; not as recorded: {capped(wrong, 5)}" if wrong else ", all as recorded"),
        remedy=f"{_REPAIR}; find out who else writes to the repository",
    )


def _digests(hub: Hub, name: str) -> dict[str, str]:
    """sha256 by path. A server knows what it holds; a local hub's listing is what was published, so it is read."""
    if not isinstance(hub, LocalHub):
        return {file.path: file.sha256 for file in hub.files(name)}
    folder = hub.path(name)
    return {file.path: file.sha256 for file in list_folder(folder.resolve())} if folder.is_dir() else {}


def users_read_what_was_made(hub: Hub, name: str, folder: Path) -> Verdict:
    """`datasets.load_dataset` gives the first row of every split as it is in ``folder``; files and card agree too.

    ``folder`` is where the publication was laid out; on another machine there
    is none, and the other checks of the publication have to do.
    """
    from neuralpile_dagster.hub.verify import verify_publication

    expected = "every file, the card's counts and the first row of every split as they were made"
    if not folder.is_dir():
        return Verdict(True, expected, f"not compared: {folder} is on the machine that published")
    differences = verify_publication(hub, name, folder)
    return Verdict(
        passed=not differences,
        expected=expected,
        found=capped(differences, 5) or "all of it",
        remedy=f"{_REPAIR}; find out who else writes to the repository",
    )


def spike_times_give_the_counts(hub: Hub, component: ComponentRecord, max_session_tokens: int) -> Verdict:
    """Published spike times of some sessions, binned, give their published counts, byte for byte."""
    expected = f"spike times of {BINNED_SESSIONS} sessions that, binned, give the published counts"
    if component.spikes is None:
        return Verdict(True, expected, "not compared: spike times are not published (nobody asked for them)")
    remedy = f"{_REPAIR}; if that does not help, materialize the session's spike_trains and spike_counts again"
    try:
        paths = {file.path for file in hub.files(_name(component.spikes.repository))}
        there = [session for session in component.sessions if spikes_path(session.key) in paths]
        if len(there) != component.spikes.sessions:
            return Verdict(False, plural(component.spikes.sessions, "session"), f"files of {len(there)}", remedy)
        chosen = {s.key: s for s in (there[0], there[len(there) // 2], there[-1])}
        wrong = [key for key, s in chosen.items() if not _binned_alike(hub, component, s, max_session_tokens)]
    except TransientError:
        raise  # says nothing about the dataset
    except (NeuralPileError, ValueError) as error:  # ValueError: fewer bins than were published
        return Verdict(False, expected, str(error), remedy)
    return Verdict(
        passed=not wrong,
        expected=expected,
        found=f"other counts from the spike times of {capped(wrong)}"
        if wrong
        else f"the counts of {capped([*chosen])}",
        remedy=remedy,
    )


def _name(repository: str) -> str:
    return repository.rpartition("/")[2]


def _binned_alike(hub: Hub, component: ComponentRecord, session: ComponentSession, max_session_tokens: int) -> bool:
    """Whether a session's published spike times give all of its published counts."""
    assert isinstance(component.spikes, SpikesRecord)
    path = spikes_path(session.key)
    with open_published(hub, _name(component.spikes.repository), path) as file:
        recording = read_recording(file, path)
    threads = ProcessSettings.from_environment().threads
    source = count_source(recording, component.spikes.bin_width_s, path, max_session_tokens, threads, consume=True)
    del recording
    if source.n_bins != sum(row.n_bins for row in session.rows):
        return False
    start = 0
    for row, counts in zip(session.rows, _published_counts(hub, component, session), strict=True):
        if not np.array_equal(counts, source.counts(start, start + row.n_bins)):
            return False
        start += row.n_bins
    return True


def _published_counts(hub: Hub, component: ComponentRecord, session: ComponentSession) -> Iterator[np.ndarray]:
    """A session's rows as the shards on the hub hold them, one at a time."""
    places = ((shard.path, group) for shard in component.shards for group in range(shard.rows))
    owners = (other.key for other in component.sessions for _ in other.rows)
    for owner, (path, group) in zip(owners, places, strict=True):
        if owner == session.key:
            with open_published(hub, _name(component.repository), path) as file, RowReader(file, path) as reader:
                yield reader.row(group).counts
