"""A component as a folder of files, ready to publish; and the rule for publishing it while sessions are missing.

Lays out shards, configs, preview and card; how each of these is made belongs in its own module, the upload in `hub`.
Which sessions are done or failed is read in `ledger`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from neuralpile_dagster.catalog.describe import hashed_row
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish import annotations as annotated
from neuralpile_dagster.publish.annotations import AnnotatedFacts, AnnotatedSession
from neuralpile_dagster.publish.card import component_card
from neuralpile_dagster.publish.card_parts import Config, Split, row_arrow_bytes
from neuralpile_dagster.publish.configs import first_rows, sessions_table, write_config, write_preview
from neuralpile_dagster.publish.samples import CARD_PICTURE, write_card_picture
from neuralpile_dagster.publish.segments import Clock, component_segments
from neuralpile_dagster.publish.shards import MAX_SHARD_BYTES, ShardWriter
from neuralpile_dagster.publish.token_counts import component_token_counts, write_token_counts
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import (
    ComponentRecord,
    ComponentSession,
    CountsRecord,
    PublishedTotals,
    ShardRecord,
    SpikesRecord,
    UnitOrderRecord,
    json_hash,
)
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.annotations import AnnotationsRecord
from neuralpile_dagster.tables.schemas import (
    INTERVALS_SCHEMA,
    PUBLISHED_UNITS_SCHEMA,
    ROW_SCHEMA,
    SEGMENTS_SCHEMA,
    UNIT_METRICS_SCHEMA,
)

FORMAT = 1
"""Code version; raise it when the same inputs give other files, so that everything is published again."""

_NOT_PUBLISHED = {"listed_at", "considered", "dropped", "newer_version", "source_state", "replaced", "notes"}
"""Fields of a manifest that do not affect the published files."""
_NOT_PUBLISHED_OF_ROW = {"max_session_tokens", "good_units", "same_subject", "hold_out", "publish_spike_times"} | {
    *("motif_shapes", "unit_order", "tags", "rule_checked", "reader_checked"),
}
"""Fields of a catalog row that do not, or only with annotations (`annotations_digest`), unit orders or spike times."""
NOT_BUILT = "not built yet"
VANISHED = "no longer listed by the archive, and not built before"
_NAMED = 10

Pairs = Sequence[tuple[Session, CountsRecord]]


def component_inputs(
    dataset: Dataset,
    manifest: Manifest,
    records: Mapping[str, CountsRecord],
    *,
    missing: Mapping[str, str],
    repository: str,
) -> str:
    """Hash of all inputs of `write_component`; cheap, to detect changes.

    When the archive was listed does not matter, what it listed does.
    """
    content = {
        "format": FORMAT,
        "repository": repository,
        "dataset": hashed_row(dataset, _NOT_PUBLISHED_OF_ROW),
        "manifest": manifest.model_dump(mode="json", exclude=_NOT_PUBLISHED),
        "counts": [_published(records[s.key]) for s in manifest.sessions if s.key in records],
        "missing": dict(missing),
    }
    return json_hash(content)


def _published(record: CountsRecord) -> dict[str, Any]:
    """All of a record; without the field that older versions did not write, where it says what they would."""
    return record.model_dump(mode="json", exclude=None if record.unverified else {"unverified"})


def write_component(
    folder: Path,
    store: Store,
    dataset: Dataset,
    manifest: Manifest,
    records: Mapping[str, CountsRecord],
    *,
    missing: Mapping[str, str],
    repository: str,
    annotations: Mapping[str, AnnotationsRecord] | None = None,
    orders: Mapping[str, UnitOrderRecord] | None = None,
    spikes: SpikesRecord | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress = print,
) -> ComponentRecord:
    """Make ``folder`` hold exactly the component's files: shards, units, sessions, preview and card.

    Rows are in the manifest's order of sessions, a session's in order of time.
    The same inputs give the same bytes. May be called again after any
    failure: shards whose rows did not change are kept.

    Parameters
    ----------
    folder : Path
        Given over to this function: other files in it are removed. Beside it
        are kept ``.<name>.shards`` (what shards were made from) and ``.<name>.lock``.
    store : Store
        Where the files that the records name are.
    dataset, manifest
        The catalog's row, and what the archive listed.
    records : mapping of str to CountsRecord
        The finished sessions, by key.
    missing : mapping of str to str
        What the card says about sessions that are not in ``records`` (`publishable`).
    repository : str
        ``namespace/name``.
    annotations : mapping of str to AnnotationsRecord, optional
        Of the sessions that have any, by key; those of other archive files than were counted are not used.
    orders : mapping of str to UnitOrderRecord, optional
        The same; those of other counts than are published are not used.
    spikes : SpikesRecord, optional
        The repository of spike times that the card names (`publish.spikes`).
    max_shard_bytes : int
        See `shards.plan_shards`.
    progress : callable

    Raises
    ------
    HubError
        No session, or sessions that were binned with different settings.
    TableError, StoreError
        A session's file is damaged or gone; names it.
    DiskFull
        Before the shards are written.
    """
    pairs = [(session, records[session.key]) for session in manifest.sessions if session.key in records]
    _require_same_settings(dataset, pairs)
    sessions = {session.key: _session(session, record) for session, record in pairs}
    totals = _totals([record for _, record in pairs])
    used = annotated.matching(annotations or {}, records)
    ordered = annotated.matching_orders(orders or {}, records)
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        shards = ShardWriter(folder, store, sessions, progress).write(max_shard_bytes)
        clocks = (clock_of(dataset, record) for _, record in pairs)
        segments = component_segments(zip(sessions.values(), clocks, strict=True), shards)
        configs = [
            _default_config(sessions.values(), shards),
            *session_configs(folder, store, dataset, manifest, pairs, used, ordered),
            write_config(folder, "segments", SEGMENTS_SCHEMA, [segments]),
            write_token_counts(folder, [component_token_counts(repository, sessions.values(), totals)]),
            write_preview(folder, first_rows(store, (s.counts for s in sessions.values())), ROW_SCHEMA),
        ]
        component = ComponentRecord(
            dataset=dataset.name,
            repository=repository,
            inputs=component_inputs(dataset, manifest, records, missing=missing, repository=repository),
            title=dataset.title,
            source=dataset.source.label,
            source_version=manifest.version,
            frozen=manifest.frozen,
            synthetic=manifest.synthetic or dataset.synthetic,
            license=manifest.citation.license,
            bin_width_s=(width := pairs[0][1].stats.bin_width_s),
            other_bin_widths_s=tuple(sorted({record.stats.bin_width_s for _, record in pairs} - {width})),
            sessions=tuple(sessions.values()),
            shards=shards,
            totals=totals,
            missing=dict(missing),
            annotations=annotated.totals(dataset, used),
            spikes=spikes,
            unit_order=annotated.order_totals(ordered),
        )
        card = component_card(dataset, manifest, component, [record for _, record in pairs], configs)
        write_bytes(folder / "README.md", card.encode())
        write_card_picture(folder, (shard.path for shard in shards), component.synthetic)
        extra = [split.path for config in configs for split in config.splits.values()]
        keep_only(folder, ["README.md", CARD_PICTURE, *(shard.path for shard in shards), *extra])
    return component


def session_configs(
    folder: Path,
    store: Store,
    dataset: Dataset,
    manifest: Manifest,
    pairs: Pairs,
    annotations: Mapping[str, AnnotationsRecord],
    orders: Mapping[str, UnitOrderRecord],
) -> Iterator[Config]:
    """Write units, sessions and, where any session has them, intervals and metrics of units."""
    sessions = [
        AnnotatedSession(store, dataset, record, annotations.get(session.key), orders.get(session.key))
        for session, record in pairs
    ]
    facts: list[AnnotatedFacts] = []
    yield write_config(folder, "units", PUBLISHED_UNITS_SCHEMA, annotated.units_tables(sessions, facts))
    table = sessions_table(pairs, facts, manifest.citation.license, manifest.citation.doi or dataset.doi)
    yield write_config(folder, "sessions", table.schema, [table])
    if any(any(record.tables.values()) for record in annotations.values()):
        intervals = (session.intervals() for session in sessions if session.annotations)
        yield write_config(folder, "intervals", INTERVALS_SCHEMA, intervals)
    if any({*record.metrics} - {*annotated.IN_UNITS} for record in annotations.values()):
        metrics = (session.unit_metrics() for session in sessions if session.annotations)
        yield write_config(folder, "unit_metrics", UNIT_METRICS_SCHEMA, metrics)


def clock_of(dataset: Dataset, record: CountsRecord) -> Clock:
    """When the bins of a session are."""
    return Clock(annotated.origin_of(dataset, record), record.stats.bin_width_s)


def _require_same_settings(dataset: Dataset, pairs: Pairs) -> None:
    if not pairs:
        raise HubError(
            f"{dataset.name} has no finished session",
            found="no spike counts",
            remedy=f"materialize {dataset.key}/spike_counts, or run: neuralpile build {dataset.name}",
        )
    widths = sorted({(record.stats.bin_width_s, record.max_tokens) for _, record in pairs})
    if len(widths) > 1 and not (dataset.allow_bin_width and len({tokens for _, tokens in widths}) == 1):
        raise HubError(
            f"the sessions of {dataset.name} were binned with different settings",
            found=", ".join(f"bins of {width:g} s in segments of {tokens:,} tokens" for width, tokens in widths),
            expected="one bin width and one segment size",
            remedy=f"materialize {dataset.key}/spike_counts again",
        )


def _session(session: Session, record: CountsRecord) -> ComponentSession:
    return ComponentSession(
        key=session.key,
        subject_id=record.subject_id,
        session_id=record.session_id,
        n_units=record.stats.n_units,
        tokens=record.stats.tokens,
        counts=record.file,
        units=record.units_file,
        rows=record.rows,
        token_counts=record.stats.histogram,
        subject=record.facts.subject,
        fingerprint=record.stats.fingerprint,
    )


def _totals(records: Sequence[CountsRecord]) -> PublishedTotals:
    return PublishedTotals(
        sessions=len(records),
        subjects=len({record.subject_id for record in records}),
        units=sum(record.stats.n_units for record in records),
        rows=sum(len(record.rows) for record in records),
        tokens=sum(record.stats.tokens for record in records),
        spikes=sum(record.stats.spikes_kept for record in records),
        minutes=sum(record.stats.observed_s for record in records) / 60,
    )


def _default_config(sessions: Iterable[ComponentSession], shards: Sequence[ShardRecord]) -> Config:
    size = sum(
        row_arrow_bytes(s.n_units, row.n_bins, [s.subject_id, s.session_id, row.segment_id])
        for s in sessions
        for row in s.rows
    )
    split = Split("data/train-*", sum(shard.rows for shard in shards), size)
    return Config("default", ROW_SCHEMA, {"train": split}, sum(shard.bytes for shard in shards))


def keep_only(folder: Path, paths: Iterable[str]) -> None:
    """Remove every file of ``folder`` that is not one of ``paths``, and folders that are empty then."""
    kept = {folder / path for path in paths}
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def publishable(
    manifest: Manifest, done: Collection[str], failed: Mapping[str, str], min_session_share: float = 1.0
) -> dict[str, str]:
    """Sessions of the manifest that a publication will lack, with reasons.

    A session that vanished from the archive can no longer be built: it is
    named, but does not count against the share. One that was built before it
    vanished is published like any other.

    Parameters
    ----------
    manifest : Manifest
    done : collection of str
        Keys of the sessions whose counts are finished.
    failed : mapping of str to str
        Why sessions failed, by key.
    min_session_share : float
        Least share of the sessions that must be done, 0 to 1.

    Returns
    -------
    dict of str to str
        Reason by key, in the manifest's order.

    Raises
    ------
    HubError
        The share is not met, or no session is done; names the missing ones.
    """
    missing = {
        session.key: failed.get(session.key) or (VANISHED if session.vanished else NOT_BUILT)
        for session in manifest.sessions
        if session.key not in done
    }
    present, due, needed = completeness(manifest, done, min_session_share)
    if present < needed:
        raise HubError(
            f"{manifest.dataset} is not complete enough to publish",
            found=f"{present:,} of {due:,} sessions done; missing: {_named(missing)}",
            expected=f"at least {needed:,} (min_session_share {min_session_share:g})",
            remedy=f"build the missing sessions (neuralpile build {manifest.dataset}), or publish without them (the "
            "card names them): neuralpile build with --allow-missing or --min-session-share SHARE, or "
            "min_session_share in the run configuration",
        )
    return missing


def completeness(manifest: Manifest, done: Collection[str], min_session_share: float) -> tuple[int, int, int]:
    """Numbers of sessions that are done, that count, and that a publication needs; see `publishable`."""
    due = sum(session.key in done or not session.vanished for session in manifest.sessions)
    present = sum(session.key in done for session in manifest.sessions)
    # compared as counts: 0.9 * 10 must ask for 9 sessions, whatever binary fractions make of it
    return present, due, max(1, ceil(Fraction(str(min_session_share)) * due))


def _named(missing: Mapping[str, str]) -> str:
    named = [f"{key} ({reason})" for key, reason in list(missing.items())[:_NAMED]]
    more = len(missing) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "") if named else "none is listed"
