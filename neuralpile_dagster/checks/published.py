"""Checks of what lies on the hub, for components and the pile alike. A function is a check, listed in `registry`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.errors import NeuralPileError, TransientError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.hub.model import Hub, LoadableHub, card_metadata, list_folder
from neuralpile_dagster.publish.configs import open_published
from neuralpile_dagster.publish.spikes import spikes_path
from neuralpile_dagster.records import ComponentRecord, ComponentSession, ShardRecord, SpikesRecord
from neuralpile_dagster.settings import ProcessSettings
from neuralpile_dagster.tables.footer import read_footer
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster.tables.spike_trains import read_recording


def read_card(hub: Hub, name: str) -> dict[str, Any]:
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
                counted[split] = counted.get(split, 0) + read_footer(pa.PythonFile(stream, "r"), file.path).n_rows
    return counted


def card_counts_equal_footers(hub: Hub, name: str) -> Verdict:
    """The card's number of rows per split is what the published files' footers say."""
    remedy = f"{_REPAIR}; until then load_dataset fails for everybody"
    try:
        stated, counted = _splits_of(read_card(hub, name)), _counted(hub, name)
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


_REPAIR = "materialize hub_dataset again: it compares every file with what was made and replaces what is damaged"


def _describe_splits(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {rows}" for split, rows in sorted(splits.items())) or "no rows"


def hub_equals_record(hub: Hub, name: str, shards: Sequence[ShardRecord]) -> Verdict:
    """The hub holds exactly the shards that were recorded, with their digests."""
    found = {path: digest for path, digest in _digests(hub, name).items() if path.startswith("data/")}
    due = {shard.path: shard.sha256 for shard in shards}
    wrong = sorted(path for path in found.keys() | due.keys() if found.get(path) != due.get(path))
    return Verdict(
        passed=not wrong,
        expected=f"{len(due)} shards as recorded",
        found=f"{len(found)} shards" + (f"; not as recorded: {capped(wrong, 5)}" if wrong else ", all as recorded"),
        remedy=f"{_REPAIR}; find out who else writes to the repository",
    )


def _digests(hub: Hub, name: str) -> dict[str, str]:
    """sha256 by path. A server knows what it holds; a local hub's listing is what was published, so it is read."""
    if not isinstance(hub, LocalHub):
        return {file.path: file.sha256 for file in hub.files(name)}
    folder = hub.path(name)
    return {file.path: file.sha256 for file in list_folder(folder.resolve())} if folder.is_dir() else {}


def users_read_what_was_made(hub: LoadableHub, name: str, folder: Path) -> Verdict:
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


BINNED_SESSIONS = 3
"""Sessions whose published spike times are binned again: the first, the last, and one between."""


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
            return Verdict(False, f"{component.spikes.sessions} sessions", f"files of {len(there)}", remedy)
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
    from neuralpile_dagster.binning.source import count_source

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
