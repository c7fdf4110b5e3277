"""Dagster metadata of a dataset's records: manifest, spike trains, spike counts, publication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.describe import rule_in_words
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hub import Publication
from neuralpile_dagster.markdown import link, plural, text
from neuralpile_dagster.orchestration.metadata import (
    annotation_metadata,
    column_schema,
    counted,
    few_plots,
    place,
    publication_metadata,
    summary,
    table,
    token_metadata,
)
from neuralpile_dagster.publish.token_counts import component_token_counts
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord, TrainsRecord
from neuralpile_dagster.tables.spike_trains import BINNED_SCHEMA, TRAINS_SCHEMA


def _size(number: int) -> str:
    """Bytes in MB or GB."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def manifest_metadata(
    dataset: Dataset, manifest: Manifest, new_keys: int, uri: str, seconds: float, states: Mapping[str, str]
) -> dict[str, Any]:
    """Metadata of a manifest; ``states`` are its sessions' states by key. Vanished sessions come first in its table.

    "session_rule" and "reader" hold for all sessions and are shown once.
    """
    present = [session for session in manifest.sessions if not session.vanished]
    subjects = len({session.subject_id for session in present})
    size = sum(session.size for session in present)
    words = f"**{plural(len(present), 'session')}** of {plural(subjects, 'subject')}"
    words += f" in {plural(sum(len(session.files) for session in present), 'file')}, {_size(size)}"
    words += f"; {new_keys:,} new" if new_keys else ""
    words += f"; {len(manifest.vanished):,} no longer in the archive" if manifest.vanished else ""
    metadata: dict[str, Any] = {
        "summary": summary(f"{words}. Version {text(manifest.version)}.", manifest.synthetic),
        "sessions": len(present),
        "sessions_new": new_keys,
        "sessions_vanished": len(manifest.vanished),
        "subjects": subjects,
        "files_considered": manifest.considered,
        "files_dropped": dict(sorted(manifest.dropped.items())),
        "session_rule": dg.MetadataValue.md("\n".join(f"- {line}" for line in rule_in_words(dataset.sessions))),
        "reader": dg.MetadataValue.md(get_reader(dataset.reader).markdown),
        "bytes": size,
        "gigabytes": round(size / 1e9, 3),
        "seconds": round(seconds, 3),
        "source": place(dataset.source.url) if dataset.source.url else dataset.source.label,
        "source_version": manifest.version,
        "source_is_frozen": manifest.frozen,
        "license": manifest.citation.license or "not stated by the source",
        "dagster/uri": uri,
        "sessions_table": table(
            [
                {
                    "session": session.session_id,
                    "status": states[session.key],
                    "MB": f"{session.size / 1e6:,.1f}",
                }
                for session in [*manifest.vanished, *present]
            ]
        ),
    }
    if manifest.citation.citation:
        metadata["citation"] = manifest.citation.citation
    if manifest.version_note:
        metadata["version_note"] = manifest.version_note
    if manifest.newer_version:
        metadata["newer_version"] = manifest.newer_version
    if manifest.notes:
        metadata["archive_notes"] = "\n".join(manifest.notes)
    if manifest.replaced:
        metadata["sessions_replaced"] = ", ".join(session.files[0].path for session in manifest.replaced)
    return few_plots(metadata)


def trains_metadata(
    record: TrainsRecord, uri: str, seconds: float, cost: ReadCost | None, synthetic: bool
) -> dict[str, Any]:
    """Metadata of a session's spike trains; ``cost`` is None when they were up to date."""
    spikes = "" if record.n_spikes is None else f", {plural(record.n_spikes, 'spike')}"
    how = "up to date in the store; nothing was read"
    if cost is not None:
        how = f"{_size(cost.bytes_read)} read in {plural(cost.requests, 'request')}"
    metadata: dict[str, Any] = {
        "summary": summary(f"**{plural(record.n_units, 'unit')}**{spikes}; {how}.", synthetic),
        "units": record.n_units,
        "source_version": record.source_version,
        "bytes": record.file.size,
        "seconds": round(seconds, 3),
        "reused": cost is None,
        "dagster/uri": uri,
        "dagster/column_schema": column_schema(BINNED_SCHEMA if record.n_spikes is None else TRAINS_SCHEMA),
    }
    if record.notes:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in record.notes[:20]))
    if record.n_spikes is not None:
        metadata["spikes"] = record.n_spikes
    if cost is not None:
        metadata |= {"archive_bytes_read": cost.bytes_read, "archive_requests": cost.requests}
        metadata |= {"archive_retries": cost.retries, "archive_seconds": round(cost.seconds, 3)}
    return few_plots(metadata)


def counts_metadata(
    record: CountsRecord, uri: str, seconds: float, reused: bool, synthetic: bool, pictures: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata of a session's spike counts."""
    stats = record.stats
    minutes, observed = (f"{seconds / 60:,.1f} min" for seconds in (stats.duration_s, stats.observed_s))
    minutes += f", {observed} of them observed" if observed != minutes else ""
    dropped = f", {stats.dropped:,} dropped" if stats.dropped else ""
    words = (
        f"**{plural(stats.tokens, 'token')}** = {plural(stats.n_units, 'unit')} x {plural(stats.n_bins, 'bin')} of "
        f"{stats.bin_width_s * 1000:g} ms ({minutes}) in {plural(len(record.rows), 'segment')}; "
        f"{plural(stats.spikes_kept, 'spike')}{dropped}, {stats.mean_rate_hz:.2f} per unit and second."
    )
    return few_plots(
        {
            "summary": summary(words, synthetic),
            **pictures,
            "tokens": stats.tokens,
            "units": stats.n_units,
            "bins": stats.n_bins,
            "minutes": round(stats.observed_s / 60, 2),
            "spikes": stats.spikes_kept,
            "mean_rate_hz": round(stats.mean_rate_hz, 3),
            "spikes_dropped": stats.dropped,
            "spikes_saturated": stats.lost_to_saturation,
            "saturated_bins": stats.saturated_bins,
            "silent_units": stats.silent_units,
            "largest_count": stats.max_count,
            "bin_width_s": stats.bin_width_s,
            "bytes": record.file.size,
            "seconds": round(seconds, 3),
            "reused": reused,
            "source_version": record.source_version,
            "dagster/partition_row_count": len(record.rows),
            "dagster/uri": uri,
            "dagster/column_schema": column_schema(),
        }
    )


def component_metadata(
    component: ComponentRecord,
    publication: Publication,
    records: Mapping[str, CountsRecord],
    seconds: float,
    pictures: Mapping[str, Any],
    spikes: Publication | None = None,
) -> dict[str, Any]:
    """Metadata of a published component, and of its spike times; missing sessions come first in its table."""
    totals, missing = component.totals, len(component.missing)
    words = (
        f"**{plural(totals.tokens, 'token')}** in {plural(totals.sessions, 'session')} of "
        f"{plural(totals.subjects, 'subject')}: {plural(totals.units, 'unit')}, {plural(totals.spikes, 'spike')}, "
        f"{totals.minutes:,.1f} min. Published as {link(publication.repository, publication.url)}"
    )
    words += f" **without {plural(missing, 'session')}** that failed or were left out." if missing else "."
    published = [records[session.key] for session in component.sessions]
    stats = [record.stats for record in published]
    rows: list[dict[str, Any]] = [
        {"session": key, "units": "missing", "min": "", "tokens": ""} for key in component.missing
    ]
    rows += [
        {
            "session": record.session_id,
            "units": f"{record.stats.n_units:,}",
            "min": f"{record.stats.observed_s / 60:,.1f}",
            "tokens": f"{record.stats.tokens:,}",
        }
        for record in published
    ]
    return few_plots(
        {
            "summary": summary(words, component.synthetic),
            **pictures,
            "tokens": totals.tokens,
            "sessions": totals.sessions,
            "subjects": totals.subjects,
            "units": totals.units,
            "bins": sum(one.n_bins for one in stats),
            "spikes": totals.spikes,
            "spikes_dropped": sum(one.dropped for one in stats),
            "spikes_saturated": sum(one.lost_to_saturation for one in stats),
            "saturated_bins": sum(one.saturated_bins for one in stats),
            "minutes": round(totals.minutes, 1),
            "dagster/row_count": totals.rows,
            "dagster/column_schema": column_schema(),
            "source_version": component.source_version,
            "missing_sessions": dg.MetadataValue.md(counted(component.missing)),
            **annotation_metadata([component]),
            "sessions_table": table(rows),
            **token_metadata([component_token_counts(component.repository, component.sessions, totals)], publication),
            **publication_metadata(publication, seconds),
            **({"spike_times": place(spikes.url), "spike_times_version": spikes.version} if spikes else {}),
        }
    )
