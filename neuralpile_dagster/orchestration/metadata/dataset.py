"""Dagster metadata of a dataset's records: numbers and tables for the UI. Formats only, computes nothing.

The forms that all metadata share (tables, places, what is plotted) are here too; one-sentence summaries and pictures
are in `summaries`, the metadata of piles in `pile`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from neuralpile_dagster.catalog.describe import rule_in_words
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hub import Publication
from neuralpile_dagster.markdown import url
from neuralpile_dagster.orchestration.metadata import summaries
from neuralpile_dagster.publish.token_counts import (
    TokenStatistics,
    component_token_counts,
    counts_by_split,
    statistics_rows,
)
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord, TokenCounts, TrainsRecord
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster.tables.spike_trains import BINNED_SCHEMA, TRAINS_SCHEMA

TABLE_ROWS = 400
"""Maximum rows shown in a table; the largest dataset has 349 sessions."""
PLOTTED = frozenset(
    {"tokens", "sessions", "units", "spikes", "mean_rate_hz", "bytes", "seconds", "sessions_done", "sessions_failed"}
)
"""Numbers that the UI plots over time: it plots every number, and twenty plots bury those that matter."""
_REASONS_SHOWN = 10


def few_plots(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in which all numbers but those `PLOTTED` are texts, which Dagster shows and does not plot."""
    return {
        name: f"{value:,}" if type(value) in (int, float) and name not in PLOTTED and "/" not in name else value
        for name, value in metadata.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Table for the UI; all rows need the same columns. A longer table ends with the number of rows left out.

    At 1,400 pixels the UI has 430 for it, which hold four or five short columns; the rest would be cut off.
    """
    shown = [dg.TableRecord(dict(row)) for row in rows[:TABLE_ROWS]]
    if len(rows) > TABLE_ROWS:
        first = next(iter(rows[0]))
        note = {name: ("" if isinstance(value, str) else 0) for name, value in rows[0].items()}
        shown.append(dg.TableRecord({**note, first: f"(and {len(rows) - TABLE_ROWS} more)"}))
    columns = []
    for name, value in (rows[0] if rows else {"empty": ""}).items():
        kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
        columns.append(dg.TableColumn(name, "float" if isinstance(value, float) else kind))
    return dg.MetadataValue.table(shown, schema=dg.TableSchema(columns))


def column_schema(schema: pa.Schema = ROW_SCHEMA) -> dg.TableSchema:
    """Arrow schema for the UI's column view."""
    descriptions = {
        "spike_counts": "units x bins, spikes per bin (saturating at 255)",
        "subject_id": "nearest `sub-*` folder of the archive file, else its parent folder",
        "session_id": "name of the archive file without extension (or of the group of files)",
        "segment_id": "consecutive bins of the session, numbered from 0",
        "source_dataset": "repository that the row comes from",
        "ticks": "spike times: ticks / ticks_per_s are seconds; without ticks_per_s, bit patterns of float64 seconds",
        "counts": "spikes per bin, as the file has them",
    }
    columns = [dg.TableColumn(f.name, _plain(f.type), description=descriptions.get(f.name)) for f in schema]
    return dg.TableSchema(columns)


def _plain(kind: pa.DataType) -> str:
    return f"list<{_plain(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def place(address: str) -> dg.MetadataValue:
    """Metadata value of an address: a link for a URL, else a path or store address to copy."""
    return dg.MetadataValue.url(address) if url(address) else dg.MetadataValue.path(address)


def counted(reasons: Mapping[str, str]) -> str:
    """Capped Markdown list of items and their reasons, with the total."""
    if not reasons:
        return "none"
    kinds = Counter(reasons.values())
    lines = [f"- `{key}`: {reason}" for key, reason in list(reasons.items())[:_REASONS_SHOWN]]
    if len(reasons) > _REASONS_SHOWN:
        lines.append(f"- and {len(reasons) - _REASONS_SHOWN} more, of {len(kinds)} kinds")
    return "\n".join(lines)


def manifest_metadata(
    dataset: Dataset, manifest: Manifest, new_keys: int, uri: str, seconds: float, states: Mapping[str, str]
) -> dict[str, Any]:
    """Metadata of a manifest; ``states`` are its sessions' states by key. Vanished sessions come first in its table.

    "session_rule" and "reader" hold for all sessions and are shown once.
    """
    present = [session for session in manifest.sessions if not session.vanished]
    metadata: dict[str, Any] = {
        "summary": summaries.manifest_summary(manifest, new_keys),
        "sessions": len(present),
        "sessions_new": new_keys,
        "sessions_vanished": len(manifest.vanished),
        "subjects": len({session.subject_id for session in present}),
        "files_considered": manifest.considered,
        "files_dropped": dict(sorted(manifest.dropped.items())),
        "session_rule": dg.MetadataValue.md("\n".join(f"- {line}" for line in rule_in_words(dataset.sessions))),
        "reader": dg.MetadataValue.md(get_reader(dataset.reader).markdown),
        "bytes": sum(session.size for session in present),
        "gigabytes": round(sum(session.size for session in present) / 1e9, 3),
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
    metadata: dict[str, Any] = {
        "summary": summaries.trains_summary(record, cost, synthetic),
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
    return few_plots(
        {
            "summary": summaries.counts_summary(record, synthetic),
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


def publication_metadata(publication: Publication, seconds: float) -> dict[str, Any]:
    """Metadata of a publication."""
    return {
        "repository": publication.repository,
        "published_at": place(publication.url),
        "version": publication.version,
        "changed": publication.changed,
        "files": len(publication.files),
        "bytes": sum(file.size for file in publication.files),
        "bytes_sent": publication.bytes_sent,
        "seconds": round(seconds, 3),
        "dagster/uri": publication.url,
    }


def token_metadata(parts: Sequence[TokenCounts]) -> dict[str, Any]:
    """Metadata on the values of tokens; nothing where they were not counted."""
    if not parts:
        return {}
    overall, by_split = TokenStatistics.of(parts), counts_by_split(parts)
    return {
        "token_statistics": table(statistics_rows(parts)),
        "token_counts": dg.MetadataValue.json({split: counts.tolist() for split, counts in by_split.items()}),
        "share_of_zeros": round(overall.bands["0"], 6),
        "spikes_per_token": round(overall.mean, 6),
        "bits_per_token": round(overall.entropy, 6),
        **({} if overall.tokens_per_hour is None else {"tokens_per_hour": round(overall.tokens_per_hour)}),
    }


def annotation_metadata(components: Sequence[ComponentRecord]) -> dict[str, Any]:
    """Metadata on how much of some components is annotated, and ordered."""
    sessions = sum(component.totals.sessions for component in components)
    found = [component.annotations for component in components if component.annotations]
    ordered = sum(component.unit_order.sessions for component in components if component.unit_order)
    rows: Counter[str] = Counter()
    for one in found:
        rows.update(one.tables)
    return {
        "annotated_sessions": f"{sum(one.sessions for one in found):,} of {sessions:,}",
        "intervals": ", ".join(f"{name} ({number:,})" for name, number in sorted(rows.items())) or "none",
        "unit_metrics": ", ".join(sorted({name for one in found for name in one.metrics})) or "none",
        **({"sessions_with_unit_order": f"{ordered:,} of {sessions:,}"} if ordered else {}),
    }


def component_metadata(
    component: ComponentRecord,
    publication: Publication,
    records: Mapping[str, CountsRecord],
    seconds: float,
    pictures: Mapping[str, Any],
    spikes: Publication | None = None,
) -> dict[str, Any]:
    """Metadata of a published component, and of its spike times; missing sessions come first in its table."""
    totals = component.totals
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
            "summary": summaries.component_summary(component, publication),
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
            **token_metadata([component_token_counts(component.repository, component.sessions, totals)]),
            **publication_metadata(publication, seconds),
            **({"spike_times": place(spikes.url), "spike_times_version": spikes.version} if spikes else {}),
        }
    )
